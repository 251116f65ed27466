//! `snap fetch`: what was pulled lazily comes here whole, and as the blobs that an export, a push and `docker save` read.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::docker::Docker;
use crate::door::Door;
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::process::{stdout, succeed, wait_until};
use crate::pull::SnapPull;
use crate::pull_bench::VERSIONS;
use crate::registry::Registry;
use crate::serve::Serve;
use crate::survival::{HASH, expected_hash};

/// So that nothing comes but what is read, or asked for.
const NO_BACKGROUND: &str = "[fetch]\nbackground = false";
const MOTD: &str = "Replaced by the second layer.\n";

/// Runs `work` with a lazily pulled image, by the address of a door of its own.
fn with_lazy(version: Version, name: &str, work: impl FnOnce(&mut Lazy<'_>)) {
    let image = image(name, "estargz");
    let machine = Machine::new();
    let serve = Serve::start(&machine, NO_BACKGROUND);
    let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
    let door = Door::to(image.registry());
    let reference = image.at(&door.address);
    SnapPull::new(&containerd, "default").run(&[&reference]).well();
    assert_eq!(serve.status()["complete"], false, "there is nothing left to fetch");
    work(&mut Lazy { serve, containerd: &containerd, door, image, reference });
}

struct Lazy<'l> {
    serve: Serve<'l>,
    containerd: &'l Containerd<'l>,
    door: Door,
    image: TestImage,
    reference: String,
}

impl Lazy<'_> {
    fn snap(&self) -> SnapPull<'_, '_> {
        SnapPull::new(self.containerd, "default")
    }

    fn layers_in_content(&self) -> usize {
        let blobs = self.containerd.blobs("default");
        self.image.layers().iter().filter(|layer| blobs.contains(*layer)).count()
    }
}

#[test]
fn no_registry_is_needed_any_more() {
    for version in VERSIONS {
        with_lazy(version, "python", |lazy| {
            let said = lazy.snap().fetch(&[&lazy.reference]).well();
            for layer in lazy.image.layers() {
                assert!(said.contains(&format!("{}: Complete\n", &layer[7..19])), "{said}");
            }
            assert!(said.ends_with(&format!("{}: all its files are here\n", lazy.reference)), "{said}");
            assert_eq!((&lazy.serve.status()["complete"], lazy.layers_in_content()), (&Value::Bool(true), 0));
            lazy.door.shut();
            lazy.door.forget();
            lazy.serve.kill();
            lazy.serve.resume();
            // Waits for the service, which `ctr` does not; and has nothing to ask a registry for.
            lazy.snap().fetch(&[&lazy.reference]).well();
            let ctr = Ctr::new(lazy.containerd, Pull::Snap);
            let container = ctr.start(&lazy.reference, "hash", &["/bin/bash", "-c", HASH]);
            assert_eq!(ctr.wait(&container, "hash").well(), expected_hash(&lazy.image));
            ctr.remove(&container);
            assert_eq!(lazy.door.asked(), [], "the registry was asked");
            lazy.snap().assert_tidy();
        });
    }
}

/// An image that an archive holds, as an OCI layout: that every blob of it is there, and right.
fn assert_whole(archive: &Path, image: &TestImage) {
    let folder = tempfile::tempdir().unwrap();
    succeed(Command::new("tar").arg("--extract").arg("--file").arg(archive).arg("--directory").arg(folder.path()));
    for layer in image.layers() {
        let blob = folder.path().join("blobs").join(layer.replace(':', "/"));
        let hash = stdout(Command::new("sha256sum").arg(&blob));
        assert!(hash.starts_with(layer.strip_prefix("sha256:").unwrap()), "{hash}");
    }
}

#[test]
fn blobs_are_exported_and_pushed_by_ctr() {
    for version in VERSIONS {
        with_lazy(version, "tiny", |lazy| {
            let said = lazy.snap().fetch(&["--content", &lazy.reference]).well();
            assert!(said.ends_with(": all its files are here, and its blobs are in containerd\n"), "{said}");
            assert_eq!(lazy.layers_in_content(), lazy.image.layers().len());
            lazy.snap().assert_tidy();
            // They stay, whatever is collected.
            lazy.containerd.drop_leases("default");
            assert_eq!(lazy.layers_in_content(), lazy.image.layers().len());

            lazy.door.shut();
            let ctr = |arguments: &[&str]| stdout(lazy.containerd.ctr("default").args(arguments));
            let archive = lazy.containerd.machine.disk("exported.tar");
            ctr(&["images", "export", archive.to_str().unwrap(), &lazy.reference]);
            assert_whole(&archive, &lazy.image);
            let registry = Registry::empty();
            let pushed = lazy.image.at(&registry.address);
            ctr(&["images", "push", "--plain-http", &pushed, &lazy.reference]);
            assert_pullable(&pushed);

            Ctr::new(lazy.containerd, Pull::Snap).remove_image(&lazy.reference);
            assert_eq!(lazy.layers_in_content(), 0);
        });
    }
}

/// Another machine pulls what was pushed, and runs it.
fn assert_pullable(reference: &str) {
    let machine = Machine::new();
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Overlayfs);
    SnapPull::new(&containerd, "default").run(&[reference]).well();
    let ctr = Ctr::new(&containerd, Pull::Snap);
    let container = ctr.start(reference, "pushed", &["/bin/cat", "/etc/motd"]);
    assert_eq!(ctr.wait(&container, "pushed").well(), MOTD);
    ctr.remove(&container);
}

