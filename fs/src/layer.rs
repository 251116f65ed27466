//! One opened layer: what it contains (index), what is here of it (data), and where the rest comes from (blob).

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use snap_cache::{Cache, ChunkLayout, ChunkState, LayerData, Lease};
use snap_digest::Digest;
use snap_index::LayerIndex;

use crate::counted::CountedBlob;
use crate::demand::DemandGate;
use crate::error::ReadError;
use crate::fetch::Flights;
use crate::progress::Rung;

/// A layer whose every byte is here or can be fetched.
pub struct Layer {
    digest: Digest,
    index: Arc<LayerIndex>,
    data: LayerData,
    rung: Rung,
    pub(crate) blob: Arc<CountedBlob>,
    pub(crate) flights: Flights,
    pub(crate) gate: Arc<DemandGate>,
    pub(crate) cache: Cache,
    /// Keeps the layer's files from being evicted. Last, so that it is dropped last.
    _lease: Lease,
}

/// The index's chunks as the store wants to know them.
pub(crate) struct IndexLayout(pub(crate) Arc<LayerIndex>);

impl ChunkLayout for IndexLayout {
    fn count(&self) -> u32 {
        self.0.chunk_count()
    }
    fn data_len_bytes(&self) -> u64 {
        self.0.data_bytes()
    }
    fn range(&self, chunk: u32) -> Range<u64> {
        self.0.chunk_range(chunk)
    }
}

/// What a layer is made of.
pub(crate) struct LayerParts {
    pub(crate) index: Arc<LayerIndex>,
    pub(crate) data: LayerData,
    pub(crate) rung: Rung,
    pub(crate) blob: Arc<CountedBlob>,
    pub(crate) gate: Arc<DemandGate>,
    pub(crate) cache: Cache,
    pub(crate) lease: Lease,
}

impl Layer {
    pub(crate) fn new(parts: LayerParts) -> Arc<Self> {
        let LayerParts { index, data, rung, blob, gate, cache, lease } = parts;
        let digest = index.layer();
        Arc::new(Self { digest, index, data, rung, blob, flights: Flights::default(), gate, cache, _lease: lease })
    }

    /// Digest of the layer's blob.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the layer contains.
    pub fn index(&self) -> &Arc<LayerIndex> {
        &self.index
    }

    /// How it was opened.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Bytes of data space that are here.
    pub fn present_bytes(&self) -> u64 {
        self.data.present_bytes()
    }

    /// Bytes of data space that chunks cover: what "all of it" means.
    pub fn total_bytes(&self) -> u64 {
        (0..self.index.chunk_count()).map(|chunk| u64::from(self.index.chunk(chunk).bytes)).sum()
    }

    /// Bytes of data space that are here and verified.
    pub(crate) fn verified_bytes(&self) -> u64 {
        let verified = (0..self.index.chunk_count()).filter(|&chunk| self.is_verified(chunk));
        verified.map(|chunk| u64::from(self.index.chunk(chunk).bytes)).sum()
    }

    pub(crate) fn data(&self) -> &LayerData {
        &self.data
    }

    pub(crate) fn is_verified(&self, chunk: u32) -> bool {
        self.data.state(chunk) == ChunkState::Verified
    }

    pub(crate) fn is_point_verified(&self, point: u32) -> bool {
        self.index.chunks_of_point(point).all(|chunk| self.is_verified(chunk))
    }

    /// Whether every chunk is here and verified in this boot.
    pub fn is_complete(&self) -> bool {
        (0..self.index.chunk_count()).all(|chunk| self.is_verified(chunk))
    }

    /// Whether a range of data space can be read at once: all of it is here and verified.
    pub fn is_ready(&self, range: Range<u64>) -> bool {
        self.index.chunks_in(range).all(|chunk| self.is_verified(chunk))
    }

    /// Reads data space. The range must be ready.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        self.data.read_at(buffer, offset).map_err(|error| ReadError::Store(Arc::new(error)))
    }

    /// Waits until a range of data space is ready, fetching what is missing of it before anything else of this image.
    ///
    /// # Errors
    /// [`ReadError`]; the deadline is one for all of the range.
    pub async fn ensure(self: &Arc<Self>, range: Range<u64>, deadline: Instant) -> Result<(), ReadError> {
        let _demand = self.gate.enter();
        let chunks = self.index.chunks_in(range);
        for chunk in chunks.clone() {
            self.flights.demand(self, chunk, chunks.end, deadline).await?;
        }
        Ok(())
    }
}
