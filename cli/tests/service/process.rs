//! Daemons that the tests start, with a log each.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take that is waited for: generous, as it decides about no test that goes well.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what another program does, which has no way of telling.
const POLL: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 40;

/// Runs to the end; panics with everything it said unless it succeeded.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\nstdout: {out}\nstderr: {err}", output.status);
    output
}

/// Runs to the end; what it wrote to stdout.
#[track_caller]
pub(crate) fn stdout(command: &mut Command) -> String {
    String::from_utf8(succeed(command).stdout).unwrap()
}

/// Asks until the answer is yes; panics when it takes too long.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "after {} s still not: {what}", PATIENCE.as_secs());
        std::thread::sleep(POLL);
    }
}

/// A daemon in the foreground; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with stdout and stderr appended to `log`.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Waits until it answers; panics, with its log, where it ends before that.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self, mut answers: impl FnMut() -> bool) {
        let what = format!("{} answers", self.name);
        wait_until(&what, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            answers()
        });
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Waits for the end; how it ended, and all it wrote.
    #[track_caller]
    pub(crate) fn wait_saying(self) -> (ExitStatus, String) {
        let log = self.log.clone();
        let status = self.wait();
        (status, std::fs::read_to_string(log).unwrap())
    }

    /// Sends a signal and waits for the end.
    #[track_caller]
    pub(crate) fn end(self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).unwrap();
        self.wait()
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> ExitStatus {
        let mut status = None;
        wait_until(&format!("{} ends", self.name), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the end of {}'s log\n{}", self.name, self.log_tail());
        }
    }
}
