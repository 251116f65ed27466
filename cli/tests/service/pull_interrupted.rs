//! `snap pull` is stopped, killed, or loses the daemons it works with; the next pull goes on, and nothing is left of the first.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::door::Door;
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::process::{Process, stdout, wait_until};
use crate::pull::SnapPull;
use crate::pull_bench::VERSIONS;
use crate::serve::Serve;
use crate::survival::Random;

/// From its start to its end, at most: most of an undisturbed pull.
const LIFE_MAX: Duration = Duration::from_millis(1000);
/// What a pull of four layers may have asked for and not written: its ranges under way, and what it has sent ahead of each to containerd.
const WINDOW_BYTES: u64 = (16 << 20) + 4 * (4 << 20);
/// Some of an image's second layer, after the first.
const SOME_BYTES: usize = 60 << 20;
const STOPPED: &str = "stopped; what was fetched is kept, and the same command goes on with it\n";

/// A pull to interrupt, of an image with layers of 51, 20, 22 and 0.04 MB.
struct Scene<'s> {
    containerd: &'s Containerd<'s>,
    image: TestImage,
    door: Door,
    reference: String,
    pull: SnapPull<'s, 's>,
}

impl<'s> Scene<'s> {
    fn new(containerd: &'s Containerd<'s>) -> Self {
        let image = image("python", "gzip");
        let door = Door::to(image.registry());
        let reference = image.at(&door.address);
        Self { containerd, image, door, reference, pull: SnapPull::new(containerd, "default") }
    }

    fn begin(&self) -> Process {
        self.pull.begin(&["--progress", "json", &self.reference])
    }

    /// Has the pull not end by itself before it is interrupted.
    fn hold_topmost(&self) {
        self.door.hold(&format!("/blobs/{}", self.image.layers().last().unwrap()));
    }

    /// Bytes of blobs that containerd has, finished or not.
    fn stored_bytes(&self) -> u64 {
        let content = self.containerd.machine.disk("containerd/io.containerd.content.v1.content");
        let size = |path: std::path::PathBuf| path.metadata().map(|file| file.size()).unwrap_or_default();
        let finished = self.image.layers().iter().map(|layer| size(content.join("blobs").join(layer.replace(':', "/")))).sum::<u64>();
        let Ok(ingests) = std::fs::read_dir(content.join("ingest")) else { return finished };
        finished + ingests.map(|ingest| size(ingest.unwrap().path().join("data"))).sum::<u64>()
    }

    fn passed_bytes(&self) -> u64 {
        self.image.layers().iter().map(|layer| self.door.passed(layer).bytes).sum()
    }

    /// Lets `interrupt` end a pull, and holds what came through the door against what was stored.
    fn interrupted(&self, interrupt: impl FnOnce(Process)) {
        let (stored, passed) = (self.stored_bytes(), self.passed_bytes());
        interrupt(self.begin());
        self.door.open();
        let (more_stored, more_passed) = (self.stored_bytes().saturating_sub(stored), self.passed_bytes() - passed);
        assert!(more_passed <= more_stored + WINDOW_BYTES, "{more_passed} bytes were fetched and {more_stored} stored");
        let images = stdout(self.containerd.ctr("default").args(["images", "ls", "--quiet"]));
        assert_eq!(images, "", "an image that is not all there");
    }

    /// The pull that is not disturbed: it goes on, and leaves the same as if there had been no others.
    fn finish(&self, passed_max_bytes: u64) {
        self.pull.run(&["--quiet", &self.reference]).well();
        let (size, passed) = (self.image.size_bytes(), self.passed_bytes());
        assert!(passed <= size + passed_max_bytes, "{passed} bytes were fetched of {size}");
        self.pull.assert_tidy();
        let ctr = Ctr::new(self.containerd, Pull::Snap);
        let container = ctr.start(&self.reference, "report", &[]);
        assert_eq!(ctr.wait(&container, "report").well(), self.image.expected_output());
        ctr.remove(&container);
    }

    /// What `finish` has left is what containerd's own client leaves.
    fn assert_like_undisturbed(&self) {
        let machine = Machine::new();
        let other = Containerd::start(&machine, self.containerd.version, self.containerd.snapshotter);
        let ctr = Ctr::new(&other, Pull::Local);
        ctr.pull(&self.image.reference).unwrap();
        let top = self.image.chain_ids().pop().unwrap();
        let (disturbed, undisturbed) = (Ctr::new(self.containerd, Pull::Snap).files_of(&top), ctr.files_of(&top));
        let differing = disturbed.lines().zip(undisturbed.lines()).find(|(one, other)| one != other);
        assert!(disturbed == undisturbed, "not the same: {differing:?}");
        assert_eq!(self.containerd.blobs("default"), other.blobs("default"));
        assert_eq!(self.containerd.snapshots("default"), other.snapshots("default"));
    }

    /// Removing the image removes all there is.
    fn leave(&self) {
        Ctr::new(self.containerd, Pull::Snap).remove_image(&self.reference);
        self.containerd.collect_garbage("default");
        assert_eq!(self.containerd.snapshots("default"), [].into());
        assert_eq!(self.containerd.blobs("default"), [].into());
        assert_eq!(self.stored_bytes(), 0);
    }
}

