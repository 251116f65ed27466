//! The connection to containerd: HTTP/2 over its unix socket, made when it is needed and again when it has ended.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;

use crate::limits::{CRI_CONNECT_TIMEOUT_MS, MAX_CRI_HEADERS_BYTES};

/// What gRPC over a unix socket has for a host.
const AUTHORITY: Authority = Authority::from_static("localhost");

/// Why containerd gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("containerd's CRI cannot be reached at {}: {source}; hint: is containerd running, with its CRI plugin?", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("containerd ended the connection at {} before it answered: {source}", path.display())]
    Exchange {
        path: PathBuf,
        #[source]
        source: hyper::Error,
    },
}

pub(crate) struct Upstream {
    path: PathBuf,
    /// The connection in use. Its own task ends when the last sender of it is dropped.
    sender: Mutex<Option<SendRequest<Body>>>,
}

impl Upstream {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, sender: Mutex::default() }
    }

    /// Sends `request` with its body, headers and trailers as they are, and gives the answer in the same way as it comes.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let known = self.sender().clone().filter(|sender| !sender.is_closed());
        let mut request = addressed(request);
        if let Some(mut sender) = known {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer.map(Body::new)),
                // The connection had ended, unseen: what was not sent may go over a new one.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.failed(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let answer = sender.send_request(request).await.map_err(|source| self.failed(source))?;
        Ok(answer.map(Body::new))
    }

    async fn connect(&self) -> Result<SendRequest<Body>, UpstreamError> {
        let failed = |source| UpstreamError::Connect { path: self.path.clone(), source };
        let stream = tokio::time::timeout(Duration::from_millis(CRI_CONNECT_TIMEOUT_MS), UnixStream::connect(&self.path)).await;
        let stream = stream.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let handshake = builder.max_header_list_size(MAX_CRI_HEADERS_BYTES).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|source| self.failed(source))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to containerd's CRI ended");
            }
        });
        // Of two that connect at once, the later one's is kept for those who come next.
        *self.sender() = Some(sender.clone());
        Ok(sender)
    }

    fn failed(&self, source: hyper::Error) -> UpstreamError {
        UpstreamError::Exchange { path: self.path.clone(), source }
    }

    fn sender(&self) -> MutexGuard<'_, Option<SendRequest<Body>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request for another server: without what this server's connection has added.
fn addressed(request: Request<Body>) -> Request<Body> {
    let (head, body) = request.into_parts();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(AUTHORITY);
    uri.path_and_query = Some(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    let mut addressed = Request::new(body);
    *addressed.method_mut() = head.method;
    // All three parts are there, which is all that this can fail for.
    *addressed.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *addressed.version_mut() = Version::HTTP_2;
    *addressed.headers_mut() = head.headers;
    addressed
}
