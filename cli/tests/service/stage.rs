//! The scenes of the tests of `snap pull`, as docker and `ctr` find them with containerd's own snapshotter: what they say there is what
//! `snap pull` is compared with.

use std::sync::Arc;

use crate::authority::Authority;
use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::docker::Docker;
use crate::door::{Answer, Door, Passed};
use crate::hosts_dir::HostsDir;
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::process::succeed;
use crate::pull_bench::{ID_CHARS, id, newer, up_to_date};
use crate::registry::Registry;
use crate::scenes::{self, NESTED_TAG, PLATFORMS_TAG, TAGS};
use crate::token_server::TokenServer;
use crate::transcript::Transcript;

/// Where nothing listens.
const NOWHERE: &str = "127.0.0.1:1";
/// What docker says of each layer, downloaded or unpacked so quickly that there is nothing to count.
const STEPS: [&str; 3] = ["Pulling fs layer", "Download complete", "Pull complete"];

fn with_docker(work: impl FnOnce(&Docker<'_, '_>)) {
    let machine = Machine::new();
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Overlayfs);
    work(&Docker::start(&containerd));
}

/// Pulls what a reference with a tag names.
#[track_caller]
fn pull(docker: &Docker<'_, '_>, reference: &str) -> Transcript {
    let (repository, tag) = reference.rsplit_once(':').unwrap();
    let told = docker.pull_telling(&format!("fromImage={repository}&tag={tag}"), None);
    assert_eq!(told.error(), None);
    told.assert_sound();
    told
}

/// Runs an image's own command.
pub(crate) fn says(docker: &Docker<'_, '_>, reference: &str) -> String {
    let container = docker.start(reference, "scene", &[]);
    let said = docker.wait(&container, "scene").well();
    docker.remove(&container);
    said
}

#[test]
fn docker_tells_each_layers_steps_and_fetches_it_once() {
    let tiny = image("tiny", "gzip");
    let door = Door::to(tiny.registry());
    let reference = tiny.at(&door.address);
    with_docker(|docker| {
        door.hold("/manifests/");
        std::thread::scope(|scope| {
            let pulling = scope.spawn(|| pull(docker, &reference));
            door.wait_holding();
            assert!(tiny.layers().iter().all(|layer| door.passed(layer) == Passed::default()));
            door.open();
            let told = pulling.join().unwrap();
            let layers = tiny.layers();
            let steps = told.steps();
            assert_eq!(told.ids()[0], "gzip");
            assert_eq!(steps["gzip"], ["Pulling from tiny"]);
            assert!(layers.iter().all(|layer| steps[id(layer)] == STEPS), "{told:?}");
            assert_eq!(steps.len(), layers.len() + 1);
            assert_eq!(told.remarks(), newer(&tiny.digest(), &reference));
        });
        for layer in tiny.manifest()["layers"].as_array().unwrap() {
            let passed = door.passed(layer["digest"].as_str().unwrap());
            assert_eq!(passed, Passed { requests: 1, bytes: layer["size"].as_u64().unwrap() });
        }

        door.forget();
        let told = pull(docker, &reference);
        assert_eq!(told.ids(), ["gzip"]);
        assert_eq!(told.remarks(), up_to_date(&tiny.digest(), &reference));
        let asked: Vec<_> = door.asked().into_iter().map(|asked| (asked.method, asked.target)).collect();
        assert_eq!(asked, [("HEAD".to_owned(), "/v2/tiny/manifests/gzip".to_owned())]);
    });
}

#[test]
fn a_tag_moves_and_comes_back() {
    let repository = scenes::several_tags("stage-moving");
    let reference = repository.tagged("moving");
    with_docker(|docker| {
        let mut digests = Vec::new();
        for (said, has_layer) in [("first", true), ("second", true), ("first", false)] {
            let published = scenes::saying(said, &repository).publish(Some("moving"));
            let told = pull(docker, &reference);
            assert_eq!(told.remarks(), newer(published.digest(), &reference));
            let top = id(published.layers.last().unwrap());
            assert_eq!(told.ids().contains(&top), has_layer, "{told:?}");
            assert_eq!(says(docker, &reference), said);
            digests.push(published.digest().to_owned());
        }
        // The one that has its name again is dangling no more.
        assert_eq!(docker.dangling(), [digests[1].clone()]);
    });
}

