//! The connection to containerd: HTTP/2 over its unix socket, made when it is needed and again when it has ended; and the headers of
//! every call over it.
//!
//! It is not pinged: containerd ends connections that are pinged more often than every five minutes. A process that has died ends its
//! connections at once, and one that hangs runs into the calls' deadlines.

use std::io;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::error::ContainerdError;
use crate::labels::clip;
use crate::limits::{
    CONTAINERD_CONNECT_TIMEOUT_MS, CONTAINERD_CONNECTION_WINDOW_BYTES, CONTAINERD_STREAM_WINDOW_BYTES, MAX_LEASE_BYTES, MAX_NAMESPACE_BYTES,
};

const NAMESPACE_HEADER: &str = "containerd-namespace";
const LEASE_HEADER: &str = "containerd-lease";

/// The deadline of connecting.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(CONTAINERD_CONNECT_TIMEOUT_MS);

/// What the clients of the services send their calls through.
pub(super) type Transport = InterceptedService<Channel, Headers>;

/// Makes a channel to `socket`, which connects when it is first used.
pub(super) fn channel(socket: &Path) -> Channel {
    // What gRPC over a unix socket has for a host.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(CONTAINERD_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONTAINERD_CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(Dialer { socket: socket.to_path_buf() })
}

struct Dialer {
    socket: PathBuf,
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connect = UnixStream::connect(self.socket.clone());
        Box::pin(async { connect.await.map(TokioIo::new) })
    }
}

/// What every call says besides: where it takes place, and what holds what it makes.
#[derive(Clone)]
pub(super) struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Headers {
    pub(super) fn new(namespace: &str) -> Result<Self, ContainerdError> {
        let bad = || ContainerdError::BadNamespace { namespace: clip(namespace) };
        if !is_identifier(namespace) {
            return Err(bad());
        }
        Ok(Self { namespace: namespace.parse().map_err(|_| bad())?, lease: None })
    }

    pub(super) fn with_lease(&self, lease: &str) -> Result<Self, ContainerdError> {
        Ok(Self { namespace: self.namespace.clone(), lease: Some(lease_value(lease)?) })
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(NAMESPACE_HEADER, self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert(LEASE_HEADER, lease.clone());
        }
        Ok(request)
    }
}

/// The ID of a lease as a header has it.
pub(super) fn lease_value(lease: &str) -> Result<MetadataValue<Ascii>, ContainerdError> {
    let bad = || ContainerdError::BadLease { lease: clip(lease) };
    if lease.is_empty() || lease.len() > MAX_LEASE_BYTES || !lease.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad());
    }
    lease.parse().map_err(|_| bad())
}

/// containerd's rule for names that may become a part of a path.
fn is_identifier(name: &str) -> bool {
    let is_group = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_alphanumeric());
    name.len() <= MAX_NAMESPACE_BYTES && name.split(['.', '_', '-']).all(is_group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_as_containerd_takes_them() {
        for name in ["default", "k8s.io", "moby", "a", "A-1_b.c", &"x".repeat(MAX_NAMESPACE_BYTES)] {
            assert!(Headers::new(name).is_ok(), "{name}");
        }
        for name in ["", ".", "a..b", "-a", "a_", "a b", "a/b", "é", "a\n", &"x".repeat(MAX_NAMESPACE_BYTES + 1)] {
            assert!(matches!(Headers::new(name), Err(ContainerdError::BadNamespace { .. })), "{name}");
        }
    }

    #[test]
    fn leases_fit_a_header() {
        let headers = Headers::new("default").unwrap();
        for lease in ["snap-pull-1", "#4!", &"x".repeat(MAX_LEASE_BYTES)] {
            assert!(headers.with_lease(lease).is_ok(), "{lease}");
        }
        for lease in ["", "a b", "a\n", "é", &"x".repeat(MAX_LEASE_BYTES + 1)] {
            assert!(matches!(headers.with_lease(lease), Err(ContainerdError::BadLease { .. })), "{lease}");
        }
    }
}
