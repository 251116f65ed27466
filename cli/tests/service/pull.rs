//! `snap pull` against a machine's containerd.

use std::process::Command;

use crate::client::Spoken;
use crate::containerd::Containerd;
use crate::process::stdout;
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
        let machine = self.containerd.machine;
        let mut command = machine.command(program(), &[]);
        // Logins of whoever runs the tests are none of a test's, nor are other tests' pulls.
        command.env("DOCKER_CONFIG", machine.disk("docker-config")).env("SNAP_STATE_DIR", machine.run("snap-state"));
        command.arg("pull").arg("--address").arg(self.containerd.socket()).arg("--state").arg(machine.run("snap"));
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
