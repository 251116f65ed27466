//! The proxy as the daemon has it: on a unix socket, beside other services.

use std::path::PathBuf;
use std::sync::Arc;

use snap_snapshotter::{CriCredentials, CriProxy};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::client::Grpc;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};

use crate::raw::client;
use crate::upstream::{Respond, Upstream};

/// A proxy that ends with this.
pub(crate) struct Served {
    pub(crate) credentials: Arc<CriCredentials>,
    pub(crate) client: Grpc<Channel>,
    dir: TempDir,
    task: JoinHandle<()>,
}

impl Served {
    /// In front of the socket `containerd`, or of `containerd.sock` in its own folder, where nobody listens yet.
    pub(crate) fn new(containerd: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Arc::new(CriCredentials::new(Some(dir.path().join("credentials.json"))));
        let proxy = CriProxy::new(containerd.unwrap_or_else(|| dir.path().join("containerd.sock")), credentials.clone());
        let socket = dir.path().join("snap.sock");
        let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let routes = proxy.add_to(Routes::default());
        let task = tokio::spawn(async move { Server::builder().add_routes(routes).serve_with_incoming(listener).await.unwrap() });
        Self { credentials, client: client(&socket), dir, task }
    }

    /// In front of a server that answers with `respond`.
    pub(crate) fn before(respond: impl Respond) -> (Self, Upstream) {
        let served = Self::new(None);
        let upstream = served.upstream(respond);
        (served, upstream)
    }

    /// Starts a server where the proxy looks for containerd.
    pub(crate) fn upstream(&self, respond: impl Respond) -> Upstream {
        Upstream::start(&self.containerd(), respond)
    }

    pub(crate) fn containerd(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    /// What an earlier process would have left: the credentials in the file.
    pub(crate) fn saved(&self) -> CriCredentials {
        CriCredentials::new(Some(self.dir.path().join("credentials.json")))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}
