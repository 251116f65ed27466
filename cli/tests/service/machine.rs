//! A machine of its own for each test: a disk that outlives a reboot, a `/run` that does not, and the daemons that run on it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::images::scratch_parent;
use crate::process::wait_until;

/// In the environment of every daemon of a machine, and so of what they start: the machine's folder.
const MARK: &str = "SNAP_TEST_MACHINE";

pub(crate) struct Machine {
    dir: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        // Short: sockets are below it, and their paths are limited to 107 bytes.
        let dir = tempfile::Builder::new().prefix("m").rand_bytes(5).tempdir_in(scratch_parent()).unwrap();
        let machine = Self { dir };
        for folder in ["disk", "run"] {
            std::fs::create_dir(machine.path().join(folder)).unwrap();
        }
        machine
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path that survives a reboot.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.path().join("disk").join(name)
    }

    /// A path that does not.
    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.path().join("run").join(name)
    }

    /// A program of this machine; `bin` comes first in its `PATH`.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>, bin: &[&Path]) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = bin.iter().map(|bin| bin.to_path_buf()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).unwrap();
        // The program itself is to be found there too, whatever PATH this process has.
        let program = bin.iter().map(|bin| bin.join(program.as_ref())).find(|at| at.exists()).unwrap_or_else(|| program.as_ref().into());
        let mut command = Command::new(program);
        command.env("PATH", path).env(MARK, self.path());
        command
    }

    /// Everything that runs on it: what carries its mark, or names something of it (the keeper of a mount has no environment), and the
    /// descendants of that (nor have containers that of their daemon).
    pub(crate) fn processes(&self) -> BTreeSet<Pid> {
        let mark = [MARK.as_bytes(), b"=", self.path().as_os_str().as_encoded_bytes()].concat();
        let within = format!("{}/", self.path().display());
        let all: Vec<(Pid, Pid)> = pids().into_iter().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
        let marked = |pid: Pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable == mark)
                || arguments.split(|byte| *byte == 0).any(|argument| argument.starts_with(within.as_bytes()))
        };
        let mut found: BTreeSet<Pid> = all.iter().map(|(pid, _)| *pid).filter(|pid| marked(*pid)).collect();
        loop {
            let known = found.len();
            found.extend(all.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>());
            if found.len() == known {
                // The tests' own commands carry the mark, this process must not be among them.
                found.remove(&Pid::this());
                return found;
            }
        }
    }

    /// What is mounted in its folder, the deepest first.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts: Vec<PathBuf> = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect();
        mounts.retain(|mount| mount.starts_with(self.path()));
        mounts.sort();
        mounts.reverse();
        mounts
    }

    /// Ends all its processes at once, takes its mounts and its `/run` away: what a power failure leaves.
    pub(crate) fn power_off(&self) {
        wait_until("all processes are gone", || {
            let running = self.processes();
            for pid in &running {
                // It may have ended since.
                assert!(matches!(kill(*pid, Signal::SIGKILL), Ok(()) | Err(Errno::ESRCH)));
            }
            running.is_empty()
        });
        for mount in self.mounts() {
            let _ = umount2(&mount, MntFlags::MNT_DETACH);
        }
        let run = self.path().join("run");
        std::fs::remove_dir_all(&run).unwrap();
        std::fs::create_dir(&run).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would hide the first.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.power_off()));
        } else {
            self.power_off();
        }
    }
}

fn pids() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    entries.filter_map(|name| name.to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

/// None of a process that has ended.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    (state != "Z").then_some(Pid::from_raw(fields.next()?.parse().ok()?))
}
