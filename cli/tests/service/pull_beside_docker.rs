//! `snap pull` beside docker, which pulls the same: what they tell is the same, and so is what docker sees afterwards.

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::docker::Docker;
use crate::images::image;
use crate::machine::Machine;
use crate::process::stdout;
use crate::pull::SnapPull;
use crate::pull_bench::{PullBench, VERSIONS, id, up_to_date};
use crate::registry::Registry;
use crate::repository::Repository;
use crate::scenes::{self, NESTED_TAG, PLATFORMS_TAG};
use crate::stage::says;
use crate::transcript::Transcript;

/// Docker on one machine, and `snap pull` on another.
fn side_by_side(version: Version, work: impl FnOnce(&Docker<'_, '_>, &PullBench<'_>)) {
    let (theirs, own) = (Machine::new(), Machine::new());
    let containerd = Containerd::start(&theirs, Version::V2, Snapshotter::Overlayfs);
    let docker = Docker::start(&containerd);
    work(&docker, &PullBench::start(&own, version, Snapshotter::Overlayfs));
}

/// Both pull; what `snap pull` tells is what docker tells. Where docker says nothing of layers that it has, and something of others,
/// `snap pull` says that they are there.
#[track_caller]
fn compare(docker: &Docker<'_, '_>, bench: &PullBench<'_>, query: &str, arguments: &[&str]) -> Transcript {
    let theirs = docker.pull_telling(query, None);
    assert_eq!(theirs.error(), None);
    let own = bench.pull_to(docker.namespace(), arguments);
    let (mut steps, their_steps) = (own.steps(), theirs.steps());
    steps.retain(|id, steps| their_steps.contains_key(id) || *steps != ["Pulling fs layer", "Already exists"]);
    assert_eq!(steps, their_steps, "{query}");
    assert_eq!(own.ids()[0], theirs.ids()[0]);
    assert_eq!(own.remarks(), theirs.remarks(), "{query}");
    own
}

/// The same for a reference with a tag.
#[track_caller]
fn compare_tag(docker: &Docker<'_, '_>, bench: &PullBench<'_>, reference: &str) -> Transcript {
    let (repository, tag) = reference.rsplit_once(':').unwrap();
    compare(docker, bench, &format!("fromImage={repository}&tag={tag}"), &[reference])
}

#[test]
fn the_same_is_told_of_an_image_that_comes_and_one_that_is_there() {
    let tiny = image("tiny", "gzip");
    for version in VERSIONS {
        side_by_side(version, |docker, bench| {
            for _ in 0..2 {
                compare_tag(docker, bench, &tiny.reference);
            }
        });
    }
}

#[test]
fn the_same_is_told_where_a_tag_moves_and_layers_are_shared() {
    side_by_side(Version::V1_6, |docker, bench| {
        let machine = bench.containerd.machine.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let repository = Repository::new(image("tiny", "gzip").registry(), &format!("scenes/pull-beside-{machine}"));
        let moving = repository.tagged("moving");
        for said in ["first", "second", "first"] {
            let published = scenes::saying(said, &repository).publish(Some("moving"));
            let own = compare_tag(docker, bench, &moving);
            if said == "second" {
                assert_eq!(own.steps()[id(&published.layers[0])], ["Pulling fs layer", "Already exists"]);
            }
        }
    });
}

#[test]
fn the_same_is_told_of_indexes_and_digests() {
    let scene = scenes::platforms();
    let repository = scene.repository.reference();
    let index = scene.index["digest"].as_str().unwrap();
    let other = format!("linux/{}", scene.other.0);
    side_by_side(Version::V1_7, |docker, bench| {
        let tagged = scene.repository.tagged(PLATFORMS_TAG);
        compare_tag(docker, bench, &tagged);
        compare(docker, bench, &format!("fromImage={repository}&tag={PLATFORMS_TAG}&platform={other}"), &["--platform", &other, &tagged]);
        compare_tag(docker, bench, &scene.repository.tagged(NESTED_TAG));
        compare(docker, bench, &format!("fromImage={repository}&tag={index}"), &[&format!("{repository}@{index}")]);
    });
}

#[test]
fn the_same_is_told_of_odd_layers() {
    let registry = Registry::lenient();
    let scenes = [scenes::foreign_layer(&registry), scenes::repeated_layer(), scenes::many_layers(40)];
    side_by_side(Version::V2, |docker, bench| {
        for scene in &scenes {
            compare_tag(docker, bench, &scene.reference);
        }
    });
}

/// Of the command lines, as people and scripts read them.
#[test]
fn the_same_is_printed() {
    let repository = Repository::new(image("tiny", "gzip").registry(), "scenes/pull-printed");
    let published = scenes::saying("latest", &repository).publish(Some("latest"));
    let by_digest = format!("{}@{}", repository.reference(), published.digest());
    let both = format!("{}@{}", published.reference, published.digest());
    // docker's last line repeats what it was given. The image has no such name.
    let named = |theirs: &str| theirs.replace(&format!("{both}\n"), &format!("{by_digest}\n"));
    side_by_side(Version::V1_7, |docker, bench| {
        let snap = SnapPull::new(&bench.containerd, docker.namespace());
        for reference in [&repository.reference(), &published.reference, &by_digest, &both] {
            let theirs = stdout(&mut docker.command(&["pull", reference]));
            let own = snap.run(&[reference]).well();
            // Layers go their ways in parallel, and docker says of some twice that they are there.
            let sorted = |text: &str| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                let layers = lines.iter().filter(|line| published.layers.iter().any(|layer| line.starts_with(id(layer)))).count();
                let from = lines.len() - layers - 3;
                lines[from..from + layers].sort();
                lines.dedup();
                lines
            };
            assert_eq!(sorted(&own), sorted(&named(&theirs)));
            let theirs = stdout(&mut docker.command(&["pull", "--quiet", reference]));
            assert_eq!(snap.run(&["--quiet", reference]).well(), named(&theirs));
        }
        let theirs = docker.command(&["pull", "--all-tags", &published.reference]).output().unwrap();
        let own = snap.run(&["--all-tags", &published.reference]);
        let words = "tag can't be used with --all-tags/-a";
        assert!(own.complained.contains(words) && String::from_utf8(theirs.stderr).unwrap().contains(words));
    });
}

/// What `snap pull` brings into docker's namespace is docker's.
#[test]
fn docker_sees_what_was_pulled_for_it() {
    for snapshotter in [Snapshotter::Overlayfs, Snapshotter::Snap] {
        let machine = Machine::new();
        let bench = PullBench::start(&machine, Version::V2, snapshotter);
        let docker = Docker::start(&bench.containerd);
        let name = format!("scenes/pull-for-docker-{}", machine.path().file_name().unwrap().to_str().unwrap().to_lowercase());
        let repository = Repository::new(image("tiny", "gzip").registry(), &name);
        let moving = repository.tagged("moving");
        let (mut digests, images) = (Vec::new(), || stdout(bench.containerd.ctr("moby").args(["images", "ls", "--quiet"])));
        for said in ["first", "second", "first"] {
            let published = scenes::saying(said, &repository).publish(Some("moving"));
            bench.pull_to(docker.namespace(), &[&moving]);
            assert_eq!(says(&docker, &moving), said);
            digests.push(published.digest().to_owned());
            let told = docker.pull_telling(&format!("fromImage={}&tag=moving", repository.reference()), None);
            assert_eq!(told.remarks(), up_to_date(published.digest(), &moving));
        }
        let names: Vec<String> = images().lines().map(str::to_owned).collect();
        assert_eq!(names, [moving, format!("moby-dangling@{}", digests[1])]);
    }
}
