//! A registry of a test's own, with the images of the one that all share, and a password that can change.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::images::{TestImage, scratch_parent};
use crate::process::{stdout, succeed};

pub(crate) struct Registry {
    dir: TempDir,
    /// `HOST:PORT`.
    pub(crate) address: String,
}

impl Registry {
    /// Serves what is stored for everyone, to those who know the password of `user`.
    pub(crate) fn start(password: &str) -> Self {
        let dir = tempfile::tempdir_in(scratch_parent()).unwrap();
        let mut registry = Self { dir, address: "127.0.0.1:0".to_owned() };
        registry.run(password);
        registry
    }

    /// The same at the same address, with another password.
    pub(crate) fn change_password(&mut self, password: &str) {
        self.stop();
        self.run(password);
    }

    pub(crate) fn reference(&self, image: &TestImage) -> String {
        image.at(&self.address)
    }

    fn run(&mut self, password: &str) {
        let port = self.address.rsplit_once(':').unwrap().1.to_owned();
        let mut command = self.script("start");
        command.args(["--port", &port, "--storage"]).arg(shared_storage()).args(["--auth", &format!("user:{password}")]);
        stdout(&mut command).trim().clone_into(&mut self.address);
    }

    fn stop(&self) {
        succeed(&mut self.script("stop"));
    }

    fn script(&self, action: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/registry"));
        command.arg(action).arg("--dir").arg(self.dir.path());
        command
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would hide the first.
            let _ = self.script("stop").output();
        } else {
            self.stop();
        }
    }
}

/// Where `ci/registry` keeps the images unless told otherwise.
fn shared_storage() -> PathBuf {
    let cache = std::env::var_os("SNAP_CI_CACHE").map_or_else(|| "/var/cache/snap-ci".into(), PathBuf::from);
    cache.join("registry/storage")
}
