//! `snap pull` and `snap fetch` against a machine's containerd.

use std::process::Command;

use crate::client::Spoken;
use crate::containerd::Containerd;
use crate::process::{Process, stdout};
use crate::serve::program;
use crate::transcript::Transcript;

pub(crate) struct SnapPull<'c, 'm> {
    containerd: &'c Containerd<'m>,
    namespace: &'static str,
}

impl<'c, 'm> SnapPull<'c, 'm> {
    pub(crate) fn new(containerd: &'c Containerd<'m>, namespace: &'static str) -> Self {
        Self { containerd, namespace }
    }

    /// With more arguments: options and references.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.action("pull", arguments)
    }

    fn action(&self, action: &str, arguments: &[&str]) -> Command {
        let machine = self.containerd.machine;
        let mut command = machine.command(program(), &[]);
        // Logins of whoever runs the tests are none of a test's, nor are other tests' pulls.
        command.env("DOCKER_CONFIG", machine.disk("docker-config")).env("SNAP_STATE_DIR", machine.run("snap-state"));
        command.arg(action).arg("--address").arg(self.containerd.socket()).arg("--state").arg(machine.run("snap"));
        command.args(["--namespace", self.namespace, "--snapshotter", self.containerd.snapshotter.name()]).args(arguments);
        command
    }

    /// What it says to someone who reads it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Spoken {
        self.command(arguments).output().unwrap().into()
    }

    /// What it says to a program, and how it ended.
    pub(crate) fn run_telling(&self, arguments: &[&str]) -> (Transcript, Spoken) {
        let spoken: Spoken = self.command(&["--progress", "json"]).args(arguments).output().unwrap().into();
        (Transcript::parse(&spoken.said), spoken)
    }

    /// Leaves it to the caller to end it, or to wait for its end. What it says goes to a file of its own.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Process {
        self.spawn(&mut self.command(arguments))
    }

    /// The same of `snap fetch`.
    pub(crate) fn begin_fetch(&self, arguments: &[&str]) -> Process {
        self.spawn(&mut self.action("fetch", arguments))
    }

    fn spawn(&self, command: &mut Command) -> Process {
        let log = |number| self.containerd.machine.disk(&format!("snap-{number}.log"));
        Process::spawn("snap", command, &(0..).map(log).find(|log| !log.exists()).unwrap())
    }

    /// `snap fetch`.
    pub(crate) fn fetch(&self, arguments: &[&str]) -> Spoken {
        self.action("fetch", arguments).output().unwrap().into()
    }

    /// That no pull has left anything but images.
    #[track_caller]
    pub(crate) fn assert_tidy(&self) {
        let lines = |arguments: &[&str]| -> Vec<String> {
            stdout(self.containerd.ctr(self.namespace).args(arguments)).lines().map(str::to_owned).collect()
        };
        assert_eq!(lines(&["leases", "ls", "--quiet"]), [""; 0]);
        assert_eq!(lines(&["content", "active"]).split_off(1), [""; 0], "ingests");
        let snapshots = lines(&["snapshots", "--snapshotter", self.containerd.snapshotter.name(), "ls"]);
        assert!(snapshots[1..].iter().all(|line| line.trim_end().ends_with("Committed")), "{snapshots:?}");
        let locks = std::fs::read_dir(self.containerd.machine.run("snap-state/pulls")).unwrap();
        assert_eq!(locks.map(|lock| lock.unwrap().file_name()).collect::<Vec<_>>(), [""; 0], "locks");
    }
}
