//! An HTTP/2 server on a unix socket that does to each call what a test wants, and remembers what came.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};
use tonic::body::Body;

/// Gives the answer to a call. Its body may be read, or given back.
pub(crate) trait Respond: Send + Sync + 'static {
    fn respond(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

impl<F, R> Respond for F
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send,
{
    fn respond(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send {
        self(request)
    }
}

/// The head of a call as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// The server. It ends with its connections when dropped.
pub(crate) struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(crate) fn start(socket: &Path, respond: impl Respond) -> Self {
        // What an earlier server has left.
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (record, respond) = (seen.clone(), Arc::new(respond));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (record, respond) = (record.clone(), respond.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let head = Seen { path: request.uri().path().to_owned(), headers: request.headers().clone() };
                    record.lock().unwrap().push(head);
                    let respond = respond.clone();
                    async move { Ok::<_, Infallible>(respond.respond(request).await) }
                });
                connections.spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { seen, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Ends the server and all its connections.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One message in gRPC's frame.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

/// An answer of these messages and trailers.
pub(crate) fn answer(messages: Vec<Bytes>, trailers: &[(&'static str, &str)]) -> Response<Body> {
    let frames = messages.into_iter().map(Frame::data).chain([Frame::trailers(header_map(trailers))]);
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>)));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}

/// An answer of this one message, and no error.
pub(crate) fn success(message: &[u8]) -> Response<Body> {
    answer(vec![frame(message)], &[("grpc-status", "0")])
}

/// An error, in the headers as gRPC has it where there is no message.
pub(crate) fn refusal(headers: &[(&'static str, &str)]) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = header_map(headers);
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

/// The message in a request.
pub(crate) async fn message_of(request: Request<Incoming>) -> Vec<u8> {
    request.into_body().collect().await.unwrap().to_bytes()[5..].to_vec()
}

fn header_map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}
