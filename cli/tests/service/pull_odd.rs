//! Images that are unlike others: of Docker's first schema, with layers that are left to containerd, with a layer twice, with many layers.

use crate::containerd::Snapshotter;
use crate::machine::Machine;
use crate::pull_bench::{NAMESPACE, PullBench, VERSIONS, each_containerd, everywhere, id, newer, up_to_date};
use crate::registry::Registry;
use crate::scenes;

#[test]
fn schema_1_is_refused_or_converted() {
    let registry = Registry::lenient();
    let (digest, published) = scenes::schema1(&registry);
    let reference = format!("{}/scenes/schema1:old", registry.address);
    everywhere(|bench| {
        for named in [reference.clone(), format!("{}/scenes/schema1@{digest}", registry.address)] {
            let complained = bench.fail(&[&named]);
            assert!(complained.starts_with(&format!("error: {named} is a docker schema 1 image, a format deprecated since 2015")));
            assert!(complained.contains("hint: ") && complained.contains("--allow-schema1"), "{complained}");
        }
        bench.assert_empty();

        let told = bench.pull(&["--allow-schema1", &reference]);
        let steps = told.steps();
        assert_eq!(steps["old"], ["Pulling from scenes/schema1"]);
        for layer in &published.layers {
            assert_eq!(steps[id(layer)], ["Pulling fs layer", "Download complete", "Pull complete"]);
        }
        bench.containerd.drop_leases(NAMESPACE);
        assert_eq!(bench.says(&reference), "schema 1");
        let images = bench.images();
        let (_, converted) = images.first().unwrap();
        assert_eq!(told.remarks(), newer(converted, &reference));
        // A conversion comes to the same every time.
        let told = bench.pull(&["--allow-schema1", &reference]);
        assert_eq!(told.remarks(), up_to_date(converted, &reference));
        bench.snap().assert_tidy();
        bench.remove(&reference);
        bench.assert_empty();
    });
}

#[test]
fn a_declined_layer_is_unpacked_and_told_why() {
    let registry = Registry::lenient();
    let scene = scenes::foreign_layer(&registry);
    for version in VERSIONS {
        let machine = Machine::new();
        let bench = PullBench::start(&machine, version, Snapshotter::Snap);
        let told = bench.pull(&[&scene.reference]);
        let steps = told.steps();
        let (top, below) = scene.layers.split_last().unwrap();
        for layer in below {
            assert_eq!(steps[id(layer)].last(), Some(&"Indexed while streaming"), "{told:?}");
        }
        let last = steps[id(top)].last().unwrap();
        let refusals = bench.serve().refusals();
        let reason = refusals[0]["reason"].as_str().unwrap();
        assert_eq!(*last, format!("Unpacked: {reason}"));
        let blobs = bench.containerd.blobs(NAMESPACE);
        assert!(blobs.contains(top) && !below.iter().any(|layer| blobs.contains(layer)));
        bench.containerd.drop_leases(NAMESPACE);
        assert_eq!(bench.says(&scene.reference), "foreign");
        bench.remove(&scene.reference);
        bench.assert_empty();
    }
}

/// What is declined does not keep what comes above it from being served.
#[test]
fn layers_above_a_declined_one_are_mounted() {
    let registry = Registry::lenient();
    let scene = scenes::foreign_layer_below(&registry);
    for version in VERSIONS {
        let machine = Machine::new();
        let bench = PullBench::start(&machine, version, Snapshotter::Snap);
        let told = bench.pull(&[&scene.reference]);
        let steps = told.steps();
        let words: Vec<&str> = scene.layers.iter().map(|layer| *steps[id(layer)].last().unwrap()).collect();
        let [below @ .., declined, above] = words.as_slice() else { panic!("{words:?}") };
        assert!(declined.starts_with("Unpacked: ") && *above == "Indexed while streaming", "{words:?}");
        assert!(below.iter().all(|word| *word == "Indexed while streaming"), "{words:?}");
        bench.containerd.drop_leases(NAMESPACE);
        assert_eq!(bench.says(&scene.reference), "foreign below");
        bench.remove(&scene.reference);
        bench.assert_empty();
    }
}

#[test]
fn a_layer_twice_and_many_layers() {
    let scenes = [(scenes::repeated_layer(), "twice"), (scenes::many_layers(40), "many")];
    each_containerd(|bench| {
        for (scene, said) in &scenes {
            let told = bench.pull(&[&scene.reference]);
            assert!(told.ids().contains(&id(scene.layers.last().unwrap())));
            bench.containerd.drop_leases(NAMESPACE);
            assert_eq!(bench.says(&scene.reference), *said);
            bench.snap().assert_tidy();
        }
        for (scene, _) in &scenes {
            bench.remove(&scene.reference);
        }
        bench.assert_empty();
    });
}
