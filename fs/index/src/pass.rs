//! The streaming pass: a layer's blob goes through once, and gives its digest, its diff ID, all of its data and its index.
//!
//! ```text
//! input ──blocks──> decoder ──pieces──> diff ID ──pieces──> tar, chunk hashes, sink
//!   │ blob digest      ^ seek points                            │
//!   │                  └───────────── used buffers ─────────────┘
//! ```
//!
//! Each arrow is a bounded channel between threads. The decoder is the slowest stage, so that a pass takes hardly longer than decoding
//! alone. A stage that fails or dies drops its ends of the channels; its neighbours see that and stop, and the first to fail says why.

use std::io::Read;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, ScopedJoinHandle};

use snap_digest::{Digest, Hasher};

use crate::builder::Builder;
use crate::compression::Compression;
use crate::error::IndexError;
use crate::limits;
use crate::pieces::{Blocks, Piece, PieceWriter, Stopped, piece_buffers};
use crate::planner::Planner;
use crate::tar::TarParser;
use crate::{gzip_pass, stored_pass, tar_header, zstd_pass};

/// Where the pass puts a layer's decoded bytes.
pub trait DataSink: Send {
    /// Stores `bytes` at `offset` of data space. Every byte comes once, in ascending order.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being stored; it ends the pass.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()>;
}

/// What a pass may be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassOptions {
    /// Decoded bytes between two seek points, at least. Clipped to between 1 byte and half of [`limits::CHUNK_BYTES_MAX`].
    pub span_bytes: u64,
    /// Decoded bytes after which the layer is refused.
    pub data_bytes_max: u64,
    /// The layer is eStargz: its landmarks and its table of contents are no files, however it is read.
    pub is_estargz: bool,
}

impl Default for PassOptions {
    fn default() -> Self {
        Self { span_bytes: limits::SPAN_BYTES, data_bytes_max: limits::DATA_BYTES_MAX, is_estargz: false }
    }
}

/// What a pass found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// The index file. The same blob and span always give the same bytes.
    pub index: Vec<u8>,
    /// Digest of the tar stream.
    pub diff_id: Digest,
    /// Length of data space, which is the tar stream.
    pub data_bytes: u64,
    /// Number of chunks in the index.
    pub chunk_count: u32,
    /// How the blob really is compressed.
    pub compression: Compression,
}

/// Reads a layer's blob once, from `input`, all of it, and writes every decoded byte to `sink`.
///
/// `declared` is what the media type says. The blob's first bytes decide, because types are wrong in practice; but where they show neither
/// a compression nor a tar header, the declared compression is what is missing. `layer` and `blob_bytes` are the descriptor's: they are
/// verified before an index is given out. What the sink got before an error is worth nothing.
///
/// # Errors
/// [`IndexError::Digest`] and [`IndexError::BlobBytes`] where the blob is another one; the errors of the formats, of [`Builder`], of
/// `input` and of `sink`.
pub fn stream_layer(
    declared: Compression,
    layer: &Digest,
    blob_bytes: u64,
    input: &mut dyn Read,
    sink: &mut dyn DataSink,
    options: &PassOptions,
) -> Result<Layer, IndexError> {
    let span_bytes = options.span_bytes.clamp(1, limits::CHUNK_BYTES_MAX / 2);
    let mut reader = BlobReader { input, hasher: Hasher::new(), read_bytes: 0, blob_bytes };
    let mut first = Vec::new();
    reader.fill(&mut first)?;
    let compression = compression_of(declared, &first)?;
    let chunk_bytes_max = match compression {
        // Deflate blocks end anywhere: only a block as long as another span is worth a second chunk.
        Compression::Gzip => span_bytes * 2,
        Compression::Zstd | Compression::None => span_bytes,
    };
    let store = Store {
        planner: Planner::new(chunk_bytes_max)?,
        tar: TarParser::new(Builder::new(*layer, blob_bytes).without_estargz_parts(options.is_estargz)),
        sink,
    };
    let decode = Decode { compression, span_bytes, data_bytes_max: options.data_bytes_max.min(limits::DATA_BYTES_MAX) };
    let passed = run(reader, first, decode, store)?;
    if passed.read_bytes != blob_bytes {
        return Err(IndexError::BlobBytes { found: passed.read_bytes, wanted: blob_bytes });
    }
    if passed.blob != *layer {
        return Err(IndexError::Digest { what: "the layer's blob", found: passed.blob, wanted: *layer });
    }
    let diff_id = passed.diff_id.unwrap_or(passed.blob);
    let data_bytes = passed.planner.data_bytes();
    let plan = passed.planner.finish(passed.blob_end)?;
    // `finish` refuses a plan with more chunks than a u32 counts.
    let chunk_count = plan.chunks.len() as u32;
    let index = passed.builder.finish(plan, Some(diff_id))?;
    Ok(Layer { index, diff_id, data_bytes, chunk_count, compression })
}