#[test]
fn all_tags_are_pulled_but_an_invalid_one() {
    let repository = scenes::several_tags("stage-tags");
    let door = Door::to(&repository.registry);
    scenes::list_invalid_tag(&door, &repository);
    let repository = repository.at(&door.address);
    with_docker(|docker| {
        let told = docker.pull_telling(&format!("fromImage={}", repository.reference()), None);
        told.assert_sound();
        assert_eq!(told.error(), None);
        let tags: Vec<&str> = told.ids().into_iter().filter(|id| id.len() != ID_CHARS).collect();
        assert_eq!(tags, TAGS);
        for tag in TAGS {
            assert_eq!(told.steps()[tag], ["Pulling from scenes/stage-tags"]);
            assert_eq!(says(docker, &repository.tagged(tag)), tag);
        }
    });
}

#[test]
fn an_index_has_an_image_for_each_platform_and_an_attestation() {
    let scene = scenes::platforms();
    let (architecture, other) = &scene.other;
    let repository = scene.repository.reference();
    let index = scene.index["digest"].as_str().unwrap();
    let tagged = scene.repository.tagged(PLATFORMS_TAG);
    with_docker(|docker| {
        let told = pull(docker, &tagged);
        let tops = [id(&scene.own.layers[3]), id(&other.layers[3])];
        assert_eq!(tops.map(|top| told.ids().contains(&top)), [true, false], "{told:?}");
        assert_eq!(told.remarks(), newer(index, &tagged));
        let for_machine = |architecture: &str| {
            let query = format!("fromImage={repository}&tag={PLATFORMS_TAG}&platform=linux/{architecture}");
            docker.pull_telling(&query, None)
        };
        let told = for_machine(architecture);
        assert_eq!(told.ids(), [PLATFORMS_TAG, tops[1]]);
        assert_eq!(told.remarks(), up_to_date(index, &tagged));
        let told = for_machine("s390x");
        let error = "no matching manifest for linux/s390x in the manifest list entries: no match for platform in manifest: not found";
        assert_eq!(told.error(), Some(error));

        let told = pull(docker, &scene.repository.tagged(NESTED_TAG));
        assert_eq!(told.ids(), [NESTED_TAG]);
        let by_digest = format!("{repository}@{index}");
        let told = docker.pull_telling(&format!("fromImage={repository}&tag={index}"), None);
        assert_eq!(told.ids(), [by_digest.as_str()]);
        assert_eq!(told.remarks(), up_to_date(index, &by_digest));
        let both = format!("{tagged}@{index}");
        let told = docker.pull_telling(&format!("fromImage={both}"), None);
        assert_eq!(told.ids(), [PLATFORMS_TAG]);
        assert_eq!(told.remarks(), up_to_date(index, &both));
        let attestation = scene.attestation["digest"].as_str().unwrap();
        assert_ne!(docker.pull_telling(&format!("fromImage={repository}&tag={attestation}"), None).error(), None);
    });
}

#[test]
fn images_with_odd_layers_run() {
    let registry = Registry::lenient();
    with_docker(|docker| {
        for (scene, said) in
            [(scenes::foreign_layer(&registry), "foreign"), (scenes::repeated_layer(), "twice"), (scenes::many_layers(40), "many")]
        {
            let told = pull(docker, &scene.reference);
            assert!(scene.layers.iter().all(|layer| told.steps().get(id(layer)).is_none_or(|steps| steps == &STEPS)), "{told:?}");
            assert!(told.ids().contains(&id(scene.layers.last().unwrap())));
            assert_eq!(says(docker, &scene.reference), said);
        }
    });
}

