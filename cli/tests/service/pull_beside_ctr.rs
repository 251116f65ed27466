//! `snap pull` with a snapshotter that only stores leaves what `ctr images pull` leaves.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::images::image;
use crate::machine::Machine;
use crate::process::stdout;
use crate::pull_bench::{NAMESPACE, PullBench, VERSIONS, id, newer};
use crate::scenes::{self, NESTED_TAG, PLATFORMS_TAG};

/// All that containerd has.
#[derive(PartialEq, Eq, Debug)]
struct Left {
    /// Labels of content, by its digest.
    content: BTreeMap<String, BTreeSet<String>>,
    /// Name, parent and kind of each snapshot.
    snapshots: Vec<String>,
    /// Name, type, digest, size, platforms and labels of each image.
    images: Vec<String>,
}

fn left(containerd: &Containerd<'_>) -> Left {
    let listed = |arguments: &[&str]| {
        let listed = stdout(containerd.ctr(NAMESPACE).args(arguments));
        listed.lines().skip(1).map(str::to_owned).collect::<Vec<String>>()
    };
    // The age in the middle differs.
    let ends = |line: String| {
        let fields: Vec<&str> = line.trim_end().split('\t').map(str::trim).collect();
        (fields[0].to_owned(), fields.last().unwrap().split(',').map(str::to_owned).collect())
    };
    Left {
        content: listed(&["content", "ls"]).into_iter().map(ends).collect(),
        snapshots: listed(&["snapshots", "--snapshotter", containerd.snapshotter.name(), "ls"]),
        images: listed(&["images", "ls"]),
    }
}

#[test]
fn what_is_left_is_the_same() {
    let (tiny, scene) = (image("tiny", "gzip"), scenes::platforms());
    let references = [tiny.reference.clone(), scene.repository.tagged(PLATFORMS_TAG), scene.repository.tagged(NESTED_TAG)];
    for version in VERSIONS {
        for reference in &references {
            let (own, other) = (Machine::new(), Machine::new());
            let bench = PullBench::start(&own, version, Snapshotter::Overlayfs);
            bench.pull(&[reference]);
            let theirs = Containerd::start(&other, version, Snapshotter::Overlayfs);
            Ctr::new(&theirs, Pull::Local).pull(reference).unwrap();
            let mut expected = left(&theirs);
            if version == Version::V2 {
                // From 2.1 on `ctr` brings what there is to know of other platforms, and attestations.
                expected.content.retain(|digest, _| !scene.foreign().contains(digest));
            }
            assert_eq!(left(&bench.containerd), expected, "{version:?}, {reference}");
            bench.snap().assert_tidy();
        }
    }
}

#[test]
fn everything_is_downloaded_and_unpacked() {
    let tiny = image("tiny", "gzip");
    for version in VERSIONS {
        let machine = Machine::new();
        let bench = PullBench::start(&machine, version, Snapshotter::Overlayfs);
        let told = bench.pull(&[&tiny.reference]);
        let (steps, layers) = (told.steps(), tiny.layers());
        assert!(layers.iter().all(|layer| steps[id(layer)] == ["Pulling fs layer", "Download complete", "Pull complete"]), "{told:?}");
        assert_eq!(told.remarks(), newer(&tiny.digest(), &tiny.reference));
        let content = left(&bench.containerd).content;
        let (config, (host, _)) = (tiny.config(), tiny.registry().split_once(':').unwrap());
        for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
            let source = format!("containerd.io/distribution.source.{host}=tiny");
            let uncompressed = format!("containerd.io/uncompressed={}", diff_id.as_str().unwrap());
            assert_eq!(content[layer], [source, uncompressed].into());
        }
        assert_eq!(bench.says(&tiny.reference), tiny.expected_output());
    }
}
