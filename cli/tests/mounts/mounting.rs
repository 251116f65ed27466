//! Mounting, what is seen, and what `snap status` tells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::fixture::{Fixture, assert_complete, ended_with, is_running, pid_of, start, succeeded, wait_until};

#[test]
fn a_mount_shows_the_image_until_it_is_unmounted() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    assert_eq!(mounted["dir"], fixture.dir().to_str().unwrap());
    assert_eq!(mounted["image"], fixture.image());
    assert!(is_running(pid_of(&mounted)));
    assert_eq!(fs::read_to_string(fixture.dir().join("hello")).unwrap(), "hello world\n");
    assert_eq!(fs::read(fixture.dir().join("large")).unwrap(), vec![7; 1 << 20]);
    assert!(fs::write(fixture.dir().join("new"), "").is_err(), "an image is read-only");

    succeeded(&fixture.umount(&[]));
    assert!(!is_running(pid_of(&mounted)), "umount returns when the process has ended");
    fixture.assert_nothing_left(pid_of(&mounted));
    assert_eq!(fs::read_dir(fixture.dir()).unwrap().count(), 0);
}

#[test]
fn wait_returns_with_everything_here() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&["--wait"]);
    assert_eq!(mounted["complete"], true);
    assert_complete(&fixture.status()[0]);
    succeeded(&fixture.umount(&[]));
}

#[test]
fn the_second_mount_asks_for_no_byte_of_the_layer() {
    let fixture = Fixture::new();
    fixture.mount(&["--wait"]);
    succeeded(&fixture.umount(&[]));
    let layer = fixture.path("layout/blobs/sha256").join(fixture.layer.hex());
    fs::rename(&layer, fixture.path("taken away")).unwrap();
    let mounted = fixture.mount(&["--wait"]);
    assert_eq!(mounted["complete"], true);
    assert_eq!(fs::read_to_string(fixture.dir().join("dir/inner")).unwrap(), "inner\n");
    let status = fixture.status().remove(0);
    assert_eq!((&status["bytes_fetched"], &status["layers"][0]["opened_by"]), (&Value::from(0), &Value::from("local_index")));
    succeeded(&fixture.umount(&[]));
}

#[test]
fn status_tells_of_a_mount() {
    let fixture = Fixture::new();
    assert!(fixture.status().is_empty());
    let mounted = fixture.mount(&["--wait"]);
    let [status] = &fixture.status()[..] else { panic!("one mount is listed") };
    assert_eq!(status["dir"], mounted["dir"]);
    assert_eq!(status["pid"], mounted["pid"]);
    assert_eq!(status["manifest"], mounted["manifest"]);
    assert_eq!(status["image"], fixture.image());
    assert_eq!(status["state"], "serving");
    assert_eq!(status["layers"][0]["digest"], fixture.layer.to_string());
    assert!(status["bytes_fetched"].as_u64().unwrap() > 1 << 20);
    for cost in ["bytes_fetched", "requests"] {
        assert_eq!(status["layers"][0][cost], status[cost], "{cost} of the only layer");
    }

    let output = fixture.snap().arg("status").arg(fixture.dir()).output().unwrap();
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [&fixture.layer.short(), "complete", "streaming pass", "REQUESTS", fixture.dir().to_str().unwrap()] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
    succeeded(&fixture.umount(&[]));
}

#[test]
fn what_is_in_the_state_folder_is_for_its_user_alone() {
    let fixture = Fixture::new();
    fixture.mount(&[]);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = fixture.path("mounts");
    assert_eq!(mode(&state), 0o700);
    let folders = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let [folder] = &folders.filter(|path| path.is_dir()).collect::<Vec<_>>()[..] else { panic!("one record") };
    assert_eq!(mode(folder), 0o700);
    for name in ["sock", "log", "state.json"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    succeeded(&fixture.umount(&[]));
}

#[test]
fn the_process_holds_nothing_of_its_callers() {
    let fixture = Fixture::new();
    let mounted = fixture.mount(&[]);
    let process = |name: &str| fs::read_link(format!("/proc/{}/{name}", pid_of(&mounted))).unwrap();
    assert_eq!(process("cwd").to_str(), Some("/"));
    assert_eq!(process("fd/0").to_str(), Some("/dev/null"));
    assert_eq!(process("fd/1").to_str(), Some("/dev/null"));
    assert!(process("fd/2").ends_with("log"));
    succeeded(&fixture.umount(&[]));
}

#[test]
fn a_layout_can_be_named_relative_to_the_working_directory() {
    let fixture = Fixture::new();
    let mut command = fixture.snap();
    command.current_dir(fixture.path("")).args(["mount", "--wait", "--cache-dir", "cache", "oci:layout", "mount point"]);
    succeeded(&command.output().unwrap());
    assert_eq!(fixture.status()[0]["image"], fixture.image());
    assert!(fixture.path("cache/version").exists());
    succeeded(&fixture.umount(&[]));
}

#[test]
fn foreground_serves_until_the_mount_is_gone() {
    let fixture = Fixture::new();
    let child = start(fixture.mount_command(&["--foreground"], &fixture.dir()));
    let pid = u64::from(child.id());
    wait_until("it serves", || fixture.status().first().is_some_and(|status| status["state"] == "serving"));
    assert_eq!(fs::read_to_string(fixture.dir().join("hello")).unwrap(), "hello world\n");
    succeeded(&Command::new("umount").arg(fixture.dir()).output().unwrap());
    let output = ended_with(child, 0);
    let mounted: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(pid_of(&mounted), pid);
    fixture.assert_nothing_left(pid);
}

#[test]
fn two_mounts_live_side_by_side() {
    let fixture = Fixture::new();
    let other = fixture.path("other");
    fs::create_dir(&other).unwrap();
    let first = fixture.mount(&[]);
    succeeded(&fixture.mount_command(&[], &other).output().unwrap());
    assert_eq!(fixture.status().len(), 2);
    succeeded(&fixture.umount(&[]));
    assert!(!is_running(pid_of(&first)));
    assert_eq!(fs::read_to_string(other.join("hello")).unwrap(), "hello world\n");
    succeeded(&fixture.snap().arg("umount").arg(&other).output().unwrap());
    assert!(!fixture.is_mounted());
}
