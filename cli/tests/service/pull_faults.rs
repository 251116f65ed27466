//! What a registry, a disk and a service can do wrong while an image is pulled: it is told, nothing wrong stays, and the next pull works.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::client::{Client, Spoken};
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::door::{Answer, Door};
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::pull::SnapPull;
use crate::pull_bench::{VERSIONS, everywhere};
use crate::serve::Serve;

const MOTD: &str = "Replaced by the second layer.\n";

/// Ways to serve a layer's blob wrongly.
const LIES: [fn(&Door, &TestImage); 4] = [
    // The right number of wrong bytes, range by range.
    |door, image| door.spoil(&format!("/blobs/{}", image.layers()[0])),
    // Too few bytes, whatever range was asked for.
    |door, image| answer_blob(door, image, 200, vec![0x1f; 1000]),
    // Nothing at all.
    |door, image| answer_blob(door, image, 200, Vec::new()),
    // A page for people.
    |door, image| answer_blob(door, image, 200, b"<html>Please log in.</html>".to_vec()),
];

fn answer_blob(door: &Door, image: &TestImage, status: u16, body: Vec<u8>) {
    door.answer(&format!("/blobs/{}", image.layers()[0]), Answer { status, media_type: "application/octet-stream", body });
}

#[track_caller]
fn failed(spoken: &Spoken) -> &str {
    assert_eq!(spoken.status, 1, "{}\n{}", spoken.said, spoken.complained);
    assert!(spoken.complained.contains("error: "), "{}", spoken.complained);
    &spoken.complained
}

fn assert_runs(containerd: &Containerd<'_>, reference: &str) {
    let ctr = Ctr::new(containerd, Pull::Snap);
    let container = ctr.start(reference, "run", &["/bin/cat", "/etc/motd"]);
    assert_eq!(ctr.wait(&container, "run").well(), MOTD);
    ctr.remove(&container);
}

/// Wrong bytes are told by the name of the blob, and are not kept; the right ones are taken afterwards.
#[test]
fn a_registry_that_lies() {
    let tiny = image("tiny", "gzip");
    let layer = &tiny.layers()[0];
    everywhere(|bench| {
        let pull = bench.snap();
        for lie in LIES {
            let door = Door::to(tiny.registry());
            let reference = tiny.at(&door.address);
            lie(&door, &tiny);
            let spoken = pull.run(&[&reference]);
            assert!(failed(&spoken).contains(layer), "{}", spoken.complained);
            assert!(!spoken.said.contains("Status: "), "{}", spoken.said);
            assert!(!bench.containerd.blobs("default").contains(layer));
            door.be_honest();
            pull.run(&[&reference]).well();
            pull.assert_tidy();
            assert_runs(&bench.containerd, &reference);
            bench.remove(&reference);
            bench.assert_empty();
        }
    });
}

/// A manifest or a configuration that is not what its digest says, and what is no manifest at all.
#[test]
fn a_registry_that_lies_about_documents() {
    let tiny = image("tiny", "gzip");
    let machine = Machine::new();
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Overlayfs);
    let pull = SnapPull::new(&containerd, "default");
    let door = Door::to(tiny.registry());
    let (tagged, by_digest) = (tiny.at(&door.address), format!("{}/tiny@{}", door.address, tiny.digest()));
    let config = tiny.manifest()["config"]["digest"].as_str().unwrap().to_owned();
    for (target, reference) in [(tiny.digest(), &by_digest), (config, &tagged)] {
        door.spoil(&target);
        let spoken = pull.run(&[reference]);
        assert!(failed(&spoken).contains(&target), "{}", spoken.complained);
        door.be_honest();
    }
    let page = Answer { status: 200, media_type: "text/html", body: b"<html>Please log in.</html>".to_vec() };
    door.answer("/manifests/", page);
    failed(&pull.run(&[&tagged]));
    door.be_honest();
    assert_eq!(containerd.blobs("default"), [].into());
    pull.run(&[&tagged, &by_digest]).well();
    pull.assert_tidy();
}

/// What has come is not fetched again.
#[test]
fn bodies_that_break_off_are_gone_on_with() {
    let python = image("python", "gzip");
    for snapshotter in [Snapshotter::Overlayfs, Snapshotter::Snap] {
        let machine = Machine::new();
        let _serve = (snapshotter == Snapshotter::Snap).then(|| Serve::start(&machine, ""));
        let containerd = Containerd::start(&machine, Version::V2, snapshotter);
        let door = Door::to(python.registry());
        door.break_after([5 << 20, 1 << 20, 300_000, 20 << 20, 1 << 20, 11 << 20]);
        let pull = SnapPull::new(&containerd, "default");
        pull.run(&[&python.at(&door.address)]).well();
        assert_eq!(door.breaks_left(), 0);
        let passed: u64 = python.layers().iter().map(|layer| door.passed(layer).bytes).sum();
        assert_eq!(passed, python.size_bytes(), "bytes were fetched again");
        pull.assert_tidy();
    }
}

/// A file system with so much room.
fn small_disk(at: &Path, mib: u64) {
    std::fs::create_dir_all(at).unwrap();
    mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some(format!("size={mib}m").as_str())).unwrap();
}

fn enlarge(at: &Path, mib: u64) {
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REMOUNT, Some(format!("size={mib}m").as_str())).unwrap();
}

/// There is room for a blob and not for what is in it, or not for the blob.
#[test]
fn containerds_disk_is_full() {
    let tiny = image("tiny", "gzip");
    for version in VERSIONS {
        for mib in [6, 14] {
            let machine = Machine::new();
            let disk = machine.disk("containerd");
            small_disk(&disk, mib);
            let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
            let pull = SnapPull::new(&containerd, "default");
            let spoken = pull.run(&[&tiny.reference]);
            assert!(failed(&spoken).contains("no space left on device"), "{}", spoken.complained);
            enlarge(&disk, 100);
            pull.run(&[&tiny.reference]).well();
            pull.assert_tidy();
            assert_runs(&containerd, &tiny.reference);
        }
    }
}

/// What the service has no room for is told as its reason.
#[test]
fn the_services_disk_is_full() {
    let tiny = image("tiny", "gzip");
    let machine = Machine::new();
    let disk = machine.disk("snap");
    small_disk(&disk, 6);
    let serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let files = serve.open_files();
    let pull = SnapPull::new(&containerd, "default");
    let spoken = pull.run(&[&tiny.reference]);
    assert!(failed(&spoken).to_lowercase().contains("no space left on device"), "{}", spoken.complained);
    enlarge(&disk, 100);
    pull.run(&[&tiny.reference]).well();
    assert_eq!(serve.refusals(), serde_json::json!([]));
    pull.assert_tidy();
    assert_runs(&containerd, &tiny.reference);
    Ctr::new(&containerd, Pull::Snap).remove_image(&tiny.reference);
    serve.assert_empty(&files);
}

#[test]
fn a_service_that_stays_away() {
    let tiny = image("tiny", "gzip");
    let machine = Machine::new();
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let pull = SnapPull::new(&containerd, "default");
    let (told, spoken) = pull.run_telling(&[&tiny.reference]);
    let complained = failed(&spoken);
    // A script is told the same.
    assert_eq!(told.error(), complained.trim_end().split_once("\nerror: ").map(|(_, text)| text));
    assert!(
        complained.contains("the snapshotter snap is not there") && complained.contains("\nhint: does its service run?"),
        "{complained}"
    );
    let _serve = Serve::start(&machine, "");
    pull.run(&[&tiny.reference]).well();
    pull.assert_tidy();
    assert_runs(&containerd, &tiny.reference);
}
