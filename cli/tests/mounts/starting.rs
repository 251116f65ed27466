//! A mount that ends before it is usable. The start is held up by a lock that says another process is building the layer.

use std::process::Child;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fixture::{Fixture, ended_with, is_running, signal, start, succeeded, wait_until};

/// Starts a mount and waits until it is opening the image. Gives the command, and the number of the process that is to serve.
fn opening(fixture: &Fixture) -> (Child, u64) {
    let command = start(fixture.mount_command(&[], &fixture.dir()));
    let mut serving = Value::Null;
    wait_until("the image is being opened", || {
        let status = fixture.status().into_iter().next().unwrap_or_default();
        serving = status["pid"].clone();
        status["state"] == "starting"
    });
    (command, serving.as_u64().unwrap())
}

fn assert_next_works(fixture: &Fixture) {
    fixture.mount(&[]);
    succeeded(&fixture.umount(&[]));
}

#[test]
fn an_interrupted_command_leaves_nothing() {
    for (number, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let fixture = Fixture::new();
        let held = fixture.hold_build();
        let (command, serving) = opening(&fixture);
        signal(u64::from(command.id()), number);
        let output = ended_with(command, code);
        assert!(output.stdout.is_empty());
        assert!(!is_running(serving), "the command waits for what it started");
        fixture.assert_nothing_left(serving);
        drop(held);
        assert_next_works(&fixture);
    }
}

#[test]
fn a_killed_command_leaves_nothing() {
    let fixture = Fixture::new();
    let held = fixture.hold_build();
    let (mut command, serving) = opening(&fixture);
    command.kill().unwrap();
    command.wait().unwrap();
    fixture.assert_nothing_left(serving);
    drop(held);
    assert_next_works(&fixture);
}

#[test]
fn a_killed_process_is_told_by_the_command() {
    let fixture = Fixture::new();
    let held = fixture.hold_build();
    let (command, serving) = opening(&fixture);
    signal(serving, Signal::SIGKILL);
    let output = ended_with(command, 1);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("error: the background process was ended by signal 9"), "{stderr}");
    fixture.assert_nothing_left(serving);
    drop(held);
    assert_next_works(&fixture);
}

#[test]
fn while_one_mounts_others_are_refused_and_umount_says_so() {
    let fixture = Fixture::new();
    let held = fixture.hold_build();
    let (command, serving) = opening(&fixture);
    let second = fixture.mount_command(&[], &fixture.dir()).output().unwrap();
    crate::fixture::failed_with(&second, &["already", &format!("process {serving}")]);
    crate::fixture::failed_with(&fixture.umount(&[]), &["is still being mounted", &format!("kill {serving}")]);
    drop(held);
    ended_with(command, 0);
    succeeded(&fixture.umount(&[]));
}
