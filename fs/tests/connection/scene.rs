//! One test's directory, mount point and processes. Nothing of it outlives the test, however it ends.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use snap_fs::{Connection, Served};
use tempfile::TempDir;

use crate::actor::MARK;
use crate::tiny::{Mode, Tiny};

/// Whatever takes longer than this hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const THREADS: usize = 2;

pub(crate) struct Scene(TempDir);

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(mount_point(dir.path())).unwrap();
        Self(dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn mount_point(&self) -> PathBuf {
        mount_point(self.dir())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.mount_point().join(name)
    }

    pub(crate) fn mount(&self) -> Connection {
        Connection::mount(&self.mount_point(), "test", &saved(self.dir())).unwrap()
    }

    /// Mounts and serves, in this process. The descriptor is what a keeper would have.
    pub(crate) fn serve(&self, mode: Mode) -> (Served, OwnedFd) {
        let connection = self.mount();
        let device = connection.device().try_clone_to_owned().unwrap();
        (connection.serve(Tiny::new(mode), THREADS).unwrap(), device)
    }

    /// Starts this program as an actor.
    pub(crate) fn start(&self, role: &str, argument: &str) -> Actor {
        Actor::start(command(role, self.dir()).arg(argument), self)
    }

    /// How many mounts there are at the mount point.
    pub(crate) fn mounts(&self) -> usize {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let point = self.mount_point();
        table.lines().filter(|line| line.split(' ').nth(4) == point.to_str()).count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        abort(&self.mount_point());
        assert_eq!(self.mounts(), 0);
    }
}

pub(crate) fn mount_point(dir: &Path) -> PathBuf {
    dir.join("fs")
}

/// Ends what is mounted there for everyone, however often it is.
pub(crate) fn abort(mount_point: &Path) {
    let unmount = |how| umount2(mount_point, how | MntFlags::UMOUNT_NOFOLLOW);
    while unmount(MntFlags::MNT_FORCE).or_else(|_| unmount(MntFlags::MNT_DETACH)).is_ok() {}
}

pub(crate) fn saved(dir: &Path) -> PathBuf {
    dir.join("connection.json")
}

pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join("keeper.sock")
}

pub(crate) fn command(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(MARK).arg(role).arg(dir);
    command
}

/// Waits for what ends by itself.
pub(crate) fn wait<T>(ending: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, ending).await }).unwrap()
}

/// A started process, and what it says.
pub(crate) struct Actor {
    child: Child,
    lines: Receiver<String>,
    mount_point: PathBuf,
}

impl Actor {
    pub(crate) fn start(command: &mut Command, scene: &Scene) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, mount_point: scene.mount_point() }
    }

    /// Waits until it says this.
    pub(crate) fn says(&self, wanted: &str) {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == wanted => return,
                Ok(_) => {}
                Err(error) => panic!("no {wanted:?}: {error}"),
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn ends(mut self) -> ExitStatus {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
            }
        }
    }

    /// By SIGKILL. When this returns, the process is no more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A process that waits for the mount cannot be killed before this.
            abort(&self.mount_point);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
