//! `snap serve` as a machine's own service.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::Machine;
use crate::process::{Process, stdout, wait_until};

pub(crate) struct Serve<'m> {
    machine: &'m Machine,
    program: PathBuf,
    socket: PathBuf,
    process: Option<Process>,
}

impl<'m> Serve<'m> {
    /// With more configuration than where things are: tables of its file.
    pub(crate) fn start(machine: &'m Machine, tables: &str) -> Self {
        let mut serve = Self::new(machine, tables);
        serve.resume();
        serve
    }

    /// Configured, and not running.
    pub(crate) fn new(machine: &'m Machine, tables: &str) -> Self {
        Self::listening_at(machine, socket(machine), tables)
    }

    pub(crate) fn listening_at(machine: &'m Machine, socket: PathBuf, tables: &str) -> Self {
        let (root, state) = (machine.disk("snap"), machine.run("snap"));
        let config = format!("root = {root:?}\nstate = {state:?}\nsocket = {socket:?}\n{tables}");
        std::fs::write(machine.disk("snap.toml"), config).unwrap();
        Self { machine, program: program(), socket, process: None }
    }

    /// The next `resume` starts the program from this file.
    pub(crate) fn replace_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// As it is started.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.machine.command(&self.program, &[]);
        command.args(["--log-json", "serve", "--config"]).arg(self.machine.disk("snap.toml"));
        command
    }

    /// Starts it, again after an end.
    pub(crate) fn resume(&mut self) {
        let mut process = Process::spawn("snap serve", &mut self.command(), &self.machine.disk("snap.log"));
        process.wait_ready(|| UnixStream::connect(&self.socket).is_ok());
        self.process = Some(process);
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        self.process.take().unwrap().end(signal)
    }

    pub(crate) fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Waits for an end that it comes to by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.take().unwrap().wait()
    }

    /// The process that holds the mount.
    pub(crate) fn keeper(&self) -> Option<Pid> {
        let arguments = |pid: &Pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        self.machine.processes().into_iter().find(|pid| arguments(pid).starts_with(b"snap-keeper\0"))
    }

    /// After a machine's power has gone: the process is dead already.
    pub(crate) fn forget(&mut self) {
        self.process = None;
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.machine.disk("snap")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.machine.disk("snap.log")).unwrap()
    }

    /// What `snap status --json` tells of the service; null where none answers.
    pub(crate) fn status(&self) -> Value {
        let mut command = self.machine.command(program(), &[]);
        // Mounts of other tests are none of this service's business.
        command.env("SNAP_STATE_DIR", self.machine.run("snap-state")).args(["status", "--json", "--state"]).arg(self.machine.run("snap"));
        let mut status: Value = serde_json::from_str(&stdout(&mut command)).unwrap();
        status["service"].take()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        let status = self.status();
        status[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {status}"))
    }

    /// Counts of snapshots, and refusals.
    pub(crate) fn snapshots(&self) -> Value {
        self.status()["snapshots"]["Ok"].take()
    }

    /// Layers that were left to containerd.
    pub(crate) fn refusals(&self) -> Value {
        self.snapshots()["refusals"].take()
    }

    pub(crate) fn wait_complete(&self) {
        wait_until("every layer is here", || self.status()["complete"] == true);
    }

    /// Digests of the layers in its store.
    pub(crate) fn stored_layers(&self) -> Vec<String> {
        let mut command = self.machine.command(program(), &[]);
        let listed = stdout(command.args(["cache", "ls", "--json", "--cache-dir"]).arg(self.root()));
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// Directories of ordinary snapshots.
    pub(crate) fn directories(&self) -> Vec<OsString> {
        let entries = std::fs::read_dir(self.root().join("snapshotter/s")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    /// Files that it has open, connections aside: those come and go with the callers.
    pub(crate) fn open_files(&self) -> Vec<PathBuf> {
        let dir = format!("/proc/{}/fd", self.process.as_ref().unwrap().pid());
        let links = std::fs::read_dir(dir).unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let mut files: Vec<PathBuf> = links.filter(|link| !link.to_string_lossy().starts_with("socket:")).collect();
        // Each has a number of its own.
        for pipe in files.iter_mut().filter(|file| file.to_string_lossy().starts_with("pipe:")) {
            *pipe = "pipe:".into();
        }
        files.sort();
        files
    }

    /// Waits until nothing is left of any image or container, and of what served them no more than `files`.
    #[track_caller]
    pub(crate) fn assert_empty(&self, files: &[PathBuf]) {
        let nothing = serde_json::json!({ "active": 0, "views": 0, "unpacked": 0, "served": 0 });
        let mut snapshots = self.snapshots();
        snapshots.as_object_mut().unwrap().remove("refusals");
        assert_eq!(snapshots, nothing);
        // Behind the answers: the disk is freed when there is time.
        wait_until("no layer is stored", || self.stored_layers().is_empty());
        let status = self.status();
        assert_eq!((&status["layers"], &status["trees"]), (&Value::Array(vec![]), &Value::Array(vec![])));
        assert_eq!(self.directories(), Vec::<OsString>::new());
        wait_until("no file stays open", || self.open_files().len() <= files.len());
        assert_eq!(self.open_files(), files);
    }
}

/// Where a machine's service listens unless told otherwise.
pub(crate) fn socket(machine: &Machine) -> PathBuf {
    machine.run("snap").join("snap.sock")
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("SNAP").map_or_else(|| Path::new(env!("CARGO_BIN_EXE_snap")).to_owned(), PathBuf::from)
}
