//! A registry on 127.0.0.1 that misbehaves on demand, over a real HTTP stack. Behind the feature `testing`, for tests only.
//!
//! Contents are added with [`FaultyRegistry::add_blob`] and [`FaultyRegistry::add_manifest`]; a [`Fault`] is set for the requests
//! that a [`Matcher`] names: by path, by how many come before, by how many it strikes. Authorization and redirects to a second
//! address ("storage") are switched on for the whole server. Every request is recorded.

mod body;
mod contents;
mod fault;
mod server;
mod token;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::{fs, io};

use bytes::Bytes;
use snap_digest::Digest;
use tokio::task::JoinHandle;

pub use self::fault::{Fault, Matcher, Recorded};
pub use self::token::TokenAuth;
use crate::descriptor::Descriptor;
use crate::media_type::OCI_MANIFEST;

use self::server::{Auth, State};

/// The server. It stops when this is dropped.
pub struct FaultyRegistry {
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

impl FaultyRegistry {
    /// Starts an empty, well-behaved registry over plain http.
    pub async fn start() -> Self {
        Self::listen(None).await.unwrap_or_else(|error| panic!("127.0.0.1 has no port left: {error}"))
    }

    /// The same over TLS, with `tls` as the server's configuration. The storage address stays plain.
    pub async fn start_tls(tls: Arc<rustls::ServerConfig>) -> Self {
        Self::listen(Some(tls)).await.unwrap_or_else(|error| panic!("127.0.0.1 has no port left: {error}"))
    }

    async fn listen(tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<Self> {
        let registry = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let storage = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let state = Arc::new(State::new(registry.local_addr()?, storage.local_addr()?, tls.is_some()));
        let tasks = vec![
            tokio::spawn(server::accept(registry, state.clone(), tls, false)),
            tokio::spawn(server::accept(storage, state.clone(), None, true)),
        ];
        Ok(Self { state, tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.state.addr
    }

    /// Where redirected blob requests go.
    pub fn storage_addr(&self) -> SocketAddr {
        self.state.storage_addr
    }

    /// A reference to an image here: `127.0.0.1:PORT/<name>`, `name` with its tag or digest.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.state.addr)
    }

    /// Adds a blob, to every repository.
    pub fn add_blob(&self, bytes: impl Into<Bytes>) -> Descriptor {
        self.state.contents().add_blob(bytes.into())
    }

    /// Adds a manifest or index to the repository `name`, under `tag` and its digest.
    pub fn add_manifest(&self, name: &str, tag: &str, bytes: impl Into<Bytes>, media_type: &str) -> Descriptor {
        self.state.contents().add_manifest(name, tag, bytes.into(), media_type)
    }

    /// Has the repository `name` list these tags, whatever manifests it has.
    pub fn set_tags(&self, name: &str, tags: &[&str]) {
        self.state.contents().set_tags(name, tags.iter().map(|tag| (*tag).to_owned()).collect());
    }

    /// Gives lists of tags in pages of so many.
    pub fn page_tags(&self, tags: usize) {
        self.state.contents().page_tags(tags);
    }

    /// Adds an image for linux/amd64 of these layers: a configuration that fits, and the manifest, which is returned.
    ///
    /// Each layer is (media type, blob, diff ID).
    pub fn add_image(&self, name: &str, tag: &str, layers: &[(&str, Bytes, Digest)]) -> Descriptor {
        let (config, manifest) = contents::image(layers);
        for (_, blob, _) in layers {
            self.add_blob(blob.clone());
        }
        self.add_blob(config);
        self.add_manifest(name, tag, manifest, OCI_MANIFEST)
    }

    /// Writes an OCI layout with everything that has a tag in the repository `name`, and all blobs.
    pub fn write_layout(&self, name: &str, directory: &Path) -> io::Result<()> {
        let blobs = directory.join("blobs").join("sha256");
        fs::create_dir_all(&blobs)?;
        fs::write(directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let (index, files) = self.state.contents().layout(name);
        for (digest, bytes) in files {
            fs::write(blobs.join(digest.hex()), bytes)?;
        }
        fs::write(directory.join("index.json"), index)
    }

    /// Does `fault` to the requests that `matcher` names. Of several that fit, the one set first strikes.
    pub fn fault(&self, fault: Fault, matcher: Matcher) {
        self.state.faults().push((fault, matcher));
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.state.faults().clear();
    }

    /// Asks for this user and password on every request.
    pub fn require_basic(&self, username: &str, password: &str) {
        *self.state.auth() = Auth::Basic(username.to_owned(), password.to_owned());
    }

    /// Asks for a token of its own token server on every request.
    pub fn require_token(&self, auth: TokenAuth) {
        *self.state.auth() = Auth::Token(auth);
    }

    /// Redirects blob requests to the storage address. A target answers `requests_per_target` requests, then 403.
    pub fn redirect_blobs(&self, requests_per_target: Option<u32>) {
        self.state.redirect_blobs(requests_per_target);
    }

    /// Every request so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.recorded().clone()
    }

    /// How many requests had `part` in their path.
    pub fn count(&self, part: &str) -> usize {
        self.recorded().iter().filter(|request| request.path.contains(part)).count()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.recorded().clear();
    }

    /// How many body bytes have been handed to connections.
    pub fn body_bytes(&self) -> u64 {
        self.state.traffic.bytes.load(Ordering::Relaxed)
    }

    /// The most requests that were under way at one time, their bodies included.
    pub fn peak_requests(&self) -> usize {
        self.state.traffic.peak.load(Ordering::Relaxed)
    }

    fn recorded(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.state.recorded()
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
