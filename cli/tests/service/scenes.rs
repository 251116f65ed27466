//! Images that a pull may meet in a registry, one repository for each kind.

use serde_json::{Value, json};

use crate::door::{Answer, Door};
use crate::images::image;
use crate::recipe::{OCI_CONFIG, OCI_MANIFEST, Published, Recipe};
use crate::registry::Registry;
use crate::repository::Repository;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What every image here prints when it is run: its own file.
const COMMAND: [&str; 2] = ["/bin/cat", "/etc/scene"];
const FILE: &str = "etc/scene";

/// Tags of the repository of `several_tags`.
pub(crate) const TAGS: [&str; 3] = ["one", "three", "two"];
/// A tag that breaks docker's grammar, so that no registry would take it.
pub(crate) const INVALID_TAG: &str = "-no-tag";

fn repository(name: &str) -> Repository {
    Repository::new(image("tiny", "gzip").registry(), &format!("scenes/{name}"))
}

/// An image of four layers that prints `said`.
pub(crate) fn saying<'r>(said: &str, repository: &'r Repository) -> Recipe<'r> {
    Recipe::like(&image("tiny", "gzip"), repository).command(&COMMAND).file(FILE, said)
}

/// Images that share all layers but the topmost; each prints its tag. Of a repository that no other test has, if `name` is its own.
pub(crate) fn several_tags(name: &str) -> Repository {
    let repository = repository(name);
    for tag in TAGS {
        saying(tag, &repository).publish(Some(tag));
    }
    repository
}

/// Has a repository list a tag that no registry would take, between those that it has.
pub(crate) fn list_invalid_tag(door: &Door, repository: &Repository) {
    let tags = [TAGS[0], INVALID_TAG, TAGS[1], TAGS[2]];
    let body = json!({ "name": repository.name, "tags": tags }).to_string().into_bytes();
    let answer = Answer { status: 200, media_type: "application/json", body };
    door.answer(&format!("/v2/{}/tags/list", repository.name), answer);
}

/// An index of two platforms, and of an attestation for the first of them.
pub(crate) struct Platforms {
    pub(crate) repository: Repository,
    pub(crate) index: Value,
    /// For machines like this one.
    pub(crate) own: Published,
    /// The architecture of the other, and its image.
    pub(crate) other: (&'static str, Published),
    /// A manifest of the platform unknown/unknown.
    pub(crate) attestation: Value,
    /// The digests of all that it consists of.
    pub(crate) attestation_content: Vec<String>,
}

pub(crate) const PLATFORMS_TAG: &str = "index";
/// The tag of an index in which the index is.
pub(crate) const NESTED_TAG: &str = "nested";

pub(crate) fn platforms() -> Platforms {
    let repository = repository("platforms");
    let architecture = image("tiny", "gzip").config()["architecture"].as_str().unwrap().to_owned();
    let other = if architecture == "amd64" { "arm64" } else { "amd64" };
    let for_machine = |architecture: &str| saying(architecture, &repository).architecture(architecture).publish(None);
    let (own, foreign) = (for_machine(&architecture), for_machine(other));
    let (attestation, attestation_content) = attestation(&repository);

    let entry = |published: &Published, architecture: &str| with_platform(&published.descriptor, "linux", architecture);
    let mut last = with_platform(&attestation, "unknown", "unknown");
    last["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": own.digest() });
    // The other one first, so that the first is not the right one by chance.
    let manifests = json!([entry(&foreign, other), entry(&own, &architecture), last]);
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    let index = repository.document(Some(PLATFORMS_TAG), OCI_INDEX, &index);
    let nesting = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [index] });
    repository.document(Some(NESTED_TAG), OCI_INDEX, &nesting);
    Platforms { repository, index, own, other: (other, foreign), attestation, attestation_content }
}

fn with_platform(descriptor: &Value, os: &str, architecture: &str) -> Value {
    let mut descriptor = descriptor.clone();
    descriptor["platform"] = json!({ "os": os, "architecture": architecture });
    descriptor
}

impl Platforms {
    /// Digests of what is there for others than machines like this one, but for the layers of their image.
    pub(crate) fn foreign(&self) -> Vec<String> {
        let (_, other) = &self.other;
        [vec![other.digest().to_owned(), other.config.clone()], self.attestation_content.clone()].concat()
    }
}

/// A manifest as BuildKit makes them of what it tells of a build; and the digests of all it consists of.
fn attestation(repository: &Repository) -> (Value, Vec<String>) {
    let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://slsa.dev/provenance/v0.2" });
    let layer = repository.blob("application/vnd.in-toto+json", statement.to_string().as_bytes());
    let rootfs = json!({ "type": "layers", "diff_ids": [layer["digest"]] });
    let config = json!({ "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs });
    let config = repository.blob(OCI_CONFIG, config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
    let manifest = repository.document(None, OCI_MANIFEST, &manifest);
    let digests = [&manifest, &config, &layer].map(|part| part["digest"].as_str().unwrap().to_owned());
    (manifest, digests.to_vec())
}

/// An image of Docker's first schema, at a registry that has nothing else under this name; its digest, and the layers it is made of.
pub(crate) fn schema1(registry: &Registry) -> (String, Published) {
    let repository = Repository::new(&registry.address, "scenes/schema1");
    let published = saying("schema 1", &repository).publish_for_docker("old");
    (repository.turn_into_schema1("old"), published)
}

/// An image whose topmost layer is one of those that `snap serve` leaves to containerd.
pub(crate) fn foreign_layer(registry: &Registry) -> Published {
    let repository = Repository::new(&registry.address, "scenes/foreign");
    Recipe::like(&image("tiny", "gzip"), &repository).command(&COMMAND).foreign_file(FILE, "foreign").publish(Some("1"))
}

/// The same with one more layer above it.
pub(crate) fn foreign_layer_below(registry: &Registry) -> Published {
    let repository = Repository::new(&registry.address, "scenes/foreign");
    let recipe = Recipe::like(&image("tiny", "gzip"), &repository).command(&["/bin/cat", "/etc/scene", "/srv/above"]);
    recipe.foreign_file(FILE, "foreign").file("srv/above", " below").publish(Some("2"))
}

/// An image with one and the same layer twice.
pub(crate) fn repeated_layer() -> Published {
    saying("twice", &repository("repeated")).top_again().publish(Some("1"))
}

/// An image of so many small layers on those of another; it prints `many`.
pub(crate) fn many_layers(count: usize) -> Published {
    let repository = repository("many");
    let bottom = saying("many", &repository);
    let recipe = (0..count).fold(bottom, |recipe, number| recipe.file(&format!("srv/{number}"), &format!("{number}\n")));
    recipe.publish(Some(&count.to_string()))
}
