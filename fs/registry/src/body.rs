//! A blob in a registry as a stream of bytes: range requests that are checked, and resumed where they break.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures_util::stream;
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{Method, StatusCode};
use snap_digest::Digest;
use tokio::sync::OwnedSemaphorePermit;

use crate::cause::Cause;
use crate::chain::Chain;
use crate::error::Error;
use crate::host::{Ask, Host};
use crate::limits::NO_RANGES_MEMORY;
use crate::redirect::Target;
use crate::registry::Repository;
use crate::response::Body;
use crate::source::{Blob, ByteStream, in_bounds};

/// A blob of a repository.
#[derive(Clone)]
pub(crate) struct RegistryBlob(Arc<Inner>);

struct Inner {
    repository: Arc<Repository>,
    digest: Digest,
    size_bytes: u64,
    /// What is known of this blob at each host that may be pulled from, in the repository's order.
    at_hosts: Vec<AtHost>,
}

#[derive(Default)]
struct AtHost {
    target: Target,
    /// When the host last sent the whole blob for a range.
    without_ranges: Mutex<Option<Instant>>,
}

impl RegistryBlob {
    pub(crate) fn new(repository: Arc<Repository>, digest: Digest, size_bytes: u64) -> Self {
        let at_hosts = repository.pull_hosts().map(|_| AtHost::default()).collect();
        Self(Arc::new(Inner { repository, digest, size_bytes, at_hosts }))
    }
}

#[async_trait]
impl Blob for RegistryBlob {
    fn digest(&self) -> Digest {
        self.0.digest
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    async fn stream(&self, range: Range<u64>) -> Result<ByteStream, Error> {
        in_bounds(self.0.digest, self.0.size_bytes, &range)?;
        if range.is_empty() {
            return Ok(Box::pin(stream::empty()));
        }
        let path = self.0.repository.blob_path(&self.0.digest);
        let mut reading = Reading { blob: self.0.clone(), chain: self.0.repository.pull_chain(&path)?, path, left: range, open: None };
        reading.open().await?;
        Ok(Box::pin(stream::try_unfold(reading, |mut reading| async move { Ok(reading.next().await?.map(|piece| (piece, reading))) })))
    }
}

/// A range on its way.
struct Reading {
    blob: Arc<Inner>,
    path: String,
    chain: Chain,
    /// What has not been handed out.
    left: Range<u64>,
    open: Option<Open>,
}

/// A body that has answered, positioned at the start of what is left.
struct Open {
    body: Body,
    /// Bytes before the range, where the server sent the blob from its start.
    skip_bytes: u64,
    url: url::Url,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// Gets a body for what is left, however many attempts that takes.
    async fn open(&mut self) -> Result<(), Error> {
        while self.open.is_none() {
            let (index, host) = self.chain.host();
            let (host, at_host) = (host.clone(), &self.blob.at_hosts[index]);
            match self.blob.open(&self.path, &host, at_host, self.left.clone()).await {
                Ok(open) => self.open = Some(open),
                Err(cause) => self.chain.failed(cause).await?,
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.left.is_empty() {
            self.open().await?;
            let Some(open) = &mut self.open else { continue };
            match open.piece(&self.left).await {
                Ok(piece) => {
                    self.left.start += piece.len() as u64;
                    self.chain.progressed(piece.len() as u64);
                    if self.left.is_empty() {
                        // The connection goes back to the pool before the last bytes are looked at.
                        self.open = None;
                    }
                    return Ok(Some(piece));
                }
                Err(cause) => {
                    // Another node of the storage may do better.
                    self.blob.at_hosts[self.chain.host().0].target.forget(&open.url);
                    self.open = None;
                    self.chain.failed(cause).await?;
                }
            }
        }
        Ok(None)
    }
}

impl Open {
    /// The next bytes of `left`, at least one.
    async fn piece(&mut self, left: &Range<u64>) -> Result<Bytes, Cause> {
        let length = left.end - left.start;
        loop {
            let Some(mut piece) = self.body.piece().await? else {
                return Err(self.body.broken());
            };
            let skipped = self.skip_bytes.min(piece.len() as u64);
            piece.advance(skipped as usize);
            self.skip_bytes -= skipped;
            // More than was asked for is not ours to hand out.
            piece.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            if !piece.is_empty() {
                return Ok(piece);
            }
        }
    }
}

impl Inner {
    /// One attempt to have `range` of the blob from `host`.
    async fn open(&self, path: &str, host: &Host, at_host: &AtHost, range: Range<u64>) -> Result<Open, Cause> {
        let limits = self.repository.limits();
        if range.start > limits.skip_max_bytes && at_host.is_without_ranges() {
            return Err(Cause::NoRanges);
        }
        let is_whole = range == (0..self.size_bytes);
        let ask = Ask {
            method: Method::GET,
            url: host.url(path),
            repository: self.repository.name(),
            accept: None,
            range: (!is_whole).then(|| range.clone()),
            target: Some(&at_host.target),
        };
        let answer = host.send(&ask).await?;
        let length = range.end - range.start;
        let (skip_bytes, expected_bytes) = if answer.response.status() == StatusCode::PARTIAL_CONTENT {
            self.check_range(answer.response.headers(), &range)?;
            at_host.set_without_ranges(None);
            (0, length)
        } else {
            if !is_whole && range.start > limits.skip_max_bytes {
                at_host.set_without_ranges(Some(Instant::now()));
                return Err(Cause::NoRanges);
            }
            (range.start, self.size_bytes)
        };
        if let Some(actual_bytes) = answer.response.content_length().filter(|actual| *actual != expected_bytes) {
            return Err(Cause::SizeMismatch { expected_bytes, actual_bytes });
        }
        let body = Body::new(answer.response, expected_bytes, limits.clone());
        Ok(Open { body, skip_bytes, url: answer.url, _permit: answer.permit })
    }

    /// A 206 has to say that it is exactly the range asked for, of a blob of the size known.
    fn check_range(&self, headers: &HeaderMap, asked: &Range<u64>) -> Result<(), Cause> {
        let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let expected = format!("{}-{}", asked.start, asked.end - 1);
        let fits = parse_content_range(text)
            .is_some_and(|(range, total)| range == expected && (total == "*" || total.parse() == Ok(self.size_bytes)));
        if fits {
            return Ok(());
        }
        Err(Cause::RangeLied { asked: asked.clone(), size_bytes: self.size_bytes, answer: text.chars().take(100).collect() })
    }
}

/// `bytes 0-9/100` as (`0-9`, `100`).
fn parse_content_range(text: &str) -> Option<(&str, &str)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    unit.eq_ignore_ascii_case("bytes").then_some((range, total))
}

impl AtHost {
    fn is_without_ranges(&self) -> bool {
        let since = *self.without_ranges.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < NO_RANGES_MEMORY)
    }

    fn set_without_ranges(&self, since: Option<Instant>) {
        *self.without_ranges.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}
