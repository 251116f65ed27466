//! What cannot be mounted, and what is said then.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::fixture::{Fixture, failed_with, pid_of, succeeded};

fn refused(fixture: &Fixture, dir: &Path, said: &[&str]) {
    failed_with(&fixture.mount_command(&[], dir).output().unwrap(), said);
}

#[test]
fn directories_that_do_not_fit_are_refused() {
    let fixture = Fixture::new();
    refused(&fixture, &fixture.path("missing"), &["does not exist", "hint: mkdir -p"]);
    refused(&fixture, &fixture.path("missing/inner"), &["does not exist", "hint: mkdir -p"]);
    fs::write(fixture.path("file"), "").unwrap();
    refused(&fixture, &fixture.path("file"), &["is not a directory", "hint: name an empty directory"]);
    refused(&fixture, &fixture.path("layout"), &["is not empty", "hint: name an empty directory"]);
    assert!(fixture.status().is_empty());
}

#[test]
fn a_directory_that_shows_an_image_is_refused_by_its_name() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    refused(&fixture, &fixture.dir(), &["shows oci:", "already", &format!("process {}", pid_of(&mounted)), "hint: snap umount"]);
    assert_eq!(fs::read_to_string(fixture.dir().join("hello")).unwrap(), "hello world\n", "the first mount goes on");
    succeeded(&fixture.umount(&[]));
}

#[test]
fn a_mount_point_of_something_else_is_refused() {
    let fixture = Fixture::new();
    succeeded(&Command::new("mount").args(["-t", "tmpfs", "scratch"]).arg(fixture.dir()).output().unwrap());
    refused(&fixture, &fixture.dir(), &["is a mount point already: tmpfs of scratch", "hint: umount"]);
    failed_with(&fixture.umount(&[]), &["is not of snap: tmpfs of scratch", "hint: umount"]);
    succeeded(&Command::new("umount").arg(fixture.dir()).output().unwrap());
    failed_with(&fixture.umount(&[]), &["nothing is mounted at", "hint: snap status"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let fixture = Fixture::new();
    let cache = fixture.path("cache");
    fs::create_dir(&cache).unwrap();
    succeeded(&Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "scratch"]).arg(&cache).output().unwrap());
    refused(&fixture, &fixture.dir(), &[cache.to_str().unwrap(), "is not writable", "hint: use a cache directory"]);
    succeeded(&Command::new("umount").arg(&cache).output().unwrap());
    fixture.mount(&[]);
    succeeded(&fixture.umount(&[]));
}

#[test]
fn a_directory_that_is_no_cache_is_left_alone() {
    let fixture = Fixture::new();
    let cache = fixture.path("cache");
    fs::create_dir(&cache).unwrap();
    fs::write(cache.join("precious"), "data").unwrap();
    refused(&fixture, &fixture.dir(), &["is not a snap cache", "hint:"]);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let fixture = Fixture::new();
    let missing = format!("oci:{}", fixture.path("nowhere").display());
    let mut command = fixture.snap();
    command.arg("mount").arg("--cache-dir").arg(fixture.path("cache")).arg(&missing).arg(fixture.dir());
    failed_with(&command.output().unwrap(), &[&format!("cannot open {missing}"), "No such file"]);
    assert!(!fixture.is_mounted() && fixture.status().is_empty());
}

#[test]
fn a_damaged_layer_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new();
    let blob = fixture.path("layout/blobs/sha256").join(fixture.layer.hex());
    let mut bytes = fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&blob, bytes).unwrap();
    refused(&fixture, &fixture.dir(), &[&fixture.layer.short(), "digest"]);
    assert!(!fixture.is_mounted() && fixture.status().is_empty());
}

#[test]
fn a_writable_view_needs_root() {
    let fixture = Fixture::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
    command.uid(65_534).args(["mount", "--rw", "/tmp", "oci:/none", "/mnt"]);
    failed_with(&command.output().unwrap(), &["--rw", "needs root", "hint: run it with sudo"]);
    drop(fixture);
}

#[test]
fn words_that_are_no_image_or_platform_are_refused_at_once() {
    let fixture = Fixture::new();
    for (arguments, said) in [
        (["mount", "docker.io/UPPER/case", "/mnt"], "lower case"),
        (["mount", "oci:", "/mnt"], "a layout is oci:DIR"),
        (["inspect", "--platform=linux", "image"], "not a platform"),
        (["mount", "--cache-size=20X", "image"], "no known unit"),
        (["mount", "--read-timeout=0", "image"], "invalid value"),
    ] {
        let output = fixture.snap().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}
