//! `snap pull` against a machine's containerd.

use std::process::Command;

use crate::client::Spoken;
use crate::containerd::Containerd;
use crate::process::Process;
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
        // Logins of whoever runs the tests are none of a test's.
        command.env("DOCKER_CONFIG", machine.disk("docker-config"));
        command.arg("pull").arg("--address").arg(self.containerd.socket());
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

    /// Leaves it to the caller to end it, or to wait for its end.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Process {
        Process::spawn("snap pull", &mut self.command(arguments), &self.containerd.machine.disk("pull.log"))
    }
}
