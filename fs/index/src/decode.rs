//! From a point's compressed bytes to verified chunks.

use std::io::Read;
use std::ops::Range;

use zstd::zstd_safe::DCtx;

use crate::chunks::Codec;
use crate::error::IndexError;
use crate::inflate::{Inflate, Stop, Wrap};
use crate::layer_index::{LayerIndex, PointInfo};
use crate::limits;
use crate::zstd_frames;

/// A gzip member's CRC-32 and length, which raw inflate leaves.
const GZIP_TRAILER_BYTES: usize = 8;

/// A chunk whose bytes have the digest that the index gives. There is no other way to make one than to check.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedChunk<'a> {
    number: u32,
    bytes: &'a [u8],
}

impl<'a> VerifiedChunk<'a> {
    /// The chunk's number in its index.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// All of the chunk's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Checks bytes that were stored before, or that came from elsewhere. `chunk` must be a number of `index`.
///
/// # Errors
/// [`IndexError::ChunkDigest`]: they are not the chunk.
pub fn verify_chunk<'a>(index: &LayerIndex, chunk: u32, bytes: &'a [u8]) -> Result<VerifiedChunk<'a>, IndexError> {
    if chunk >= index.chunk_count() {
        return Err(IndexError::ChunkDigest { chunk });
    }
    let expected = index.chunk(chunk);
    if bytes.len() as u64 == u64::from(expected.bytes) && expected.check.holds(bytes) {
        Ok(VerifiedChunk { number: chunk, bytes })
    } else {
        Err(IndexError::ChunkDigest { chunk })
    }
}

