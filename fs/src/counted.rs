//! A layer's blob whose fetches are counted, for the layer and for everything that is served with it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use futures_util::StreamExt;
use snap_digest::Digest;
use snap_registry::{Blob, ByteStream, Error};

use crate::counters::Counters;

/// Counts what is asked of a blob, once per request and once per piece.
pub(crate) struct CountedBlob {
    blob: Arc<dyn Blob>,
    all: Arc<Counters>,
    own: Arc<Own>,
}

#[derive(Default)]
struct Own {
    requests: AtomicU64,
    fetched_bytes: AtomicU64,
}

impl CountedBlob {
    /// Counts in `all` too.
    pub(crate) fn new(blob: Arc<dyn Blob>, all: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { blob, all, own: Arc::default() })
    }

    /// Ranges that were asked for.
    pub(crate) fn requests(&self) -> u64 {
        Counters::get(&self.own.requests)
    }

    /// Compressed bytes that came.
    pub(crate) fn fetched_bytes(&self) -> u64 {
        Counters::get(&self.own.fetched_bytes)
    }
}

#[async_trait]
impl Blob for CountedBlob {
    fn digest(&self) -> Digest {
        self.blob.digest()
    }

    fn size_bytes(&self) -> u64 {
        self.blob.size_bytes()
    }

    async fn stream(&self, range: Range<u64>) -> Result<ByteStream, Error> {
        Counters::add(&self.all.requests, 1);
        Counters::add(&self.own.requests, 1);
        let stream = self.blob.stream(range).await?;
        let (all, own) = (Arc::clone(&self.all), Arc::clone(&self.own));
        let counted = stream.inspect(move |piece| {
            if let Ok(bytes) = piece {
                Counters::add(&all.fetched_bytes, bytes.len() as u64);
                Counters::add(&own.fetched_bytes, bytes.len() as u64);
            }
        });
        Ok(counted.boxed())
    }
}
