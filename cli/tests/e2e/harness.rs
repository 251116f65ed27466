//! Runs `snap` against the images that `ci/images` built.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::built::scratch_parent;
pub(crate) use crate::built::{TestImage, image, images};

/// A folder for a test's caches and mounts, on a real file system.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(scratch_parent()).unwrap()
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
