//! `snap pull` with `snap serve`: no layer is downloaded, and how each came to be there is said.

use crate::containerd::{Snapshotter, Version};
use crate::door::{Door, Passed};
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::pull_bench::{NAMESPACE, PullBench, VERSIONS, id, newer, up_to_date};
use crate::recipe::Recipe;
use crate::repository::Repository;
use crate::scenes;
use crate::transcript::Transcript;

const INDEXED: &str = "Indexed while streaming";
/// One that is no larger is read at once, whatever it came with.
const SMALL_LAYER_BYTES: u64 = 128 << 10;

/// The last words of layers, the lowest first.
fn last_words<'t>(told: &'t Transcript, layers: &[String]) -> Vec<&'t str> {
    let steps = told.steps();
    layers.iter().map(|layer| steps.get(id(layer)).and_then(|steps| steps.last().copied()).unwrap_or_default()).collect()
}

fn assert_no_layer(bench: &PullBench<'_>, image: &TestImage) {
    let downloaded = bench.containerd.blobs(NAMESPACE);
    assert!(!image.layers().iter().any(|layer| downloaded.contains(layer)), "{} was downloaded: {downloaded:?}", image.reference);
}

fn python(version: Version) {
    let machine = Machine::new();
    let bench = PullBench::start(&machine, version, Snapshotter::Snap);
    for (variant, word) in [("gzip", INDEXED), ("estargz", "Mounted lazily (eStargz)")] {
        let image = image("python", variant);
        let told = bench.pull(&[&image.reference]);
        let layers = image.layers();
        let is_small = |layer: &serde_json::Value| layer["size"].as_u64().unwrap() <= SMALL_LAYER_BYTES;
        let manifest = image.manifest();
        let words: Vec<&str> =
            manifest["layers"].as_array().unwrap().iter().map(|layer| if is_small(layer) { INDEXED } else { word }).collect();
        assert!(words.contains(&word));
        assert_eq!(last_words(&told, &layers), words);
        assert!(layers.iter().all(|layer| told.steps()[id(layer)][0] == "Pulling fs layer"), "{told:?}");
        assert_eq!(told.ids().len(), layers.len() + 1);
        assert_eq!(told.steps()[variant], ["Pulling from python"]);
        assert_eq!(told.remarks(), newer(&image.digest(), &image.reference));
        assert_no_layer(&bench, &image);
        assert_eq!(bench.says(&image.reference), image.expected_output());

        let told = bench.pull(&[&image.reference]);
        assert_eq!(told.ids(), [variant]);
        assert_eq!(told.remarks(), up_to_date(&image.digest(), &image.reference));
        assert_no_layer(&bench, &image);
        bench.snap().assert_tidy();
    }
    assert_eq!(bench.serve().refusals(), serde_json::json!([]));
}

#[test]
fn python_with_containerd_1_6() {
    python(Version::V1_6);
}

#[test]
fn python_with_containerd_1_7() {
    python(Version::V1_7);
}

#[test]
fn python_with_containerd_2() {
    python(Version::V2);
}

/// Layers that another image has: in the same place they are there already, in another their index is.
#[test]
fn what_images_share_is_there() {
    let repository = Repository::new(image("tiny", "gzip").registry(), "scenes/pull-sharing");
    let base = || scenes::saying("shared", &repository);
    let first = base().file("srv/a", "a").file("srv/b", "b").publish(Some("first"));
    let second = base().file("srv/b", "b").file("srv/a", "a").publish(Some("second"));
    let shared = Recipe::like(&image("tiny", "gzip"), &repository).publish(None).layers.len() + 1;
    for version in VERSIONS {
        let machine = Machine::new();
        let bench = PullBench::start(&machine, version, Snapshotter::Snap);
        let told = bench.pull(&[&first.reference]);
        assert_eq!(last_words(&told, &first.layers), vec![INDEXED; first.layers.len()]);
        let told = bench.pull(&[&second.reference]);
        let mut words = vec!["Already exists"; shared];
        words.extend(["Mounted lazily (local index)"; 2]);
        assert_eq!(last_words(&told, &second.layers), words);
        assert_eq!(bench.says(&second.reference), "shared");
    }
}

/// What docker and Kubernetes see is in their namespaces, which share the layers.
#[test]
fn namespaces_share_layers() {
    let tiny = image("tiny", "gzip");
    let door = Door::to(tiny.registry());
    let reference = tiny.at(&door.address);
    for version in VERSIONS {
        let machine = Machine::new();
        let bench = PullBench::start(&machine, version, Snapshotter::Snap);
        bench.pull(&[&reference]);
        door.forget();
        let told = bench.pull_to("k8s.io", &[&reference]);
        assert_eq!(told.remarks(), newer(&tiny.digest(), &reference));
        assert!(tiny.layers().iter().all(|layer| door.passed(layer) == Passed::default()), "{:?}", door.asked());
        assert!(bench.containerd.snapshots("k8s.io").contains(tiny.chain_ids().last().unwrap()));
    }
}
