//! Where the bytes of data space are in the blob: chunks, and the points that decoding can start from.

use snap_digest::Digest;

/// How to decode from a point on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// The bytes are as they are.
    Stored,
    /// A gzip member's header comes first; further members may follow.
    Gzip,
    /// Within a gzip member: `bits` (0 to 7) upper bits of the first byte belong to this point, and the window is its dictionary.
    Deflate {
        /// Bits of the first byte; 0: all of it, the point lies between bytes.
        bits: u8,
    },
    /// A zstd frame starts here; further frames may follow.
    Zstd,
}

/// A place in the blob where decoding can start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// First compressed byte that is needed.
    pub blob_offset: u64,
    /// Compressed bytes that hold everything up to the next point. Ranges of neighbours may share a byte.
    pub blob_bytes: u64,
    /// Decoded bytes up to the next point, at most. A decoder that passes them has been lied to.
    pub decoded_bytes: u64,
    /// How to decode.
    pub codec: Codec,
    /// The 32 KiB before the point, zstd-compressed; empty where none is needed.
    pub window: Vec<u8>,
}

/// What a chunk's decoded bytes are checked against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// SHA-256 of the chunk, from a table of contents.
    Sha256(Digest),
    /// BLAKE3 of the chunk, taken when the whole layer was hashed: about four times as fast to check.
    Blake3([u8; 32]),
}

impl Check {
    /// Whether `bytes` are the chunk.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Sha256(digest) => Digest::of(bytes) == *digest,
            Self::Blake3(hash) => blake3::hash(bytes).as_bytes() == hash,
        }
    }
}

/// A range of data space that is fetched, verified and stored as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Where it starts in data space.
    pub data_offset: u64,
    /// Its length; not zero.
    pub bytes: u32,
    /// The number of the point that decoding starts from.
    pub point: u32,
    /// Decoded bytes between the point and the chunk.
    pub skip: u64,
    /// What its bytes must be.
    pub check: Check,
}

/// All chunks and points of a layer. Chunks ascend in data space, points in the blob, and chunk to point never descends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChunkPlan {
    /// Length of data space in bytes.
    pub data_bytes: u64,
    /// Ascending, not overlapping.
    pub chunks: Vec<Chunk>,
    /// Ascending.
    pub points: Vec<Point>,
}