/// By docker itself, whatever containerd it has.
#[test]
fn schema_1_is_refused() {
    let registry = Registry::lenient();
    let (digest, _) = scenes::schema1(&registry);
    for version in [Version::V1_7, Version::V2] {
        let machine = Machine::new();
        let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
        let docker = Docker::start(&containerd);
        for tag in ["old", &digest] {
            let told = docker.pull_telling(&format!("fromImage={}/scenes/schema1&tag={tag}", registry.address), None);
            let error = told.error().unwrap();
            assert!(error.contains("manifest.v1+prettyjws\" is no longer supported"), "{error}");
        }
    }
}

#[test]
fn a_registry_that_wants_a_password() {
    let authority = Authority::new();
    let registry = Registry::secure(&authority, "first");
    let tiny = image("tiny", "gzip");
    with_docker(|docker| {
        let query = format!("fromImage={}/tiny&tag=gzip", registry.address);
        let error = |user| docker.pull_telling(&query, user).error().unwrap_or_default().to_owned();
        assert!(error(None).ends_with("no basic auth credentials"), "{}", error(None));
        let wrong = Some(("user", "wrong"));
        assert!(error(wrong).ends_with("401 Unauthorized"), "{}", error(wrong));
        let told = docker.pull_telling(&query, Some(("user", "first")));
        assert_eq!(told.remarks(), newer(&tiny.digest(), &tiny.at(&registry.address)));
    });
}

#[test]
fn a_registry_that_wants_a_token() {
    let authority = Arc::new(Authority::new());
    let tokens = TokenServer::start(&authority, ("user", "first"));
    let registry = Registry::with_tokens(&authority, &tokens);
    let tiny = image("tiny", "gzip");
    let machine = Machine::new();
    let containerd = Containerd::start(&machine, Version::V1_7, Snapshotter::Overlayfs);
    let docker = Docker::trusting(&containerd, &authority);
    let query = format!("fromImage={}/tiny&tag=gzip", registry.address);
    let denied = format!("pull access denied for {}/tiny, repository does not exist or may require 'docker login'", registry.address);
    assert_eq!(docker.pull_telling(&query, None).error(), Some(denied.as_str()));
    let wrong = docker.pull_telling(&query, Some(("user", "wrong")));
    assert_eq!(wrong.error(), Some("error from registry: incorrect username or password"));
    assert_eq!(tokens.given(), 0);
    let told = docker.pull_telling(&query, Some(("user", "first")));
    assert_eq!(told.remarks(), newer(&tiny.digest(), &tiny.at(&registry.address)));
    assert!(tokens.given() > 0);

    let hosts = HostsDir::new(&machine);
    hosts.trust(&registry.address, &authority);
    ctr_pull(&containerd, &hosts, &tiny, &registry.address, &["--user", "user:first"]);
}

#[test]
fn mirrors_that_are_down_are_passed_over() {
    let tiny = image("tiny", "gzip");
    let machine = Machine::new();
    let containerd = Containerd::start(&machine, Version::V1_7, Snapshotter::Overlayfs);
    let (registry, broken) = (Door::to(tiny.registry()), Door::to(tiny.registry()));
    broken.answer("/v2/", Answer { status: 503, media_type: "text/plain", body: b"no\n".to_vec() });
    let hosts = HostsDir::new(&machine);
    hosts.mirror(&registry.address, &[NOWHERE, &broken.address]);
    ctr_pull(&containerd, &hosts, &tiny, &registry.address, &[]);
    assert!(broken.asked().iter().any(|asked| asked.target.contains("/manifests/gzip?ns=")), "{:?}", broken.asked());
    assert!(tiny.layers().iter().all(|layer| registry.passed(layer).requests == 1));
}

/// Pulls with `ctr`, told by a folder how the registry is reached.
fn ctr_pull(containerd: &Containerd<'_>, hosts: &HostsDir, image: &TestImage, registry: &str, options: &[&str]) {
    let mut command = containerd.ctr("default");
    command.args(["images", "pull", "--snapshotter", containerd.snapshotter.name(), "--hosts-dir"]).arg(hosts.path());
    succeed(command.args(options).arg(image.at(registry)));
    assert!(image.layers().iter().all(|layer| containerd.blobs("default").contains(layer)));
}
