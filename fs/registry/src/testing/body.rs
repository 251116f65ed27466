//! Bodies that end badly, and connections that can be reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The body of an answer.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, io::Error>;

const PIECE_BYTES: usize = 16 << 10;

/// What happens once the bytes of a body have been sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The body is complete.
    Good,
    /// The connection is closed.
    Closed,
    /// The connection is reset.
    Reset,
    /// Nothing, for ever.
    Silence,
}

/// What has been sent, and how many requests are under way.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) bytes: AtomicU64,
    pub(super) peak: AtomicUsize,
    now: AtomicUsize,
}

/// A request that is under way until this is dropped.
pub(super) struct UnderWay(Arc<Traffic>);

impl UnderWay {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        let now = traffic.now.fetch_add(1, Ordering::Relaxed) + 1;
        traffic.peak.fetch_max(now, Ordering::Relaxed);
        Self(traffic)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a body is sent.
pub(super) struct Sending {
    pub(super) bytes: Bytes,
    pub(super) end: End,
    /// One byte at a time with this pause.
    pub(super) drip: Option<Duration>,
    pub(super) reset: Arc<AtomicBool>,
    pub(super) under_way: UnderWay,
}

impl Sending {
    pub(super) fn into_body(self) -> AnyBody {
        let stream = stream::unfold(Some(self), |sending| async move {
            let mut sending = sending?;
            if sending.bytes.is_empty() {
                return sending.finish().await.map(|error| (Err(error), None));
            }
            let length = if sending.drip.is_some() { 1 } else { PIECE_BYTES.min(sending.bytes.len()) };
            let piece = sending.bytes.split_to(length);
            sending.under_way.0.bytes.fetch_add(length as u64, Ordering::Relaxed);
            if let Some(pause) = sending.drip {
                tokio::time::sleep(pause).await;
            }
            Some((Ok(Frame::data(piece)), Some(sending)))
        });
        StreamBody::new(stream).boxed_unsync()
    }

    async fn finish(&self) -> Option<io::Error> {
        match self.end {
            End::Good => return None,
            End::Silence => std::future::pending::<()>().await,
            End::Reset => self.reset.store(true, Ordering::Relaxed),
            End::Closed => {}
        }
        // Lets the server write what it has before the error makes it drop the connection.
        tokio::task::yield_now().await;
        Some(io::ErrorKind::ConnectionReset.into())
    }
}

/// A connection that is reset instead of closed if `reset` says so.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) reset: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // A connection that is gone already needs no reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
