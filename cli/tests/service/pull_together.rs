//! Several pulls at once: everything is fetched once, and each of them succeeds.

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter};
use crate::ctr::{Ctr, Pull};
use crate::door::{Door, Passed};
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::process::{Process, wait_until};
use crate::pull::SnapPull;
use crate::pull_bench::{VERSIONS, everywhere};
use crate::scenes;

fn wait_said(pull: &Process, text: &str) {
    wait_until(&format!("it says {text:?}"), || pull.log().contains(text));
}

#[track_caller]
fn succeeded(pull: Process) -> String {
    let (status, said) = pull.wait_saying();
    assert!(status.success(), "{said}");
    said
}

fn size(image: &TestImage, layer: usize) -> u64 {
    image.manifest()["layers"][layer]["size"].as_u64().unwrap()
}

fn assert_says(containerd: &Containerd<'_>, reference: &str, command: &[&str], said: &str) {
    let ctr = Ctr::new(containerd, Pull::Snap);
    let container = ctr.start(reference, "says", command);
    assert_eq!(ctr.wait(&container, "says").well(), said);
    ctr.remove(&container);
}

/// Of three processes that want the same image, one works, and the others wait for it.
#[test]
fn the_same_image_by_three() {
    let tiny = image("tiny", "gzip");
    everywhere(|bench| {
        let containerd = &bench.containerd;
        let door = Door::to(tiny.registry());
        let reference = tiny.at(&door.address);
        let pull = SnapPull::new(containerd, "default");
        door.hold(&format!("/blobs/{}", tiny.layers()[0]));
        let first = pull.begin(&[&reference]);
        door.wait_holding();
        let others = [pull.begin(&[&reference]), pull.begin(&[&reference])];
        others.iter().for_each(|other| wait_said(other, ": Waiting\n"));
        door.open();
        let ends = [
            format!("Status: Downloaded newer image for {reference}\n{reference}\n"),
            format!("up to date for {reference}\n{reference}\n"),
        ];
        for pull in [first].into_iter().chain(others) {
            let said = succeeded(pull);
            assert!(ends.iter().any(|end| said.ends_with(end)), "{said}");
        }
        for (place, layer) in tiny.layers().iter().enumerate() {
            assert_eq!(door.passed(layer).bytes, size(&tiny, place), "layer {place} with {:?}", containerd.version);
        }
        pull.assert_tidy();
        assert_says(containerd, &reference, &["/bin/cat", "/etc/motd"], "Replaced by the second layer.\n");
    });
}

/// Images that have all layers but the topmost in common.
#[test]
fn images_that_share_layers() {
    let tiny = image("tiny", "gzip");
    let repository = scenes::several_tags("together");
    everywhere(|bench| {
        let containerd = &bench.containerd;
        let door = Door::to(&repository.registry);
        let repository = repository.at(&door.address);
        let pull = SnapPull::new(containerd, "default");
        door.hold(&format!("/blobs/{}", tiny.layers()[0]));
        let first = pull.begin(&[&repository.tagged("one")]);
        door.wait_holding();
        let second = pull.begin(&[&repository.tagged("two")]);
        wait_said(&second, ": Waiting\n");
        door.open();
        for pull in [first, second] {
            succeeded(pull);
        }
        for (place, layer) in tiny.layers().iter().enumerate() {
            assert_eq!(door.passed(layer).bytes, size(&tiny, place), "layer {place} with {:?}", containerd.version);
        }
        pull.assert_tidy();
        for tag in ["one", "two"] {
            assert_says(containerd, &repository.tagged(tag), &[], tag);
        }
    });
}

/// One process that is given the same image twice, and another.
#[test]
fn several_images_of_one_command() {
    let repository = scenes::several_tags("in-a-row");
    everywhere(|bench| {
        let containerd = &bench.containerd;
        let door = Door::to(&repository.registry);
        let repository = repository.at(&door.address);
        let names = ["one", "two", "one"].map(|tag| repository.tagged(tag));
        let pull = SnapPull::new(containerd, "default");
        let said = pull.run(&["--quiet", &names[0], &names[1], &names[2]]).well();
        assert_eq!(said, format!("{}\n{}\n{}\n", names[0], names[1], names[2]));
        pull.assert_tidy();
    });
}

/// `ctr` knows nothing of our locks, and we nothing of its: what they have in common are containerd's.
#[test]
fn beside_ctr() {
    let tiny = image("tiny", "gzip");
    for version in VERSIONS {
        for is_ours_first in [true, false] {
            let machine = Machine::new();
            let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
            let door = Door::to(tiny.registry());
            let reference = tiny.at(&door.address);
            let (pull, ctr) = (SnapPull::new(&containerd, "default"), Ctr::new(&containerd, Pull::Local));
            door.hold(&format!("/blobs/{}", tiny.layers()[0]));
            let begin_ours = || pull.begin(&[&reference]);
            let (ours, mut theirs) = if is_ours_first {
                let ours = begin_ours();
                door.wait_holding();
                door.forget();
                let theirs = ctr.begin_pull(&reference);
                wait_until("ctr has read the manifest", || door.asked().iter().any(|asked| asked.target.contains("/manifests/")));
                (ours, theirs)
            } else {
                let theirs = ctr.begin_pull(&reference);
                door.wait_holding();
                door.forget();
                let ours = begin_ours();
                wait_said(&ours, ": Waiting\n");
                (ours, theirs)
            };
            door.open();
            succeeded(ours);
            assert!(theirs.wait().unwrap().success(), "ctr failed beside us, {version:?}, {is_ours_first}");
            let held = Passed { requests: 0, bytes: size(&tiny, 0) };
            assert_eq!(Passed { requests: 0, ..door.passed(&tiny.layers()[0]) }, held, "{version:?}, {is_ours_first}");
            pull.assert_tidy();
            assert_says(&containerd, &reference, &["/bin/cat", "/etc/motd"], "Replaced by the second layer.\n");
            ctr.remove_image(&reference);
            assert_eq!((containerd.snapshots("default"), containerd.blobs("default")), ([].into(), [].into()));
        }
    }
}

/// Documents have one writer at a time, too.
#[test]
fn beside_ctr_that_has_not_read_the_configuration_yet() {
    let tiny = image("tiny", "gzip");
    for version in VERSIONS {
        let machine = Machine::new();
        let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
        let (their_door, our_door) = (Door::to(tiny.registry()), Door::to(tiny.registry()));
        their_door.hold(&format!("/blobs/{}", tiny.manifest()["config"]["digest"].as_str().unwrap()));
        let mut theirs = Ctr::new(&containerd, Pull::Local).begin_pull(&tiny.at(&their_door.address));
        their_door.wait_holding();
        let pull = SnapPull::new(&containerd, "default");
        let ours = pull.begin(&[&tiny.at(&our_door.address)]);
        let log = || std::fs::read_to_string(machine.disk("containerd.log")).unwrap();
        wait_until("containerd has refused a second writer", || log().contains(" locked for "));
        their_door.open();
        succeeded(ours);
        assert!(theirs.wait().unwrap().success());
        pull.assert_tidy();
    }
}
