//! The chunk plan, made while data space passes by.

use crate::chunks::{Check, Chunk, ChunkPlan, Codec, Point};
use crate::error::IndexError;
use crate::limits;
use crate::pieces::PointStart;

/// Level of the seek windows' compression. Level 1 takes them to 45 %, 3 to 44 % and 19 to 41 %, at 340, 240 and 4 MB/s.
const WINDOW_LEVEL: i32 = 1;

/// Cuts data space into chunks, at every point and then after `chunk_bytes_max`, and hashes each.
pub(crate) struct Planner {
    chunk_bytes_max: u64,
    packer: zstd::bulk::Compressor<'static>,
    window_bytes: usize,
    plan: ChunkPlan,
    point_data_offset: u64,
    hasher: blake3::Hasher,
    open_bytes: u64,
}

impl Planner {
    /// `chunk_bytes_max` must not be zero nor over [`limits::CHUNK_BYTES_MAX`].
    pub(crate) fn new(chunk_bytes_max: u64) -> Result<Self, IndexError> {
        Ok(Self {
            chunk_bytes_max,
            packer: zstd::bulk::Compressor::new(WINDOW_LEVEL)?,
            window_bytes: 0,
            plan: ChunkPlan::default(),
            point_data_offset: 0,
            hasher: blake3::Hasher::new(),
            open_bytes: 0,
        })
    }

    /// Length of data space so far.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.plan.data_bytes
    }

    /// The next bytes belong to a new point.
    pub(crate) fn start_point(&mut self, start: PointStart) -> Result<(), IndexError> {
        // The byte at the offset belongs to both points where the new one does not start at its first bit.
        let first_full_byte = start.blob_offset + u64::from(matches!(start.codec, Codec::Deflate { bits: 1.. }));
        self.end_point(first_full_byte)?;
        let window = if start.window.is_empty() { Vec::new() } else { self.packer.compress(&start.window)? };
        self.window_bytes += window.len();
        if self.plan.points.len() >= limits::CHUNKS_MAX {
            return Err(IndexError::limit("seek points", limits::CHUNKS_MAX as u64));
        }
        if self.window_bytes > limits::WINDOWS_BYTES_MAX {
            return Err(IndexError::limit("bytes of seek windows", limits::WINDOWS_BYTES_MAX as u64));
        }
        self.point_data_offset = self.plan.data_bytes;
        self.plan.points.push(Point { blob_offset: start.blob_offset, blob_bytes: 0, decoded_bytes: 0, codec: start.codec, window });
        Ok(())
    }

    /// Takes the next bytes of data space.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), IndexError> {
        while !bytes.is_empty() {
            let room = self.chunk_bytes_max - self.open_bytes;
            let taken = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            self.hasher.update(&bytes[..taken]);
            self.open_bytes += taken as u64;
            self.plan.data_bytes += taken as u64;
            bytes = &bytes[taken..];
            if self.open_bytes == self.chunk_bytes_max {
                self.end_chunk()?;
            }
        }
        Ok(())
    }

    /// Ends data space, whose last compressed byte is the one before `blob_end`.
    pub(crate) fn finish(mut self, blob_end: u64) -> Result<ChunkPlan, IndexError> {
        self.end_point(blob_end)?;
        Ok(self.plan)
    }

    fn end_point(&mut self, blob_end: u64) -> Result<(), IndexError> {
        self.end_chunk()?;
        if let Some(point) = self.plan.points.last_mut() {
            point.blob_bytes = blob_end - point.blob_offset;
            point.decoded_bytes = self.plan.data_bytes - self.point_data_offset;
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), IndexError> {
        if self.open_bytes == 0 {
            return Ok(());
        }
        if self.plan.chunks.len() >= limits::CHUNKS_MAX {
            return Err(IndexError::limit("chunks", limits::CHUNKS_MAX as u64));
        }
        let data_offset = self.plan.data_bytes - self.open_bytes;
        self.plan.chunks.push(Chunk {
            data_offset,
            // At most `CHUNK_BYTES_MAX`, which fits.
            bytes: self.open_bytes as u32,
            point: self.plan.points.len().saturating_sub(1) as u32,
            skip: data_offset - self.point_data_offset,
            check: Check::Blake3(*self.hasher.finalize().as_bytes()),
        });
        self.hasher.reset();
        self.open_bytes = 0;
        Ok(())
    }
}