fn compression_of(declared: Compression, first: &[u8]) -> Result<Compression, IndexError> {
    let detected = Compression::detect(first);
    let format = match (detected, declared) {
        (Compression::None, Compression::Gzip) => "gzip",
        (Compression::None, Compression::Zstd) => "zstd",
        _ => return Ok(detected),
    };
    let is_tar = first.first_chunk().is_some_and(|block| tar_header::checksum_holds(block) || *block == [0; tar_header::BLOCK_BYTES]);
    if is_tar || first.is_empty() {
        return Ok(Compression::None);
    }
    Err(IndexError::Compressed { format, at: 0, why: "it starts neither with the format's magic bytes nor with a tar header".to_owned() })
}

/// What the stages hand over at the end.
struct Passed {
    blob: Digest,
    read_bytes: u64,
    blob_end: u64,
    /// `None` where the blob is the tar stream.
    diff_id: Option<Digest>,
    builder: Builder,
    planner: Planner,
}

fn run(mut reader: BlobReader<'_>, first: Vec<u8>, decode: Decode, store: Store<'_>) -> Result<Passed, IndexError> {
    thread::scope(|scope| {
        let (blocks, arriving) = mpsc::sync_channel(limits::BLOCKS_IN_FLIGHT);
        let (used, free_blocks) = mpsc::channel();
        let (decoded, to_hash) = mpsc::sync_channel(limits::PIECES_IN_FLIGHT);
        let (hashed, to_store) = mpsc::sync_channel(limits::PIECES_IN_FLIGHT);
        let (free, unused) = mpsc::channel();
        for buffer in piece_buffers() {
            // The other end is in this function.
            let _ = free.send(buffer);
        }
        let is_stored = decode.compression == Compression::None;
        let (decoded, hash) = if is_stored { (hashed, None) } else { (decoded, Some(scope.spawn(move || diff_id(to_hash, hashed)))) };
        let out = PieceWriter::new(decoded, unused, decode.data_bytes_max);
        let decoder = scope.spawn(move || decode.run(Blocks::new(arriving, used), out));
        let storer = scope.spawn(move || store.run(to_store, free));
        let read = reader.run(first, blocks, free_blocks);
        let (decoder, storer) = (joined("decoder", decoder), joined("storing stage", storer));
        let hash = hash.map(|hash| joined("diff ID stage", hash)).transpose();
        // Upstream first: what a stage says about input that was cut short says less than why it was.
        let (mut outcome, blob_end, diff_id, stored) = (Outcome::default(), decoder, hash, storer);
        let (read, blob_end) = (outcome.take(read), outcome.take(blob_end));
        let (diff_id, stored) = (outcome.take(diff_id), outcome.take(stored));
        match (outcome.failure, read, blob_end, diff_id, stored) {
            (Some(error), ..) => Err(error),
            (None, Some(()), Some(blob_end), Some(diff_id), Some((builder, planner))) => {
                Ok(Passed { blob: reader.hasher.finish(), read_bytes: reader.read_bytes, blob_end, diff_id, builder, planner })
            }
            // A stage stops for a neighbour only if that one has failed.
            _ => Err(IndexError::Panicked { stage: "wiring" }),
        }
    })
}

