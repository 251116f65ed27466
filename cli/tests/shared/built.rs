//! What `ci/test` has made ready, as it lists it. Part of every suite that needs images.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// One variant of an image, as `ci/test` lists them.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TestImage {
    pub(crate) name: String,
    pub(crate) variant: String,
    /// In the registry.
    pub(crate) reference: String,
    /// `oci:DIR:TAG`.
    pub(crate) layout: String,
    /// The files, as another tool unpacks them.
    pub(crate) tree: PathBuf,
}

impl TestImage {
    /// The folder of the OCI layout.
    pub(crate) fn layout_dir(&self) -> PathBuf {
        let dir = self.layout.strip_prefix("oci:").and_then(|rest| rest.strip_suffix(&format!(":{}", self.variant)));
        PathBuf::from(dir.unwrap_or_else(|| panic!("{} is no oci:DIR:TAG", self.layout)))
    }
}

/// What a variable says, that `ci/test` sets.
pub(crate) fn told(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run these tests with ci/test"))
}

/// The JSON lines of the file that a variable names; there is at least one.
pub(crate) fn listed<T: DeserializeOwned>(variable: &str) -> Vec<T> {
    let list = told(variable);
    let text = std::fs::read_to_string(&list).unwrap_or_else(|error| panic!("{list}: {error}"));
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{list}: {error} in {line}"));
    let found: Vec<T> = text.lines().map(parse).collect();
    assert!(!found.is_empty(), "{list} lists nothing");
    found
}

pub(crate) fn images() -> Vec<TestImage> {
    listed("SNAP_E2E_IMAGES")
}

pub(crate) fn image(name: &str, variant: &str) -> TestImage {
    let found = images().into_iter().find(|image| image.name == name && image.variant == variant);
    found.unwrap_or_else(|| panic!("no image {name}:{variant} was built"))
}

/// Where everything of these tests is kept: a real file system, which overlayfs takes as an upper directory.
pub(crate) fn scratch_parent() -> PathBuf {
    told("SNAP_E2E_CACHE").into()
}
