//! A layer's chunks: the sparse data file, with the presence map that says what of it counts.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use snap_digest::Digest;

use crate::Error;
use crate::lease::{Held, exists};
use crate::presence::{ChunkState, PresenceMap};
use crate::staging::remove_if_present;

/// Where a layer's chunks are in its data space.
pub trait ChunkLayout: Send + Sync {
    /// How many chunks there are.
    fn count(&self) -> u32;
    /// The length of the data space, in bytes.
    fn data_len_bytes(&self) -> u64;
    /// The bytes of data space that `chunk`, which is below [`Self::count`], takes.
    fn range(&self, chunk: u32) -> Range<u64>;
}

/// An open layer: reads and stores chunks. All processes that have it open see each other's chunks.
pub struct LayerData {
    file: File,
    path: PathBuf,
    presence: PresenceMap,
    chunks: Arc<dyn ChunkLayout>,
    held: Arc<Held>,
}

impl LayerData {
    pub(crate) fn open(held: &Arc<Held>, chunks: Arc<dyn ChunkLayout>) -> Result<Self, Error> {
        let _change = held.change_now()?;
        if !held.index_is_current()? {
            return Err(Error::IndexChanged { layer: held.layer });
        }
        let (path, present) = (held.paths.data(), held.paths.present());
        if !exists(&path)? {
            // A map outlived its data. A process may have both open still, so the new data must not share that map.
            remove_if_present(&present)?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        let cache = &held.cache;
        let presence = match PresenceMap::open(&present, chunks.count(), cache.boot)? {
            Some(presence) => presence,
            None => PresenceMap::create(&cache.layout, &present, chunks.count(), cache.boot, ChunkState::Absent)?,
        };
        let data = Self { file, path, presence, chunks, held: Arc::clone(held) };
        data.restore_length()?;
        Ok(data)
    }

    /// Makes a short data file as long as data space. What was cut off is not there any more; that is noted first, for the
    /// longer file would read as zeros.
    fn restore_length(&self) -> Result<(), Error> {
        let size_bytes = self.file.metadata().map_err(|error| Error::io("stat", &self.path, error))?.len();
        let data_len_bytes = self.chunks.data_len_bytes();
        if size_bytes >= data_len_bytes {
            return Ok(());
        }
        for chunk in 0..self.presence.count() {
            if self.presence.get(chunk) != ChunkState::Absent && self.chunks.range(chunk).end > size_bytes {
                self.presence.set(chunk, ChunkState::Absent);
            }
        }
        self.file.set_len(data_len_bytes).map_err(|error| Error::io("extend", &self.path, error))
    }

    /// The layer.
    pub fn digest(&self) -> Digest {
        self.held.layer
    }

    /// What is known of `chunk`; absent if there is no such chunk.
    pub fn state(&self, chunk: u32) -> ChunkState {
        self.presence.get(chunk)
    }

    /// Fills `buf` with the bytes of data space at `offset`. They mean something only where [`Self::state`] was asked first.
    ///
    /// # Errors
    /// [`Error::Io`], also past the end of the file.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.read_exact_at(buf, offset).map_err(|error| Error::io("read", &self.path, error))
    }

    /// Stores the verified bytes of `chunk`, which is verified after this.
    ///
    /// # Errors
    /// [`Error::NoSuchChunk`], [`Error::ChunkLength`]. After [`Error::NoSpace`] and [`Error::Io`] the chunk is absent.
    pub fn store(&self, chunk: u32, bytes: &[u8]) -> Result<(), Error> {
        if chunk >= self.presence.count() {
            return Err(Error::NoSuchChunk { chunk, count: self.presence.count() });
        }
        let range = self.chunks.range(chunk);
        let (expected_bytes, actual_bytes) = (range.end.saturating_sub(range.start), bytes.len() as u64);
        if expected_bytes != actual_bytes {
            return Err(Error::ChunkLength { chunk, expected_bytes, actual_bytes });
        }
        if let Err(error) = self.file.write_all_at(bytes, range.start) {
            self.presence.set(chunk, ChunkState::Absent);
            return Err(Error::io("write", &self.path, error));
        }
        self.presence.set(chunk, ChunkState::Verified);
        Ok(())
    }

    /// Notes that the stored bytes of `chunk` were verified. Does nothing if it is absent.
    pub fn mark_verified(&self, chunk: u32) {
        self.presence.promote(chunk);
    }

    /// Notes that `chunk` is to be fetched again, because its stored bytes are wrong or cannot be read.
    pub fn mark_absent(&self, chunk: u32) {
        self.presence.set(chunk, ChunkState::Absent);
    }

    /// How many bytes of data space are here, verified in this boot or not.
    pub fn present_bytes(&self) -> u64 {
        let here = (0..self.presence.count()).filter(|chunk| self.state(*chunk) != ChunkState::Absent);
        here.map(|chunk| self.chunks.range(chunk)).map(|range| range.end.saturating_sub(range.start)).sum()
    }

    /// Whether no chunk is absent.
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// Whether every chunk is verified in this boot.
    pub fn all_verified(&self) -> bool {
        (0..self.presence.count()).all(|chunk| self.state(chunk) == ChunkState::Verified)
    }

    /// The chunks that are absent, in order.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.presence.count()).filter(|chunk| self.state(*chunk) == ChunkState::Absent)
    }

    /// Where the chunks are.
    pub fn chunks(&self) -> &Arc<dyn ChunkLayout> {
        &self.chunks
    }

    /// The data file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl fmt::Debug for LayerData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerData").field("path", &self.path).field("chunks", &self.presence.count()).finish_non_exhaustive()
    }
}
