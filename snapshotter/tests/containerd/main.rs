//! containerd, from both sides. The machine's own with this service as its snapshotter: what is not served must work as with its
//! overlayfs. And every version that `ci/daemons` installs, called for what only it can do.
//!
//! Needs root, containerd, ctr, runc, tar and gzip, and what `ci/test` makes: SNAP_E2E_IMAGES lists images as JSON lines,
//! SNAP_E2E_DAEMONS daemons, SNAP_E2E_CACHE is a folder on a real file system.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bare;
mod connection;
mod daemon;
mod ingests;
mod records;
mod unpacking;

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use crate::daemon::{Daemon, succeed};

#[derive(Deserialize)]
struct TestImage {
    name: String,
    variant: String,
    /// `oci:DIR:TAG`.
    layout: String,
}

/// The folder of the smallest image's OCI layout.
fn tiny_layout() -> PathBuf {
    let list = std::env::var("SNAP_E2E_IMAGES").expect("SNAP_E2E_IMAGES is not set: run these tests with ci/test");
    let lines = std::fs::read_to_string(&list).unwrap_or_else(|error| panic!("{list}: {error}"));
    let images = lines.lines().map(|line| serde_json::from_str::<TestImage>(line).unwrap());
    let tiny = images.into_iter().find(|image| image.name == "tiny" && image.variant == "gzip").expect("no image tiny:gzip was built");
    PathBuf::from(tiny.layout.strip_prefix("oci:").unwrap().strip_suffix(":gzip").unwrap())
}

fn import(daemon: &Daemon) {
    let archive = daemon.dir.path().join("tiny.tar");
    succeed(Command::new("tar").arg("-C").arg(tiny_layout()).arg("-cf").arg(&archive).arg("."));
    daemon.ctr(&["images", "import", "--snapshotter", "snap", "--base-name", "test/tiny", archive.to_str().unwrap()]);
}

/// A container's name: runc knows them machine-wide.
fn container(name: &str) -> String {
    format!("snap-test-{}-{name}", std::process::id())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_imported_run_committed_and_removed_without_a_trace() {
    let daemon = Daemon::start().await;
    import(&daemon);
    let unpacked = daemon.status().await.unpacked;
    assert!(unpacked > 0);

    let (first, second) = (&*container("first"), &*container("second"));
    let run = ["run", "--rm", "--snapshotter", "snap", "test/tiny:gzip", first];
    let output = daemon.ctr(&[&run[..], &["/bin/sh", "-c", "echo written > /new && cat /new && ls /bin/busybox"]].concat());
    assert_eq!(output, "written\n/bin/busybox\n");
    daemon.wait("a container's directory is gone with the container", || daemon.directories().len() == unpacked).await;

    // A container that is kept becomes a layer, as docker commit and docker build make them.
    daemon.ctr(&["run", "--snapshotter", "snap", "test/tiny:gzip", second, "/bin/sh", "-c", "echo kept > /kept"]);
    let usage = daemon.snapshots(&["usage", "-b", second]);
    assert!(usage.contains(second), "{usage}");
    daemon.snapshots(&["commit", "kept", second]);
    daemon.snapshots(&["prepare", "on-kept", "kept"]);
    let mounts = daemon.snapshots(&["mounts", "/target", "on-kept"]);
    assert!(mounts.contains("lowerdir=") && mounts.contains("upperdir="), "{mounts}");
    let view = daemon.snapshots(&["view", "--mounts", "looking", "kept"]);
    assert!(view.contains("lowerdir=") && !view.contains("upperdir="), "{view}");
    let info: serde_json::Value = serde_json::from_str(&daemon.snapshots(&["info", "kept"])).unwrap();
    assert_eq!(info["Kind"], "Committed");
    assert_eq!(info["Name"], "kept");
    assert!(info["Parent"].as_str().unwrap().starts_with("sha256:"), "{info}");
    daemon.snapshots(&["label", "kept", "colour=blue"]);
    let info: serde_json::Value = serde_json::from_str(&daemon.snapshots(&["info", "kept"])).unwrap();
    assert_eq!(info["Labels"]["colour"], "blue");
    assert!(daemon.snapshots(&["ls"]).contains("kept"));

    let refused = daemon.try_ctr(&["snapshots", "--snapshotter", "snap", "rm", "kept"]);
    assert!(!refused.status.success(), "a snapshot with children was removed");
    daemon.snapshots(&["rm", "on-kept"]);
    // The last one goes by garbage collection: containerd 1.6 refuses to remove a snapshot whose child it has collected, as it may have
    // the view, which ctr makes without a lease.
    daemon.snapshots(&["label", "kept", "containerd.io/gc.root="]);
    daemon.ctr(&["containers", "rm", second]);
    let images = daemon.ctr(&["images", "ls", "-q"]);
    daemon.ctr(&[&["images", "rm", "--sync"], &images.lines().collect::<Vec<_>>()[..]].concat());
    daemon.collected().await;
    assert_eq!(daemon.directories(), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_on_after_the_service_was_restarted() {
    let mut daemon = Daemon::start().await;
    import(&daemon);
    let (running, next) = (&*container("running"), &*container("next"));
    daemon.ctr(&["run", "-d", "--snapshotter", "snap", "test/tiny:gzip", running, "/bin/sleep", "600"]);
    daemon.restart_service().await;
    let output = daemon.ctr(&["tasks", "exec", "--exec-id", "e1", running, "/bin/sh", "-c", "echo more > /more && cat /more"]);
    assert_eq!(output, "more\n");
    // containerd waits a moment before it connects again to a socket that was gone.
    daemon.wait("containerd is connected again", || daemon.try_ctr(&["snapshots", "--snapshotter", "snap", "ls"]).status.success()).await;
    let run = ["run", "--rm", "--snapshotter", "snap", "test/tiny:gzip", next];
    assert_eq!(daemon.ctr(&[&run[..], &["/bin/echo", "second"]].concat()), "second\n");
    daemon.ctr(&["tasks", "kill", "--signal", "SIGKILL", running]);
    daemon.try_ctr(&["tasks", "delete", "--force", running]);
    daemon.ctr(&["containers", "rm", running]);
}
