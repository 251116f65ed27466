//! Decodes a gzip blob from end to end and finds its seek points, as zlib's `zran` example does.

use crate::chunks::Codec;
use crate::compression;
use crate::error::IndexError;
use crate::inflate::{Inflate, Stop, Wrap};
use crate::pieces::{Blocks, PieceWriter, PointStart, Stopped};

/// Decodes all members; gives the offset behind the last one. What follows it and is no member is left unread, as gzip does.
///
/// A point is the blob's start, and then the first deflate block or member that starts `span_bytes` or more of output after the last.
pub(crate) fn decode(blob: &mut Blocks, out: &mut PieceWriter, span_bytes: u64) -> Result<u64, Stopped> {
    let wrong = |at, why| IndexError::Compressed { format: "gzip", at, why };
    let mut inflate = Inflate::new(Wrap::Gzip).map_err(|why| wrong(0, why))?;
    out.start_point(PointStart { blob_offset: 0, codec: Codec::Gzip, window: Vec::new() })?;
    loop {
        // Stopping at a block costs a copy of the window. Up to one byte before a point is due no block is of interest.
        let unwatched = span_bytes.saturating_sub(1).saturating_sub(out.since_point());
        let mut room = out.room()?;
        if unwatched > 0 {
            let clip = usize::try_from(unwatched).map_or(room.len(), |bytes| bytes.min(room.len()));
            room = &mut room[..clip];
        }
        let input = blob.bytes();
        let is_at_end = input.is_empty();
        let step = inflate.step(input, room, unwatched == 0);
        let step = step.map_err(|why| wrong(blob.offset(), why))?;
        blob.consume(step.consumed);
        out.advance(step.produced)?;
        let is_due = out.since_point() >= span_bytes;
        match step.stop {
            Stop::Block { unused_bits, last: false } if is_due => {
                let blob_offset = blob.offset() - u64::from(unused_bits.div_ceil(8));
                let codec = Codec::Deflate { bits: unused_bits % 8 };
                out.start_point(PointStart { blob_offset, codec, window: inflate.dictionary() })?;
            }
            Stop::Block { .. } | Stop::Buffer => {}
            Stop::Stuck if is_at_end => return Err(IndexError::Truncated { format: "gzip", at: blob.offset() }.into()),
            Stop::Stuck => return Err(wrong(blob.offset(), "the decoder makes no progress".to_owned()).into()),
            Stop::End if compression::is_gzip(blob.at_least(compression::MAGIC_BYTES)) => {
                inflate.reset(Wrap::Gzip).map_err(|why| wrong(blob.offset(), why))?;
                if is_due {
                    out.start_point(PointStart { blob_offset: blob.offset(), codec: Codec::Gzip, window: Vec::new() })?;
                }
            }
            Stop::End => return Ok(blob.offset()),
        }
    }
}
