//! Runs `snap` against the images that `ci/images` built.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use tempfile::TempDir;

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

pub(crate) fn images() -> Vec<TestImage> {
    let list = std::env::var("SNAP_E2E_IMAGES").expect("SNAP_E2E_IMAGES is not set: run these tests with ci/test");
    let lines = std::fs::read_to_string(&list).unwrap_or_else(|error| panic!("{list}: {error}"));
    let images: Vec<TestImage> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!images.is_empty(), "{list} lists no image");
    images
}

pub(crate) fn image(name: &str, variant: &str) -> TestImage {
    let found = images().into_iter().find(|image| image.name == name && image.variant == variant);
    found.unwrap_or_else(|| panic!("no image {name}:{variant} was built"))
}

/// A folder for a test's caches and mounts, on a real file system.
pub(crate) fn scratch() -> TempDir {
    let parent = std::env::var("SNAP_E2E_CACHE").expect("SNAP_E2E_CACHE is not set: run these tests with ci/test");
    tempfile::tempdir_in(parent).unwrap()
}

pub(crate) fn snap() -> Command {
    Command::new(env!("CARGO_BIN_EXE_snap"))
}

/// Runs to the end; panics with everything it said unless it succeeded.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\nstdout: {out}\nstderr: {err}", output.status);
    output
}

/// An image mounted by `snap mount`; unmounted when dropped.
pub(crate) struct Mount {
    pub(crate) dir: PathBuf,
}

impl Mount {
    /// Mounts with more arguments.
    #[track_caller]
    pub(crate) fn new(reference: &str, cache: &Path, dir: &Path, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        succeed(snap().arg("mount").arg("--cache-dir").arg(cache).args(arguments).arg(reference).arg(dir));
        Self { dir: dir.canonicalize().unwrap() }
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let output = succeed(snap().args(["status", "--json"]).arg(&self.dir));
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mounts = status["mounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 1, "{status}");
        mounts[0].clone()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status()[name].as_u64().unwrap_or_else(|| panic!("status has no number {name}"))
    }

    pub(crate) fn pid(&self) -> u64 {
        self.count("pid")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whatever a test that failed has left open must not keep its mount.
        let lazily = std::thread::panicking().then_some("--lazy");
        let output = snap().arg("umount").args(lazily).arg(&self.dir).output().unwrap();
        // A second panic would hide the first.
        if !std::thread::panicking() {
            assert!(output.status.success(), "umount: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
