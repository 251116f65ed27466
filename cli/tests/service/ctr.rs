//! `ctr`, and what pulls for it: `ctr-remote`, for old versions that pass no labels by themselves, and `snap pull`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client::{Client, Spoken};
use crate::containerd::{Containerd, Version};
use crate::machine::Machine;
use crate::process::{stdout, succeed, wait_until};
use crate::pull::SnapPull;

/// How an image is pulled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pull {
    /// By `ctr` itself: passes no label, so that everything is downloaded and unpacked.
    Local,
    /// By containerd's transfer service.
    Transfer,
    /// `ctr-remote images rpull`.
    Rpull,
    /// `snap pull`; what follows is done by `ctr`.
    Snap,
}

pub(crate) struct Ctr<'c, 'm> {
    containerd: &'c Containerd<'m>,
    pull: Pull,
    namespace: &'static str,
}

impl<'c, 'm> Ctr<'c, 'm> {
    pub(crate) fn new(containerd: &'c Containerd<'m>, pull: Pull) -> Self {
        Self::in_namespace(containerd, pull, "default")
    }

    pub(crate) fn in_namespace(containerd: &'c Containerd<'m>, pull: Pull, namespace: &'static str) -> Self {
        Self { containerd, pull, namespace }
    }

    fn machine(&self) -> &'m Machine {
        self.containerd.machine
    }

    fn command(&self) -> Command {
        self.containerd.ctr(self.namespace())
    }

    fn snapshots(&self) -> Command {
        let mut command = self.command();
        command.args(["snapshots", "--snapshotter", self.containerd.snapshotter.name()]);
        command
    }

    /// Mounts a snapshot at a folder as `ctr` says, for as long as `work` takes.
    fn mounted(&self, key: &str, work: impl FnOnce(&Path)) {
        let folder = self.machine().run("mounted");
        std::fs::create_dir(&folder).unwrap();
        let mount = stdout(self.snapshots().args(["mounts", folder.to_str().unwrap(), key]));
        succeed(Command::new("/bin/sh").args(["-c", &mount]));
        work(&folder);
        succeed(Command::new("umount").arg(&folder));
        std::fs::remove_dir(&folder).unwrap();
    }

    /// Commits a change on top of a snapshot, looks at it from above, and removes both; returns what the difference consists of.
    pub(crate) fn commit_a_change(&self, parent: &str) -> Vec<String> {
        succeed(self.snapshots().args(["prepare", "changing", parent]));
        self.mounted("changing", |root| {
            std::fs::write(root.join("opt/app/new"), "new").unwrap();
            std::fs::remove_file(root.join("etc/debian_version")).unwrap();
            // A copy-up.
            std::fs::set_permissions(root.join("opt/app/words.txt"), Permissions::from_mode(0o600)).unwrap();
        });
        succeed(self.snapshots().args(["commit", "changed", "changing"]));
        // What `ctr` calls a view may be taken for garbage at once. Telling the difference makes one.
        succeed(self.snapshots().args(["prepare", "changed-again", "changed"]));
        self.mounted("changed-again", |root| {
            assert_eq!(std::fs::read(root.join("opt/app/new")).unwrap(), b"new");
            assert!(!root.join("etc/debian_version").exists() && root.join("etc/os-release").exists());
        });
        let difference = succeed(self.snapshots().args(["diff", parent, "changed"])).stdout;
        for key in ["changed-again", "changed"] {
            succeed(self.snapshots().args(["rm", key]));
        }
        names(&difference)
    }

    /// Every file of a snapshot, with all that is known of it, and the hashes of what they hold.
    pub(crate) fn files_of(&self, snapshot: &str) -> String {
        const LIST: &str = "cd \"$0\" && export LC_ALL=C && find . -mindepth 1 ! -type d -printf '%p %y %m %U:%G %n %s %T@ %l\\n' -o \
            -printf '%p %y %m %U:%G %T@\\n' | sort && find . -type f -print0 | sort --zero-terminated | xargs --null sha256sum";
        succeed(self.snapshots().args(["prepare", "looked-at", snapshot]));
        let mut listed = String::new();
        self.mounted("looked-at", |root| listed = stdout(Command::new("/bin/sh").args(["-c", LIST]).arg(root)));
        succeed(self.snapshots().args(["rm", "looked-at"]));
        listed
    }

    /// Leaves it to the caller to wait for the end.
    pub(crate) fn begin_pull(&self, reference: &str) -> Child {
        let mut command = self.pull_command(reference);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn pull_command(&self, reference: &str) -> Command {
        let mut command = match self.pull {
            Pull::Snap => return SnapPull::new(self.containerd, self.namespace).command(&[reference]),
            Pull::Rpull => {
                let mut command = self.machine().command("ctr-remote", &[self.containerd.bin()]);
                command.arg("--address").arg(self.containerd.socket()).args(["--namespace", self.namespace(), "images", "rpull"]);
                command
            }
            Pull::Transfer | Pull::Local => {
                let mut command = self.command();
                command.args(["images", "pull"]);
                if self.pull == Pull::Local && self.containerd.version == Version::V2 {
                    command.arg("--local");
                }
                command
            }
        };
        command.args(["--plain-http", "--snapshotter", self.containerd.snapshotter.name(), reference]);
        command
    }

    fn log(&self, name: &str) -> std::path::PathBuf {
        self.machine().run(&format!("{}-{name}.log", self.namespace))
    }

    /// runc's state is one folder for all containerds unless told otherwise, and its IDs must differ.
    fn id(&self, name: &str) -> String {
        format!("{}-{}-{name}", self.namespace, self.machine().path().file_name().unwrap().to_str().unwrap())
    }
}