/// What docker pulls lazily it cannot save or push either, before its blobs are here.
#[test]
fn blobs_are_saved_and_pushed_by_docker() {
    for version in [Version::V1_7, Version::V2] {
        for pulled_by_docker in [false, true] {
            let tiny = image("tiny", "estargz");
            let machine = Machine::new();
            let _serve = Serve::start(&machine, NO_BACKGROUND);
            let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
            let docker = Docker::start(&containerd);
            let snap = SnapPull::new(&containerd, "moby");
            if pulled_by_docker {
                docker.pull(&tiny.reference).unwrap();
            } else {
                snap.run(&[&tiny.reference]).well();
            }
            let has_layers = || tiny.layers().iter().all(|layer| containerd.blobs("moby").contains(layer));
            assert!(!has_layers());
            snap.fetch(&["--content", &tiny.reference]).well();
            containerd.collect_garbage("moby");
            assert!(has_layers());

            let archive = machine.disk("saved.tar");
            succeed(docker.command(&["save", "--output"]).arg(&archive).arg(&tiny.reference));
            assert_whole(&archive, &tiny);
            let inspected = stdout(&mut docker.command(&["image", "inspect", &tiny.reference]));
            let inspected: Value = serde_json::from_str(&inspected).unwrap();
            assert_eq!(inspected[0]["Config"]["Cmd"], tiny.config()["config"]["Cmd"]);
            assert_eq!(inspected[0]["RootFS"]["Layers"], tiny.config()["rootfs"]["diff_ids"]);
            let registry = Registry::empty();
            let pushed = tiny.at(&registry.address);
            succeed(&mut docker.command(&["tag", &tiny.reference, &pushed]));
            succeed(&mut docker.command(&["push", &pushed]));
            assert_pullable(&pushed);
            let container = docker.start(&tiny.reference, "still", &["/bin/cat", "/etc/motd"]);
            assert_eq!(docker.wait(&container, "still").well(), MOTD);
            docker.remove(&container);
            docker.remove_image(&pushed);
            docker.remove_image(&tiny.reference);
            assert_eq!((containerd.snapshots("moby"), containerd.blobs("moby")), ([].into(), [].into()));
        }
    }
}

#[test]
fn an_image_that_has_everything_needs_nothing() {
    for version in VERSIONS {
        let tiny = image("tiny", "gzip");
        let machine = Machine::new();
        let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
        let door = Door::to(tiny.registry());
        let reference = tiny.at(&door.address);
        let snap = SnapPull::new(&containerd, "default");
        snap.run(&[&reference]).well();
        door.shut();
        assert_eq!(snap.fetch(&[&reference]).well(), format!("{reference}: all its files are here\n"));
        let said = snap.fetch(&["--content", &reference]).well();
        assert!(tiny.layers().iter().all(|layer| said.contains(&format!("{}: Already exists\n", &layer[7..19]))), "{said}");
        snap.assert_tidy();
    }
}

#[test]
fn what_cannot_be_completed_is_told() {
    with_lazy(Version::V2, "tiny", |lazy| {
        let complains = |snap: SnapPull<'_, '_>, arguments: &[&str], parts: &[&str]| {
            let spoken = snap.fetch(arguments);
            assert_eq!((spoken.status, spoken.said.as_str()), (1, ""), "{}", spoken.complained);
            assert!(parts.iter().all(|part| spoken.complained.contains(part)), "{}", spoken.complained);
        };
        let missing = format!("{}/tiny:missing", lazy.door.address);
        let hint = format!("hint: snap pull {missing}");
        complains(lazy.snap(), &[&missing], &["error: there is no image", "in namespace default", &hint]);
        complains(lazy.snap(), &["--content", &missing], &["error: there is no image", &hint]);
        let elsewhere = SnapPull::new(lazy.containerd, "other");
        complains(elsewhere, &[&lazy.reference], &["error: there is no image", "in namespace other"]);
        lazy.serve.end(Signal::SIGTERM);
        complains(lazy.snap(), &[&lazy.reference], &["error: ", "the snapshotter snap is not there", "hint: does its service run?"]);
        lazy.serve.resume();
        lazy.door.spoil("/blobs/");
        complains(lazy.snap(), &[&lazy.reference], &["error: cannot complete", &lazy.image.layers()[0][7..19]]);
        lazy.door.be_honest();
        lazy.snap().fetch(&["--content", &lazy.reference]).well();
        lazy.snap().assert_tidy();
    });
}

/// A registry that is away is waited for.
#[test]
fn a_fetch_outlasts_a_registry_that_is_away() {
    with_lazy(Version::V2, "python", |lazy| {
        lazy.door.hold_after(30 << 20);
        let fetch = lazy.snap().begin_fetch(&[&lazy.reference]);
        lazy.door.wait_holding();
        lazy.door.shut();
        lazy.door.forget();
        wait_until("the registry is asked in vain", || !lazy.door.asked().is_empty());
        lazy.door.open();
        let (status, said) = fetch.wait_saying();
        assert!(status.success(), "{said}");
        assert_eq!(lazy.serve.status()["complete"], true);
    });
}

/// What came before it was stopped or killed stays.
#[test]
fn a_fetch_that_is_interrupted_goes_on() {
    for version in VERSIONS {
        with_lazy(version, "tiny", |lazy| {
            let content = ["--content", &lazy.reference];
            for (arguments, bytes, signal) in [(&content[1..], 2 << 20, Signal::SIGINT), (&content, 6 << 20, Signal::SIGKILL)] {
                lazy.door.hold_after(bytes);
                let fetch = lazy.snap().begin_fetch(arguments);
                lazy.door.wait_holding();
                let status = fetch.end(signal);
                assert_eq!(status.code(), (signal == Signal::SIGINT).then_some(130));
                lazy.door.open();
            }
            lazy.snap().fetch(&content).well();
            assert_eq!(lazy.layers_in_content(), lazy.image.layers().len());
            lazy.snap().assert_tidy();
        });
    }
}