fn killed_at_random_moments(version: Version, kills: u64) {
    let machine = Machine::new();
    let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
    let scene = Scene::new(&containerd);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..kills {
        scene.hold_topmost();
        scene.interrupted(|pull| {
            std::thread::sleep(LIFE_MAX.mul_f64(random.fraction()));
            let status = pull.end(Signal::SIGKILL);
            assert_eq!(status.code(), None, "it ended by itself");
        });
    }
    scene.finish(kills * WINDOW_BYTES);
    scene.assert_like_undisturbed();
    scene.leave();
}

#[test]
fn killed_ten_times_with_containerd_2() {
    killed_at_random_moments(Version::V2, 10);
}

#[test]
fn killed_three_times_with_containerd_1_7() {
    killed_at_random_moments(Version::V1_7, 3);
}

#[test]
fn killed_three_times_with_containerd_1_6() {
    killed_at_random_moments(Version::V1_6, 3);
}

/// What is left to the snapshotter is not lost either.
#[test]
fn killed_while_the_service_reads() {
    for version in VERSIONS {
        let machine = Machine::new();
        let serve = Serve::start(&machine, "");
        let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
        let files = serve.open_files();
        let scene = Scene::new(&containerd);
        let mut random = Random(7);
        for _ in 0..3 {
            scene.hold_topmost();
            let pull = scene.begin();
            std::thread::sleep(LIFE_MAX.mul_f64(random.fraction()));
            assert_eq!(pull.end(Signal::SIGKILL).code(), None, "it ended by itself");
            scene.door.open();
        }
        scene.pull.run(&["--quiet", &scene.reference]).well();
        assert_eq!(serve.refusals(), serde_json::json!([]));
        assert!(!scene.image.layers().iter().any(|layer| containerd.blobs("default").contains(layer)));
        scene.finish(3 * WINDOW_BYTES);
        scene.leave();
        serve.assert_empty(&files);
    }
}

/// Stopped while it downloads, while it unpacks, and while it waits for the registry's first word.
#[test]
fn ctrl_c_leaves_no_half_image() {
    for version in VERSIONS {
        let machine = Machine::new();
        let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
        let scene = Scene::new(&containerd);
        let stop = |pull: Process| {
            kill(pull.pid(), Signal::SIGINT).unwrap();
            let (status, said) = pull.wait_saying();
            assert_eq!(status.code(), Some(130), "{said}");
            assert!(said.ends_with(STOPPED), "{said}");
        };
        scene.door.hold("/manifests/");
        scene.interrupted(|pull| {
            scene.door.wait_holding();
            stop(pull);
        });
        scene.door.hold_after(SOME_BYTES);
        scene.interrupted(|pull| {
            scene.door.wait_holding();
            stop(pull);
        });
        assert!(scene.stored_bytes() > 0);
        scene.hold_topmost();
        scene.interrupted(|pull| {
            wait_until("a layer is unpacked", || pull.log().contains("Extracting"));
            stop(pull);
        });
        scene.finish(2 * WINDOW_BYTES);
        scene.leave();
    }
}

/// A pull of which half has come, with what `interrupt` does then; afterwards everything works.
fn in_the_middle(
    version: Version,
    snapshotter: Snapshotter,
    interrupt: impl FnOnce(Process, &Door, &mut Containerd<'_>, Option<&mut Serve<'_>>),
) {
    let tiny = image("tiny", "gzip");
    let machine = Machine::new();
    let mut serve = (snapshotter == Snapshotter::Snap).then(|| Serve::start(&machine, ""));
    let mut containerd = Containerd::start(&machine, version, snapshotter);
    let door = Door::to(tiny.registry());
    let reference = tiny.at(&door.address);
    door.hold_after(4 << 20);
    let pull = SnapPull::new(&containerd, "default").begin(&[&reference]);
    door.wait_holding();
    interrupt(pull, &door, &mut containerd, serve.as_mut());
    let pull = SnapPull::new(&containerd, "default");
    pull.run(&["--quiet", &reference]).well();
    pull.assert_tidy();
    let ctr = Ctr::new(&containerd, Pull::Snap);
    let container = ctr.start(&reference, "works", &["/bin/cat", "/etc/motd"]);
    assert_eq!(ctr.wait(&container, "works").well(), "Replaced by the second layer.\n");
    ctr.remove(&container);
    ctr.remove_image(&reference);
    assert_eq!((containerd.snapshots("default"), containerd.blobs("default")), ([].into(), [].into()));
}

/// The pull says so and ends, whether or not there is a containerd again.
#[test]
fn containerd_dies() {
    for version in VERSIONS {
        for snapshotter in [Snapshotter::Overlayfs, Snapshotter::Snap] {
            in_the_middle(version, snapshotter, |pull, door, containerd, _| {
                containerd.end(Signal::SIGKILL);
                door.open();
                let (status, said) = pull.wait_saying();
                assert_eq!(status.code(), Some(1), "{said}");
                assert!(
                    said.contains("\nerror: ") && said.contains("has gone: ") && said.contains("\nhint: is containerd running?"),
                    "{said}"
                );
                containerd.resume();
            });
        }
    }
}

/// The pull waits for a service that comes back.
#[test]
fn the_service_is_restarted() {
    for version in VERSIONS {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            in_the_middle(version, Snapshotter::Snap, |pull, door, _, serve| {
                let serve = serve.unwrap();
                serve.end(signal);
                door.open();
                serve.resume();
                let (status, said) = pull.wait_saying();
                assert!(status.success(), "{said}");
            });
        }
    }
}
