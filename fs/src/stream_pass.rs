//! The ladder's last step before giving up: a layer is streamed once, whole, and that one pass gives its index, its data and the proof
//! that it is what the manifest says.
//!
//! Ranges are fetched in parallel and read in order; every byte that is decoded goes into the layer's data file at once. Nothing of it
//! is shown to anyone before the blob's digest is right: the index file, written last, is what makes the layer exist.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use snap_cache::Build;
use snap_digest::Digest;
use snap_index::{Compression, DataSink, PassOptions, stream_layer};
use snap_registry::Blob as _;

use crate::counted::CountedBlob;
use crate::error::LayerError;
use crate::limits;
use crate::pieces::{PieceReader, fetch_range, registry_error};
use crate::progress::Streaming;

/// Reads a whole blob in order while the next ranges are already on their way.
struct ParallelRanges {
    runtime: tokio::runtime::Handle,
    blob: Arc<CountedBlob>,
    progress: Streaming,
    /// Ranges that are in flight, first to read first.
    ahead: VecDeque<PieceReader>,
    /// Where the next range starts.
    next_start: u64,
    /// Bytes that were read.
    position: u64,
    /// The server knows no ranges: one request is for everything.
    in_one: bool,
}

impl ParallelRanges {
    fn fill(&mut self) {
        while self.ahead.len() < limits::PASS_RANGES_AHEAD && self.next_start < self.blob.size_bytes() {
            let range = self.next_range();
            self.next_start = range.end;
            self.ahead.push_back(fetch_range(&self.runtime, &self.blob, range));
        }
    }

    fn next_range(&self) -> Range<u64> {
        self.next_start..(self.next_start + limits::PASS_RANGE_BYTES).min(self.blob.size_bytes())
    }

    /// For a server that knows no ranges: the whole blob in one request, and what was read of it already once more.
    fn read_whole(&mut self) -> io::Result<()> {
        tracing::warn!(layer = %self.blob.digest(), "the server does not serve ranges: the layer is read in one request");
        self.in_one = true;
        self.next_start = self.blob.size_bytes();
        let mut whole = fetch_range(&self.runtime, &self.blob, 0..self.next_start);
        whole.advance_to(self.position)?;
        self.ahead = VecDeque::from([whole]);
        Ok(())
    }
}

fn is_without_ranges(error: &io::Error) -> bool {
    let registry = error.get_ref().and_then(|inner| inner.downcast_ref::<snap_registry::Error>());
    matches!(registry, Some(snap_registry::Error::Request(request)) if matches!(request.cause, snap_registry::Cause::NoRanges))
}

impl Read for ParallelRanges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.fill();
            let Some(first) = self.ahead.front_mut() else { return Ok(0) };
            match first.read(buffer) {
                Ok(0) if !buffer.is_empty() => drop(self.ahead.pop_front()),
                Ok(read) => {
                    self.position += read as u64;
                    self.progress.add(read as u64);
                    return Ok(read);
                }
                Err(error) if is_without_ranges(&error) && !self.in_one => self.read_whole()?,
                Err(error) => return Err(error),
            }
        }
    }
}

struct BuildSink<'a>(&'a Build);

impl DataSink for BuildSink<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.data().write_all_at(offset, bytes).map_err(io::Error::other)
    }
}

/// What to stream.
pub(crate) struct Pass {
    pub(crate) layer: Digest,
    pub(crate) compression: Compression,
    pub(crate) blob: Arc<CountedBlob>,
    /// Whether the manifest says that it is eStargz.
    pub(crate) is_estargz: bool,
    /// What the stream must unpack to.
    pub(crate) diff_id: Option<Digest>,
    pub(crate) progress: Streaming,
}

impl Pass {
    /// Streams the layer and completes `build`. Blocks; never on an asynchronous thread.
    pub(crate) fn run(self, runtime: tokio::runtime::Handle, build: Build) -> Result<(), LayerError> {
        let blob_bytes = self.blob.size_bytes();
        let mut input = ParallelRanges {
            runtime,
            blob: self.blob,
            progress: self.progress,
            ahead: VecDeque::new(),
            next_start: 0,
            position: 0,
            in_one: false,
        };
        let mut sink = BuildSink(&build);
        let options = PassOptions { is_estargz: self.is_estargz, ..PassOptions::default() };
        let layer = stream_layer(self.compression, &self.layer, blob_bytes, &mut input, &mut sink, &options)
            .map_err(|error| store_error(error).unwrap_or_else(registry_error))?;
        if let Some(wanted) = self.diff_id
            && layer.diff_id != wanted
        {
            return Err(LayerError::DiffId { found: layer.diff_id, wanted });
        }
        build.finish(&layer.index, layer.chunk_count)?;
        Ok(())
    }
}

/// Takes the store's own error back out of what the pass reports for a failed write.
fn store_error(error: snap_index::IndexError) -> Result<LayerError, snap_index::IndexError> {
    let snap_index::IndexError::Io(io) = error else { return Err(error) };
    match io.downcast::<snap_cache::Error>() {
        Ok(cache) => Ok(cache.into()),
        Err(io) => Err(snap_index::IndexError::Io(io)),
    }
}
