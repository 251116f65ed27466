//! Decodes a zstd blob from end to end. Decoding can start at frames only, so those are the points.

use crate::chunks::Codec;
use crate::error::IndexError;
use crate::pieces::{Blocks, PieceWriter, PointStart, Stopped};
use crate::zstd_frames::{self, wrong};

/// Decodes all frames; gives the offset behind the last one that holds data. Skippable frames are passed over.
///
/// A point is the blob's start, and then the first frame that starts `span_bytes` or more of output after the last.
pub(crate) fn decode(blob: &mut Blocks, out: &mut PieceWriter, span_bytes: u64) -> Result<u64, Stopped> {
    let mut decoder = zstd_frames::decoder()?;
    out.start_point(PointStart { blob_offset: 0, codec: Codec::Zstd, window: Vec::new() })?;
    let mut data_end = 0;
    let mut is_between_frames = true;
    let mut frame_has_data = false;
    loop {
        let room = out.room()?;
        let input = blob.bytes();
        let is_at_end = input.is_empty();
        if is_at_end && is_between_frames {
            return Ok(data_end);
        }
        let step = zstd_frames::step(&mut decoder, input, room).map_err(|code| wrong(blob.offset(), code))?;
        blob.consume(step.consumed);
        out.advance(step.produced)?;
        if step.consumed == 0 && step.produced == 0 && is_at_end {
            return Err(IndexError::Truncated { format: "zstd", at: blob.offset() }.into());
        }
        frame_has_data |= step.produced > 0;
        is_between_frames = step.ended_frame;
        if step.ended_frame {
            if std::mem::take(&mut frame_has_data) {
                data_end = blob.offset();
            }
            if out.since_point() >= span_bytes {
                out.start_point(PointStart { blob_offset: blob.offset(), codec: Codec::Zstd, window: Vec::new() })?;
            }
        }
    }
}
