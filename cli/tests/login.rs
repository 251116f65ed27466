//! `snap login` and `snap logout`: from a pipe and at a terminal, against a registry that wants a user and a password.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};
use snap_registry::testing::FaultyRegistry;
use tempfile::TempDir;

const USER: &str = "me";
const PASSWORD: &str = "hunter2 or 3";
const AUTH: &str = "bWU6aHVudGVyMiBvciAz";

/// A registry, and a home whose docker configuration nobody else uses.
struct Setup {
    registry: FaultyRegistry,
    home: TempDir,
}

impl Setup {
    async fn new() -> Self {
        let registry = FaultyRegistry::start().await;
        registry.require_basic(USER, PASSWORD);
        Self { registry, home: TempDir::new().unwrap() }
    }

    fn host(&self) -> String {
        self.registry.addr().to_string()
    }

    fn config_file(&self) -> PathBuf {
        self.home.path().join("docker/config.json")
    }

    fn config(&self) -> Option<Value> {
        Some(serde_json::from_slice(&std::fs::read(self.config_file()).ok()?).unwrap())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("HOME", self.home.path()).env("DOCKER_CONFIG", self.home.path().join("docker"));
        command
    }

    /// Without a terminal, whoever runs the tests.
    async fn snap(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_snap"), arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may have ended without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        wait(child).await
    }

    /// At a terminal of its own.
    fn at_terminal(&self, arguments: &[&str]) -> Terminal {
        let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&outside).unwrap();
        unlockpt(&outside).unwrap();
        let inside = ptsname(&outside, Vec::new()).unwrap();
        let inside = rustix::fs::open(inside, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        // The terminal has to be the program's own for Ctrl-C to reach it.
        let mut command = self.command("setsid", &["--ctty", "--wait", env!("CARGO_BIN_EXE_snap")]);
        command.args(arguments).stdin(inside.try_clone().unwrap()).stdout(inside.try_clone().unwrap()).stderr(inside.try_clone().unwrap());
        Terminal { child: command.spawn().unwrap(), outside: File::from(outside), inside, seen: Vec::new() }
    }
}

/// The registry runs on this thread's runtime, so waiting must not block it.
async fn wait(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Terminal {
    child: Child,
    outside: File,
    /// Keeps what is written there readable when the program has ended.
    inside: OwnedFd,
    seen: Vec<u8>,
}

impl Terminal {
    /// Reads until the program has shown `text`.
    fn expect(&mut self, wanted: &str) {
        while !text(&self.seen).contains(wanted) {
            let mut buffer = [0; 1024];
            let read = self.outside.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..read]);
        }
    }

    fn types(&mut self, text: &str) {
        self.outside.write_all(text.as_bytes()).unwrap();
    }

    fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.outside).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Waits for the program to end; its exit code, what was seen, and whether the terminal is as it was.
    async fn end(self) -> (Option<i32>, String, bool) {
        let Self { child, mut outside, inside, mut seen } = self;
        let status = wait(child).await.status;
        let is_as_before = tcgetattr(&outside).unwrap().local_modes.contains(LocalModes::ECHO);
        drop(inside);
        // Nobody has the inside open any more: there is an end to read to, which Linux makes an error.
        let _ = outside.read_to_end(&mut seen);
        (status.code(), text(&seen), is_as_before)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_from_a_pipe_is_kept_as_docker_keeps_it_and_taken_away() {
    let setup = Setup::new().await;
    let host = setup.host();
    let output = setup.snap(&["login", "-u", USER, "--password-stdin", &host], &format!("{PASSWORD}\n")).await;
    assert_eq!(text(&output.stdout), "Login Succeeded\n", "{}", text(&output.stderr));
    let warning = format!("stored unencrypted in '{}'", setup.config_file().display());
    assert!(text(&output.stderr).contains(&warning), "{}", text(&output.stderr));
    assert_eq!(setup.config().unwrap()["auths"][&host], json!({ "auth": AUTH }));

    let again = setup.snap(&["login", &host], "").await;
    assert_eq!(text(&again.stdout), "Login Succeeded\n", "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("existing credentials... [Username: me]"));

    let output = setup.snap(&["logout", &host], "").await;
    assert_eq!(text(&output.stdout), format!("Removing login credentials for {host}\n"));
    assert_eq!(setup.config().unwrap()["auths"].get(&host), None);
    let output = setup.snap(&["logout", &host], "").await;
    assert_eq!(text(&output.stdout), format!("Not logged in to {host}\n"));
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_and_not_kept() {
    let setup = Setup::new().await;
    let output = setup.snap(&["login", "-u", USER, "--password-stdin", &setup.host()], "wrong").await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("incorrect username or password") && output.stdout.is_empty(), "{said}");
    assert_eq!(setup.config(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_nothing_is_asked() {
    let setup = Setup::new().await;
    let output = setup.snap(&["login", &setup.host()], "me\nsecret\n").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("hint: snap login --username USER --password-stdin"), "{}", text(&output.stderr));
    let output = setup.snap(&["login", "-u", USER, "--password", PASSWORD, &setup.host()], "").await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--password-stdin") && !said.contains(PASSWORD), "{said}");
    assert!(setup.registry.requests().is_empty() && setup.config().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_and_not_shown() {
    let setup = Setup::new().await;
    let mut terminal = setup.at_terminal(&["login", &setup.host()]);
    terminal.expect("Username: ");
    assert!(terminal.shows_what_is_typed());
    terminal.types(&format!("{USER}\n"));
    terminal.expect("Password: ");
    assert!(!terminal.shows_what_is_typed());
    terminal.types(&format!("{PASSWORD}\n"));
    terminal.expect("Login Succeeded");
    let (code, seen, is_as_before) = terminal.end().await;
    assert_eq!(code, Some(0), "{seen}");
    assert!(!seen.contains(PASSWORD) && is_as_before, "{seen}");
    assert_eq!(setup.config().unwrap()["auths"][setup.host()], json!({ "auth": AUTH }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_at_the_password_leaves_the_terminal_as_it_was() {
    let setup = Setup::new().await;
    let mut terminal = setup.at_terminal(&["login", "-u", USER, &setup.host()]);
    terminal.expect("Password: ");
    assert!(!terminal.shows_what_is_typed());
    terminal.types("half\x03");
    let (code, seen, is_as_before) = terminal.end().await;
    assert_eq!(code, Some(130), "{seen}");
    assert!(!seen.contains("half") && is_as_before, "{seen}");
    assert!(setup.registry.requests().is_empty() && setup.config().is_none());
}
