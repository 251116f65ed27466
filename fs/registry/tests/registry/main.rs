//! The crate against a real HTTP server that can misbehave: each fault gives the right bytes or the right error.

// Everything here is test code; the lint's own exception covers test functions only.
#![allow(clippy::unwrap_used)]

mod authorization;
mod contract;
mod faults;
mod images;
mod login;
mod mirrors;
mod provided;
mod redirects;
mod refusals;
mod schema1;
mod tags;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use snap_digest::Digest;
use snap_registry::testing::FaultyRegistry;
use snap_registry::{Blob, Client, ClientOptions, Descriptor, Error, Limits, Source};
use tempfile::TempDir;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Patient with the machine that runs the tests, quick between attempts.
fn limits() -> Limits {
    Limits {
        attempts: 3,
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        skip_max_bytes: 64 << 10,
        ..Limits::default()
    }
}

/// A client of its own configuration directory.
struct Setup {
    dir: TempDir,
    limits: Limits,
}

impl Setup {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), limits: limits() }
    }

    fn with(limits: Limits) -> Self {
        Self { limits, ..Self::new() }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn options(&self) -> ClientOptions {
        ClientOptions {
            docker_config: Some(self.dir.path().join("config.json")),
            hosts_dirs: vec![self.dir.path().join("certs.d")],
            limits: self.limits.clone(),
            ..ClientOptions::default()
        }
    }

    fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }

    fn source(&self, reference: &str) -> Arc<dyn Source> {
        self.client().source(&reference.parse().unwrap()).unwrap()
    }

    fn blob(&self, registry: &FaultyRegistry, descriptor: &Descriptor) -> Arc<dyn Blob> {
        self.source(&registry.reference("a/b:t")).blob(descriptor)
    }
}

/// Bytes of which no two ranges are alike.
fn sample(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(next).collect::<Vec<u8>>().into()
}

async fn streamed(blob: &dyn Blob, range: std::ops::Range<u64>) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = blob.stream(range).await?.try_collect().await?;
    Ok(pieces.concat())
}

/// A layer whose diff ID nobody looks at here.
fn layer(bytes: &Bytes) -> (&'static str, Bytes, Digest) {
    (LAYER, bytes.clone(), Digest::of(bytes))
}
