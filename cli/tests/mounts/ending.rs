//! How a mount ends: unmounted while in use, by a signal, from outside, or with its process killed.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::fixture::{Fixture, failed_with, is_running, pid_of, signal, succeeded, wait_until};

#[test]
fn a_mount_in_use_is_not_unmounted_unless_lazily() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    let mut file = File::open(fixture.dir().join("large")).unwrap();
    failed_with(&fixture.umount(&[]), &["is in use", "hint: fuser -vm", "--lazy"]);
    assert_eq!(fs::read_to_string(fixture.dir().join("hello")).unwrap(), "hello world\n", "it is as it was");

    let output = fixture.umount(&["--lazy"]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("files of it are open"));
    assert!(!fixture.is_mounted());
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, vec![7; 1 << 20], "open files are served");
    drop(file);
    fixture.assert_nothing_left(pid_of(&mounted));
}

#[test]
fn a_detached_mount_leaves_its_directory_free() {
    let fixture = Fixture::new();
    let first = fixture.mount(&[]);
    let file = File::open(fixture.dir().join("large")).unwrap();
    succeeded(&fixture.umount(&["--lazy"]));
    assert_eq!(fixture.status()[0]["state"], "detached");
    failed_with(&fixture.umount(&[]), &["nothing is mounted", &format!("process {}", pid_of(&first)), "hint: close them"]);

    let second = fixture.mount(&[]);
    let states: Vec<_> = fixture.status().iter().map(|status| (status["pid"].clone(), status["state"].clone())).collect();
    assert_eq!(states, [(second["pid"].clone(), "serving".into()), (first["pid"].clone(), "detached".into())]);
    succeeded(&fixture.umount(&[]));
    assert!(!is_running(pid_of(&second)) && is_running(pid_of(&first)));
    drop(file);
    fixture.assert_nothing_left(pid_of(&first));
}

#[test]
fn a_signal_unmounts() {
    let fixture = Fixture::new();
    for number in [Signal::SIGTERM, Signal::SIGINT] {
        let mounted = fixture.mount(&[]);
        signal(pid_of(&mounted), number);
        fixture.assert_nothing_left(pid_of(&mounted));
    }
}

#[test]
fn after_a_signal_open_files_are_served_until_they_are_closed() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&["--no-background"]);
    let mut file = File::open(fixture.dir().join("large")).unwrap();
    signal(pid_of(&mounted), Signal::SIGTERM);
    wait_until("the mount is gone", || !fixture.is_mounted());
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert!(is_running(pid_of(&mounted)));
    drop(file);
    fixture.assert_nothing_left(pid_of(&mounted));
}

#[test]
fn a_second_signal_ends_it_with_files_open() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    let _file = File::open(fixture.dir().join("large")).unwrap();
    signal(pid_of(&mounted), Signal::SIGTERM);
    wait_until("the mount is gone", || !fixture.is_mounted());
    signal(pid_of(&mounted), Signal::SIGTERM);
    fixture.assert_nothing_left(pid_of(&mounted));
}

#[test]
fn a_mount_that_others_unmount_ends_its_process() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    succeeded(&Command::new("umount").arg(fixture.dir()).output().unwrap());
    fixture.assert_nothing_left(pid_of(&mounted));
}

#[test]
fn a_killed_process_is_told_of_and_cleared_away() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    signal(pid_of(&mounted), Signal::SIGKILL);
    wait_until("the process is gone", || !is_running(pid_of(&mounted)));

    let status = fixture.status();
    assert_eq!((&status[0]["state"], &status[0]["pid"]), (&"dead".into(), &mounted["pid"]));
    let again = fixture.mount_command(&[], &fixture.dir()).output().unwrap();
    failed_with(&again, &["has lost its process", "hint: snap umount"]);

    succeeded(&fixture.umount(&[]));
    fixture.assert_nothing_left(pid_of(&mounted));
    fixture.mount(&[]);
    assert_eq!(fs::read_to_string(fixture.dir().join("hello")).unwrap(), "hello world\n");
    succeeded(&fixture.umount(&[]));
}

#[test]
fn a_dead_mount_without_a_record_is_recognised() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    signal(pid_of(&mounted), Signal::SIGKILL);
    wait_until("the process is gone", || !is_running(pid_of(&mounted)));
    fs::remove_dir_all(fixture.path("mounts")).unwrap();
    let again = fixture.mount_command(&[], &fixture.dir()).output().unwrap();
    failed_with(&again, &["has lost its process", "hint: snap umount"]);
    succeeded(&fixture.umount(&[]));
    assert!(!fixture.is_mounted());
}

#[test]
fn the_record_of_a_killed_process_goes_when_nothing_is_mounted_any_more() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    signal(pid_of(&mounted), Signal::SIGKILL);
    wait_until("the process is gone", || !is_running(pid_of(&mounted)));
    succeeded(&Command::new("umount").arg(fixture.dir()).output().unwrap());
    assert!(fixture.status().is_empty());
    fixture.assert_nothing_left(pid_of(&mounted));
}

#[test]
fn a_process_that_does_not_answer_is_listed() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    signal(pid_of(&mounted), Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", mounted["pid"]);
    wait_until("the process is stopped", || fs::read_to_string(&stat).unwrap().contains(") T "));
    let status = fixture.status();
    assert_eq!(status[0]["state"], "silent");
    assert!(status[0]["silent_because"].as_str().unwrap().contains("does not answer"));
    signal(pid_of(&mounted), Signal::SIGCONT);
    succeeded(&fixture.umount(&[]));
}