/// What an archive, compressed or not, holds.
fn names(archive: &[u8]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), archive).unwrap();
    stdout(Command::new("tar").args(["--list", "--auto-compress", "--file"]).arg(file.path())).lines().map(str::to_owned).collect()
}

impl Client for Ctr<'_, '_> {
    fn namespace(&self) -> &'static str {
        self.namespace
    }

    fn pull(&self, reference: &str) -> Result<(), String> {
        let output = self.pull_command(reference).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    fn start(&self, reference: &str, name: &str, command: &[&str]) -> String {
        let id = self.id(name);
        let log = format!("file://{}", self.log(name).display());
        let mut run = self.command();
        run.args(["run", "--detach", "--net-host", "--snapshotter", self.containerd.snapshotter.name(), "--log-uri", &log]);
        succeed(run.arg("--runc-root").arg(self.machine().run("runc")).args([reference, &id]).args(command));
        id
    }

    fn wait(&self, container: &str, name: &str) -> Spoken {
        let listed = || {
            let listed = stdout(self.command().args(["tasks", "ls"]));
            listed.lines().find(|line| line.split_whitespace().next() == Some(container)).map(str::to_owned).unwrap()
        };
        wait_until("the container ends", || listed().contains("STOPPED"));
        // Deleting the task tells its status, where that is not 0.
        let deleted = succeed(self.command().args(["tasks", "rm", container]));
        let told = String::from_utf8(deleted.stderr).unwrap();
        let digits = told.split("exit code ").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let status = digits.map_or(0, |digits| digits.parse().unwrap());
        let said = std::fs::read_to_string(self.log(name)).unwrap();
        // A container of the same name would append to it.
        std::fs::remove_file(self.log(name)).unwrap();
        Spoken { status, said, complained: told }
    }

    fn exec(&self, container: &str, command: &[&str]) -> Spoken {
        let mut exec = self.command();
        exec.args(["tasks", "exec", "--exec-id", "exec", container]).args(command);
        exec.output().unwrap().into()
    }

    fn remove(&self, container: &str) {
        // A task that has been waited for is gone.
        let _ = self.command().args(["tasks", "rm", "--force", container]).output().unwrap();
        succeed(self.command().args(["containers", "rm", container]));
    }

    fn remove_image(&self, reference: &str) {
        succeed(self.command().args(["images", "rm", "--sync", reference]));
    }

    fn finish(&mut self) {}
}
