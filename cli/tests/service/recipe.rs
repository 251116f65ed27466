//! Images made of those that `ci/test` has built.

use std::process::Command;

use serde_json::{Value, json};
use snap_digest::Digest;

use crate::images::{TestImage, scratch_parent};
use crate::process::succeed;
use crate::repository::Repository;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// One that need not be in any registry: its descriptor says where else.
const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// An image that is being made.
#[derive(Clone)]
pub(crate) struct Recipe<'r> {
    repository: &'r Repository,
    config: Value,
    layers: Vec<Value>,
}

/// An image that was made.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// As a client names it: by its tag, or by its digest where it has none.
    pub(crate) reference: String,
    /// Of the manifest.
    pub(crate) descriptor: Value,
    /// The digest of the configuration.
    pub(crate) config: String,
    /// Digests of the layers, the lowest first.
    pub(crate) layers: Vec<String>,
}

impl Published {
    /// Of the manifest.
    pub(crate) fn digest(&self) -> &str {
        self.descriptor["digest"].as_str().unwrap()
    }
}

impl<'r> Recipe<'r> {
    /// Like an image of the same registry.
    pub(crate) fn like(image: &TestImage, repository: &'r Repository) -> Self {
        let (manifest, mut config) = (image.manifest(), image.config());
        // It would have to tell of every layer that follows.
        config.as_object_mut().unwrap().remove("history");
        let recipe = Self { repository, config, layers: manifest["layers"].as_array().unwrap().clone() };
        for layer in recipe.digests() {
            repository.borrow(&layer, &image.name);
        }
        recipe
    }

    fn digests(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn command(mut self, command: &[&str]) -> Self {
        self.config["config"]["Cmd"] = json!(command);
        self
    }

    /// One more variable of the environment: `NAME=value`.
    pub(crate) fn variable(mut self, variable: &str) -> Self {
        self.config["config"]["Env"].as_array_mut().unwrap().push(json!(variable));
        self
    }

    /// Says that it is for a machine of this kind, whatever is in it.
    pub(crate) fn architecture(mut self, architecture: &str) -> Self {
        self.config["architecture"] = json!(architecture);
        self
    }

    /// One more layer, with one file: its path and what it holds.
    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.layer(OCI_LAYER, path, content)
    }

    /// The same as a foreign layer, which the registry has as well.
    pub(crate) fn foreign_file(mut self, path: &str, content: &str) -> Self {
        self = self.layer(OCI_FOREIGN_LAYER, path, content);
        let top = self.layers.last_mut().unwrap();
        let url = format!("http://{}/v2/{}/blobs/{}", self.repository.registry, self.repository.name, top["digest"].as_str().unwrap());
        top["urls"] = json!([url]);
        self
    }

    fn layer(mut self, media_type: &str, path: &str, content: &str) -> Self {
        let (archive, blob) = layer_of(path, content);
        self.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(Digest::of(&archive).to_string()));
        self.layers.push(self.repository.blob(media_type, &blob));
        self
    }

    /// Once more the layer at the top.
    pub(crate) fn top_again(mut self) -> Self {
        let diff_ids = self.config["rootfs"]["diff_ids"].as_array_mut().unwrap();
        diff_ids.push(diff_ids.last().unwrap().clone());
        self.layers.push(self.layers.last().unwrap().clone());
        self
    }

    /// Publishes it under a tag, or for others to name it by its digest.
    pub(crate) fn publish(&self, tag: Option<&str>) -> Published {
        self.publish_as(tag, OCI_MANIFEST, OCI_CONFIG, &self.config, self.layers.clone())
    }

    /// Publishes it under a tag as Docker did before there was the OCI, with a history that has one step without a layer.
    pub(crate) fn publish_for_docker(&self, tag: &str) -> Published {
        let mut config = self.config.clone();
        let step = |number: usize| json!({ "created": "2015-01-01T00:00:00Z", "created_by": format!("step {number}") });
        let mut history: Vec<Value> = (0..self.layers.len()).map(step).collect();
        history.push(json!({ "created": "2015-01-01T00:00:00Z", "created_by": "the command", "empty_layer": true }));
        config["history"] = history.into();
        let mut layers = self.layers.clone();
        for layer in &mut layers {
            assert_eq!(layer["mediaType"], OCI_LAYER, "Docker has no name for it");
            layer["mediaType"] = json!(DOCKER_LAYER);
        }
        self.publish_as(Some(tag), DOCKER_MANIFEST, DOCKER_CONFIG, &config, layers)
    }

    fn publish_as(&self, tag: Option<&str>, media_type: &str, config_type: &str, config: &Value, layers: Vec<Value>) -> Published {
        let config = self.repository.blob(config_type, config.to_string().as_bytes());
        let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": &config, "layers": layers });
        let descriptor = self.repository.document(tag, media_type, &manifest);
        let reference = match tag {
            Some(tag) => self.repository.tagged(tag),
            None => format!("{}@{}", self.repository.reference(), descriptor["digest"].as_str().unwrap()),
        };
        let config = config["digest"].as_str().unwrap().to_owned();
        Published { reference, descriptor, config, layers: self.digests() }
    }
}

/// An archive of one file, plain and compressed.
fn layer_of(path: &str, content: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir_in(scratch_parent()).unwrap();
    let file = dir.path().join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
    let archive = dir.path().join("layer.tar");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=a+rX", "--file"]);
    succeed(tar.arg(&archive).arg("--directory").arg(dir.path()).arg(path));
    let blob = succeed(Command::new("gzip").args(["--no-name", "--stdout"]).arg(&archive)).stdout;
    (std::fs::read(&archive).unwrap(), blob)
}
