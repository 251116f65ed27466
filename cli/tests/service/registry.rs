//! A registry of a test's own, as a rule with the images of the one that all share: what it asks of its clients can differ, and change.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::authority::Authority;
use crate::images::{TestImage, scratch_parent};
use crate::process::{stdout, succeed};
use crate::token_server::TokenServer;

pub(crate) struct Registry {
    dir: TempDir,
    storage: PathBuf,
    /// `HOST:PORT`.
    pub(crate) address: String,
}

impl Registry {
    /// Serves what is stored for everyone, to those who know the password of `user`.
    pub(crate) fn start(password: &str) -> Self {
        Self::start_with(&ask_password(password))
    }

    /// The same over TLS.
    pub(crate) fn secure(authority: &Authority, password: &str) -> Self {
        Self::start_with(&[speak_tls(authority), ask_password(password)].concat())
    }

    /// Over TLS, to those who bring a token of that server.
    pub(crate) fn with_tokens(authority: &Authority, tokens: &TokenServer) -> Self {
        let asked = format!("{},{}", tokens.realm(), tokens.roots().display());
        Self::start_with(&[speak_tls(authority), vec!["--token".into(), asked.into()]].concat())
    }

    /// One that takes and gives also what few do, from and to everyone: Docker's first schema, foreign layers.
    pub(crate) fn lenient() -> Self {
        Self::start_with(&["--lenient".into()])
    }

    /// One that has nothing, and takes and gives anything from and to everyone.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir_in(scratch_parent()).unwrap();
        let storage = dir.path().join("storage");
        Self::start_in(dir, storage, &[])
    }

    fn start_with(arguments: &[OsString]) -> Self {
        Self::start_in(tempfile::tempdir_in(scratch_parent()).unwrap(), shared_storage(), arguments)
    }

    fn start_in(dir: TempDir, storage: PathBuf, arguments: &[OsString]) -> Self {
        let mut registry = Self { dir, storage, address: "127.0.0.1:0".to_owned() };
        registry.run(arguments);
        registry
    }

    /// The same at the same address, with another password.
    pub(crate) fn change_password(&mut self, password: &str) {
        self.stop();
        self.run(&ask_password(password));
    }

    pub(crate) fn reference(&self, image: &TestImage) -> String {
        image.at(&self.address)
    }

    fn run(&mut self, arguments: &[OsString]) {
        let port = self.address.rsplit_once(':').unwrap().1.to_owned();
        let mut command = self.script("start");
        command.args(["--port", &port, "--storage"]).arg(&self.storage).args(arguments);
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

fn ask_password(password: &str) -> Vec<OsString> {
    vec!["--auth".into(), format!("user:{password}").into()]
}

fn speak_tls(authority: &Authority) -> Vec<OsString> {
    vec!["--tls".into(), format!("{},{}", authority.certificate_file().display(), authority.key_file().display()).into()]
}

/// Where `ci/registry` keeps the images unless told otherwise.
fn shared_storage() -> PathBuf {
    let cache = std::env::var_os("SNAP_CI_CACHE").map_or_else(|| "/var/cache/snap-ci".into(), PathBuf::from);
    cache.join("registry/storage")
}