/// Decodes every chunk of a point, in order, and gives each to `each` once it is verified.
///
/// `input` is the blob from `point.blob_range()`'s start on. It is read as far as the last chunk needs, in buffers of at most
/// [`limits::DECODE_BUFFER_BYTES`], and no more than that is decoded, whatever the bytes say. One chunk is held in memory at a time.
///
/// # Errors
/// [`IndexError::Truncated`] where `input` ends too early, [`IndexError::Compressed`], [`IndexError::ChunkDigest`], and what `input` and
/// `each` give.
pub fn decode_point(
    index: &LayerIndex,
    point: u32,
    input: &mut dyn Read,
    each: &mut dyn FnMut(VerifiedChunk<'_>) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    decode_chunks(index, point, index.chunks_of_point(point), input, each)
}

/// As [`decode_point`], for some of the point's chunks: nothing behind the last of `chunks` is read, and those before the first are decoded
/// but neither verified nor given out. Chunks that are not the point's are left out.
///
/// # Errors
/// As [`decode_point`].
pub fn decode_chunks(
    index: &LayerIndex,
    point: u32,
    chunks: Range<u32>,
    input: &mut dyn Read,
    each: &mut dyn FnMut(VerifiedChunk<'_>) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let of_point = index.chunks_of_point(point);
    let chunks = chunks.start.max(of_point.start)..chunks.end.min(of_point.end);
    if chunks.is_empty() {
        return Ok(());
    }
    let info = index.point(point);
    let mut input = Input::new(input, &info);
    let mut decoder = Decoder::start(index, &info, &mut input)?;
    let mut buffer = Vec::new();
    let mut decoded_bytes = 0;
    for number in chunks {
        let chunk = index.chunk(number);
        decoder.skip(&mut input, chunk.skip - decoded_bytes)?;
        // Bounded by `CHUNK_BYTES_MAX`, which the index was checked for.
        buffer.resize(chunk.bytes as usize, 0);
        decoder.fill(&mut input, &mut buffer)?;
        decoded_bytes = chunk.skip + u64::from(chunk.bytes);
        each(verify_chunk(index, number, &buffer)?)?;
    }
    Ok(())
}

/// The compressed bytes, buffered, and never more of them than the point has.
struct Input<'a> {
    reader: std::io::Take<&'a mut dyn Read>,
    buffer: Vec<u8>,
    read: usize,
    filled: usize,
    /// Offset in the blob, for messages.
    offset: u64,
}

impl<'a> Input<'a> {
    fn new(reader: &'a mut dyn Read, point: &PointInfo) -> Self {
        let buffer_bytes =
            usize::try_from(point.blob_bytes).map_or(limits::DECODE_BUFFER_BYTES, |bytes| bytes.min(limits::DECODE_BUFFER_BYTES));
        Self { reader: reader.take(point.blob_bytes), buffer: vec![0; buffer_bytes], read: 0, filled: 0, offset: point.blob_offset }
    }

    /// The next bytes; none at the end.
    fn bytes(&mut self) -> Result<&[u8], IndexError> {
        while self.read == self.filled && !self.buffer.is_empty() {
            match self.reader.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(bytes) => (self.read, self.filled) = (0, bytes),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(&self.buffer[self.read..self.filled])
    }

    fn consume(&mut self, bytes: usize) {
        self.read += bytes;
        self.offset += bytes as u64;
    }

    fn truncated(&self, format: &'static str) -> IndexError {
        IndexError::Truncated { format, at: self.offset }
    }
}

/// A decoder that has started at a point.
enum Decoder {
    Stored,
    Gzip(Members),
    Zstd(DCtx<'static>),
}

impl Decoder {
    fn start(index: &LayerIndex, point: &PointInfo, input: &mut Input<'_>) -> Result<Self, IndexError> {
        let wrong = |why| IndexError::Compressed { format: "gzip", at: point.blob_offset, why };
        match point.codec {
            Codec::Stored => Ok(Self::Stored),
            Codec::Gzip => {
                Ok(Self::Gzip(Members { inflate: Inflate::new(Wrap::Gzip).map_err(wrong)?, wrap: Wrap::Gzip, trailer_bytes: 0 }))
            }
            Codec::Deflate { bits } => {
                let mut inflate = Inflate::new(Wrap::Raw).map_err(wrong)?;
                if bits > 0 {
                    let byte = *input.bytes()?.first().ok_or(IndexError::Truncated { format: "gzip", at: point.blob_offset })?;
                    inflate.prime(bits, byte >> (8 - bits)).map_err(wrong)?;
                    input.consume(1);
                }
                inflate.set_dictionary(&index.window(point)?).map_err(wrong)?;
                Ok(Self::Gzip(Members { inflate, wrap: Wrap::Raw, trailer_bytes: 0 }))
            }
            Codec::Zstd => Ok(Self::Zstd(zstd_frames::decoder()?)),
        }
    }

    fn skip(&mut self, input: &mut Input<'_>, mut bytes: u64) -> Result<(), IndexError> {
        if bytes == 0 {
            return Ok(());
        }
        let mut unwanted = vec![0; limits::DECODE_BUFFER_BYTES];
        while bytes > 0 {
            let part = usize::try_from(bytes).map_or(unwanted.len(), |bytes| bytes.min(unwanted.len()));
            self.fill(input, &mut unwanted[..part])?;
            bytes -= part as u64;
        }
        Ok(())
    }

    fn fill(&mut self, input: &mut Input<'_>, mut output: &mut [u8]) -> Result<(), IndexError> {
        while !output.is_empty() {
            let written = match self {
                Self::Stored => copy(input, output)?,
                Self::Gzip(members) => members.inflate(input, output)?,
                Self::Zstd(decoder) => zstd_some(decoder, input, output)?,
            };
            output = &mut output[written..];
        }
        Ok(())
    }
}

fn copy(input: &mut Input<'_>, output: &mut [u8]) -> Result<usize, IndexError> {
    let from = input.bytes()?;
    let bytes = from.len().min(output.len());
    if bytes == 0 {
        return Err(input.truncated("tar"));
    }
    output[..bytes].copy_from_slice(&from[..bytes]);
    input.consume(bytes);
    Ok(bytes)
}

/// The rest of a gzip member, and the members after it.
struct Members {
    inflate: Inflate,
    /// `Raw` until the member that the point is in has ended.
    wrap: Wrap,
    /// What is left of that member's trailer, which raw inflate does not read.
    trailer_bytes: usize,
}

impl Members {
    fn inflate(&mut self, input: &mut Input<'_>, output: &mut [u8]) -> Result<usize, IndexError> {
        while self.trailer_bytes > 0 {
            let bytes = input.bytes()?.len().min(self.trailer_bytes);
            if bytes == 0 {
                return Err(input.truncated("gzip"));
            }
            input.consume(bytes);
            self.trailer_bytes -= bytes;
        }
        let offset = input.offset;
        let wrong = |why| IndexError::Compressed { format: "gzip", at: offset, why };
        let from = input.bytes()?;
        let is_at_end = from.is_empty();
        let step = self.inflate.step(from, output, false).map_err(wrong)?;
        input.consume(step.consumed);
        match step.stop {
            Stop::Stuck if is_at_end => return Err(input.truncated("gzip")),
            Stop::Stuck => return Err(wrong("the decoder makes no progress".to_owned())),
            Stop::Buffer | Stop::Block { .. } => {}
            Stop::End => {
                if self.wrap == Wrap::Raw {
                    (self.wrap, self.trailer_bytes) = (Wrap::Gzip, GZIP_TRAILER_BYTES);
                }
                self.inflate.reset(Wrap::Gzip).map_err(wrong)?;
            }
        }
        Ok(step.produced)
    }
}

fn zstd_some(decoder: &mut DCtx<'_>, input: &mut Input<'_>, output: &mut [u8]) -> Result<usize, IndexError> {
    let offset = input.offset;
    let from = input.bytes()?;
    let is_at_end = from.is_empty();
    let step = zstd_frames::step(decoder, from, output).map_err(|code| zstd_frames::wrong(offset, code))?;
    input.consume(step.consumed);
    if step.consumed == 0 && step.produced == 0 {
        return Err(match is_at_end {
            true => input.truncated("zstd"),
            false => IndexError::Compressed { format: "zstd", at: offset, why: "the decoder makes no progress".to_owned() },
        });
    }
    Ok(step.produced)
}
