//! The way to containerd's own services: leases, image records, content, snapshots, and the unpacking of layers.
//!
//! A [`Containerd`] is one connection and one namespace of it. What it makes while it has a lease ([`Containerd::with_lease`]) is not
//! collected as garbage before the lease has ended. Every call has a deadline; where containerd restarts, calls in flight fail at once
//! and later ones are made over a new connection.
//!
//! Content goes in through a [`ContentWriter`] ([`Containerd::begin_write`]), which goes on where an earlier one, ours or another
//! client's, was broken off. Layers are unpacked by containerd ([`Containerd::apply`]) into the mounts of a snapshot that was prepared
//! ([`Snapshots::prepare`]), unless the snapshotter has the layer already.

mod channel;
mod content;
mod descriptor;
mod diff;
mod error;
mod images;
mod ingest;
mod leases;
mod plugins;
mod snapshots;

pub use crate::api::types::Mount;
pub use content::ContentInfo;
pub use error::{ContainerdError, ContainerdErrorKind};
pub use images::ImageRecord;
pub use ingest::{Begin, ContentWriter};
pub use snapshots::{Committed, Prepared, SnapshotInfo, SnapshotKind, Snapshots};

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use self::channel::{CONNECT_TIMEOUT, Headers, Transport};
use crate::api::version::version_client::VersionClient;
use crate::limits::{CONTAINERD_CALL_TIMEOUT_MS, CONTAINERD_COLLECT_TIMEOUT_MS};

/// The deadline of calls that only read or write records.
const CALL_TIMEOUT: Duration = Duration::from_millis(CONTAINERD_CALL_TIMEOUT_MS);
/// The deadline of calls that wait for the garbage collector.
const COLLECT_TIMEOUT: Duration = Duration::from_millis(CONTAINERD_COLLECT_TIMEOUT_MS);

type Result<T, E = ContainerdError> = std::result::Result<T, E>;

/// containerd, as one of its namespaces. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Containerd {
    socket: Arc<Path>,
    namespace: Arc<str>,
    channel: Channel,
    headers: Headers,
}

impl Containerd {
    /// Connects to `socket`; every call is made in `namespace`, which need not exist. Needs a tokio runtime.
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self> {
        let headers = Headers::new(namespace)?;
        // What is wrong with the socket is told best by connecting to it.
        let trial = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await;
        trial.map_err(|_| connect_timeout(socket))?.map_err(|source| ContainerdError::connect(socket, source))?;
        let containerd = Self { socket: socket.into(), namespace: namespace.into(), channel: channel::channel(socket), headers };
        match containerd.version().await {
            Ok(_) => Ok(containerd),
            Err(ContainerdError::Call { code: Code::Unimplemented, reason, .. } | ContainerdError::Gone { reason, .. }) => {
                Err(ContainerdError::NotContainerd { path: socket.to_path_buf(), reason })
            }
            Err(ContainerdError::Timeout { .. }) => Err(connect_timeout(socket)),
            Err(error) => Err(error),
        }
    }

    /// The version of containerd, as it tells it: `v1.7.24`, `1.6.20~ds1`.
    pub async fn version(&self) -> Result<String> {
        let mut client = VersionClient::new(self.transport());
        let doing = || "ask containerd for its version".to_owned();
        self.answer(doing, CONNECT_TIMEOUT, client.version(())).await.map(|answer| answer.version)
    }

    /// The socket that it is connected to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The namespace that every call is made in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The same, with all that it makes from now on held by the lease of that ID.
    pub fn with_lease(&self, lease: &str) -> Result<Self> {
        Ok(Self { headers: self.headers.with_lease(lease)?, ..self.clone() })
    }

    fn transport(&self) -> Transport {
        Transport::new(self.channel.clone(), self.headers.clone())
    }

    /// Waits for the answer to a call that is to do `doing`, no longer than `limit`.
    async fn answer<T>(
        &self,
        doing: impl Fn() -> String,
        limit: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.within(doing, limit, answer).await.map(Response::into_inner)
    }

    /// The same for any part of a call.
    async fn within<T>(&self, doing: impl Fn() -> String, limit: Duration, part: impl Future<Output = Result<T, Status>>) -> Result<T> {
        match tokio::time::timeout(limit, part).await {
            Ok(answer) => answer.map_err(|status| ContainerdError::of(doing(), &self.socket, &status)),
            Err(_) => Err(ContainerdError::Timeout { doing: doing(), after: limit }),
        }
    }
}

impl fmt::Debug for Containerd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Containerd").field("socket", &self.socket).field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

fn connect_timeout(socket: &Path) -> ContainerdError {
    ContainerdError::Connect { path: socket.to_path_buf(), source: std::io::ErrorKind::TimedOut.into() }
}

/// What an answer always has; without it, it has `problem`.
fn required<T>(field: Option<T>, problem: &str, doing: impl Fn() -> String) -> Result<T> {
    field.ok_or_else(|| ContainerdError::BadAnswer { doing: doing(), problem: problem.to_owned() })
}
