//! `--rw`: a writable view over the image.

use std::fs::{self, File};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::fixture::{Fixture, failed_with, is_running, pid_of, signal, succeeded, wait_until};

fn changes(fixture: &Fixture) -> String {
    fixture.path("changes").to_str().unwrap().to_owned()
}

#[test]
fn changes_outlive_the_mount() {
    let fixture = Fixture::new();
    let changes = changes(&fixture);
    let mounted = fixture.mount(&["--rw", &changes]);
    fs::write(fixture.dir().join("new"), "new\n").unwrap();
    fs::write(fixture.dir().join("hello"), "changed\n").unwrap();
    fs::remove_file(fixture.dir().join("dir/inner")).unwrap();
    assert_eq!(fixture.status()[0]["rw"], changes.as_str());
    succeeded(&fixture.umount(&[]));
    fixture.assert_nothing_left(pid_of(&mounted));
    assert_eq!(fs::read_to_string(fixture.path("changes/upper/new")).unwrap(), "new\n");

    fixture.mount(&["--rw", &changes]);
    assert_eq!(fs::read_to_string(fixture.dir().join("hello")).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(fixture.dir().join("new")).unwrap(), "new\n");
    assert!(!fixture.dir().join("dir/inner").exists());
    succeeded(&fixture.umount(&[]));

    fixture.mount(&[]);
    assert_eq!(fs::read_to_string(fixture.dir().join("hello")).unwrap(), "hello world\n", "the image is as it was");
    succeeded(&fixture.umount(&[]));
}

#[test]
fn every_end_takes_both_mounts_away() {
    let fixture = Fixture::new();
    let changes = changes(&fixture);
    let mounted = fixture.mount(&["--rw", &changes]);
    succeeded(&Command::new("umount").arg(fixture.dir()).output().unwrap());
    fixture.assert_nothing_left(pid_of(&mounted));

    let mounted = fixture.mount(&["--rw", &changes]);
    signal(pid_of(&mounted), Signal::SIGTERM);
    fixture.assert_nothing_left(pid_of(&mounted));

    let mounted = fixture.mount(&["--rw", &changes]);
    signal(pid_of(&mounted), Signal::SIGKILL);
    wait_until("the process is gone", || !is_running(pid_of(&mounted)));
    assert_eq!(fixture.status()[0]["state"], "dead");
    succeeded(&fixture.umount(&[]));
    fixture.assert_nothing_left(pid_of(&mounted));
}

#[test]
fn a_view_in_use_is_not_unmounted_unless_lazily() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&["--rw", &changes(&fixture)]);
    let file = File::open(fixture.dir().join("hello")).unwrap();
    failed_with(&fixture.umount(&[]), &["is in use", "--lazy"]);
    succeeded(&fixture.umount(&["--lazy"]));
    wait_until("both mounts are gone", || !fixture.is_mounted());
    assert_eq!(std::io::read_to_string(&file).unwrap(), "hello world\n");
    drop(file);
    fixture.assert_nothing_left(pid_of(&mounted));
}

#[test]
fn two_views_do_not_share_their_changes() {
    let fixture = Fixture::new();
    let changes = changes(&fixture);
    let other = fixture.path("other");
    fs::create_dir(&other).unwrap();
    fixture.mount(&["--rw", &changes]);
    let second = fixture.mount_command(&["--rw", &changes], &other).output().unwrap();
    failed_with(&second, &["must not share", "hint: name another --rw directory"]);
    succeeded(&fixture.umount(&[]));
}
