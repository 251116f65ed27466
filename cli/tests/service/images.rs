//! The daemons that `ci/test` has made ready, and images made of those that it has built.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use snap_digest::Digest;

use crate::built::listed;
pub(crate) use crate::built::{TestImage, image, scratch_parent};
use crate::process::succeed;
use crate::recipe::Recipe;
use crate::repository::Repository;

/// A daemon, as `ci/daemons --list` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Daemon {
    name: String,
    /// The folder of its programs.
    pub(crate) bin: PathBuf,
}

pub(crate) fn daemon(name: &str) -> Daemon {
    let found = listed::<Daemon>("SNAP_E2E_DAEMONS").into_iter().find(|daemon| daemon.name == name);
    found.unwrap_or_else(|| panic!("{name} was not installed"))
}

impl TestImage {
    /// `HOST:PORT` of the registry.
    pub(crate) fn registry(&self) -> &str {
        self.reference.split_once('/').unwrap().0
    }

    /// The same image by another address of its registry.
    pub(crate) fn at(&self, address: &str) -> String {
        format!("{address}/{}", self.reference.split_once('/').unwrap().1)
    }

    fn blob(&self, digest: &str) -> Vec<u8> {
        std::fs::read(blob_path(&self.layout_dir(), digest)).unwrap()
    }

    /// Of the manifest.
    pub(crate) fn digest(&self) -> String {
        let index: Value = serde_json::from_slice(&std::fs::read(self.layout_dir().join("index.json")).unwrap()).unwrap();
        let tagged = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == self.variant.as_str();
        let entry = index["manifests"].as_array().unwrap().iter().find(tagged).unwrap();
        entry["digest"].as_str().unwrap().to_owned()
    }

    pub(crate) fn manifest(&self) -> Value {
        serde_json::from_slice(&self.blob(&self.digest())).unwrap()
    }

    /// Digests of the layers, the lowest first.
    pub(crate) fn layers(&self) -> Vec<String> {
        self.manifest()["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// Of all layers together.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.manifest()["layers"].as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).sum()
    }

    pub(crate) fn config(&self) -> Value {
        serde_json::from_slice(&self.blob(self.manifest()["config"]["digest"].as_str().unwrap())).unwrap()
    }

    /// Names of the snapshots that the layers become, the lowest first.
    pub(crate) fn chain_ids(&self) -> Vec<String> {
        let config = self.config();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|diff_id| diff_id.as_str().unwrap());
        let chain = diff_ids.scan(None, |below: &mut Option<String>, diff_id| {
            let here = below.take().map_or(diff_id.to_owned(), |below| Digest::of(format!("{below} {diff_id}").as_bytes()).to_string());
            *below = Some(here.clone());
            Some(here)
        });
        chain.collect()
    }

    /// What the image's own command prints, by running it in the files as another tool unpacked them.
    pub(crate) fn expected_output(&self) -> String {
        let config = self.config();
        let words: Vec<&str> = config["config"]["Cmd"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let output = succeed(Command::new("chroot").arg(&self.tree).args(&words).env("PYTHONDONTWRITEBYTECODE", "1"));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Publishes an image like this one but for its command and, where `file` is given, one more layer that holds it (its path and
    /// content); returns its reference.
    pub(crate) fn publish(&self, tag: &str, command: &[&str], file: Option<(&str, &str)>) -> String {
        let repository = Repository::new(self.registry(), "service");
        let recipe = Recipe::like(self, &repository).command(command);
        let recipe = if let Some((path, content)) = file { recipe.file(path, content) } else { recipe };
        recipe.publish(Some(tag)).reference
    }
}

fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

/// The image of a pod's sandbox: it sleeps.
pub(crate) fn pause() -> String {
    static PUBLISHED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PUBLISHED.get_or_init(|| image("tiny", "gzip").publish("pause", &["/bin/sleep", "1000000"], None)).clone()
}