/// The first failure among the stages.
#[derive(Default)]
struct Outcome {
    failure: Option<IndexError>,
}

impl Outcome {
    fn take<T>(&mut self, result: Result<T, Stopped>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(Stopped::Failed(error)) => self.failure = self.failure.take().or(Some(error)),
            Err(Stopped::ByNeighbour) => {}
        }
        None
    }
}

fn joined<T>(stage: &'static str, thread: ScopedJoinHandle<'_, Result<T, Stopped>>) -> Result<T, Stopped> {
    thread.join().unwrap_or_else(|_| Err(IndexError::Panicked { stage }.into()))
}

/// The first stage, on the caller's thread.
struct BlobReader<'a> {
    input: &'a mut dyn Read,
    hasher: Hasher,
    read_bytes: u64,
    blob_bytes: u64,
}

impl BlobReader<'_> {
    /// Fills the block, or cuts it where the blob ends.
    fn fill(&mut self, block: &mut Vec<u8>) -> Result<(), IndexError> {
        // One byte more than there should be shows a blob that is too long; many layers need no more than a small block.
        let enough = self.blob_bytes.saturating_add(1);
        block.resize(usize::try_from(enough).map_or(limits::PIECE_BYTES, |bytes| bytes.min(limits::PIECE_BYTES)), 0);
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        block.truncate(filled);
        self.read_bytes += filled as u64;
        if self.read_bytes > self.blob_bytes {
            return Err(IndexError::BlobBytes { found: self.read_bytes, wanted: self.blob_bytes });
        }
        self.hasher.update(block);
        Ok(())
    }

    fn run(&mut self, first: Vec<u8>, blocks: SyncSender<Vec<u8>>, free: Receiver<Vec<u8>>) -> Result<(), Stopped> {
        let mut block = first;
        while !block.is_empty() {
            blocks.send(block).map_err(|_| Stopped::ByNeighbour)?;
            block = free.try_recv().unwrap_or_default();
            self.fill(&mut block)?;
        }
        Ok(())
    }
}

/// The second stage.
struct Decode {
    compression: Compression,
    span_bytes: u64,
    data_bytes_max: u64,
}

impl Decode {
    /// Gives where in the blob the decoded data ends.
    fn run(self, mut blob: Blocks, mut out: PieceWriter) -> Result<u64, Stopped> {
        let end = match self.compression {
            Compression::None => stored_pass::copy(&mut blob, &mut out, self.span_bytes),
            Compression::Gzip => gzip_pass::decode(&mut blob, &mut out, self.span_bytes),
            Compression::Zstd => zstd_pass::decode(&mut blob, &mut out, self.span_bytes),
        }?;
        out.finish()?;
        blob.drain();
        Ok(end)
    }
}

/// The third stage, which a blob that is the tar stream does without.
fn diff_id(pieces: Receiver<Piece>, hashed: SyncSender<Piece>) -> Result<Digest, Stopped> {
    let mut hasher = Hasher::new();
    for piece in pieces {
        hasher.update(piece.bytes());
        hashed.send(piece).map_err(|_| Stopped::ByNeighbour)?;
    }
    Ok(hasher.finish())
}

/// The last stage.
struct Store<'a> {
    planner: Planner,
    tar: TarParser,
    sink: &'a mut dyn DataSink,
}

impl Store<'_> {
    fn run(mut self, pieces: Receiver<Piece>, free: Sender<Vec<u8>>) -> Result<(Builder, Planner), Stopped> {
        for mut piece in pieces {
            if let Some(point) = piece.point.take() {
                self.planner.start_point(point)?;
            }
            self.tar.feed(piece.bytes())?;
            self.sink.write_at(self.planner.data_bytes(), piece.bytes())?;
            self.planner.feed(piece.bytes())?;
            // The decoder may be done already; then nobody wants the buffer.
            let _ = free.send(piece.into_buffer());
        }
        Ok((self.tar.finish()?, self.planner))
    }
}
