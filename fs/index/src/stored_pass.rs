//! A blob that is the tar stream itself: a point wherever one is due.

use crate::chunks::Codec;
use crate::pieces::{Blocks, PieceWriter, PointStart, Stopped};

/// Passes the blob on; gives its length.
pub(crate) fn copy(blob: &mut Blocks, out: &mut PieceWriter, span_bytes: u64) -> Result<u64, Stopped> {
    let point = |blob_offset| PointStart { blob_offset, codec: Codec::Stored, window: Vec::new() };
    out.start_point(point(0))?;
    loop {
        if out.since_point() == span_bytes {
            out.start_point(point(blob.offset()))?;
        }
        let due_bytes = span_bytes - out.since_point();
        let room = out.room()?;
        let input = blob.bytes();
        if input.is_empty() {
            return Ok(blob.offset());
        }
        let bytes = usize::try_from(due_bytes).map_or(input.len(), |due| due.min(input.len())).min(room.len());
        room[..bytes].copy_from_slice(&input[..bytes]);
        blob.consume(bytes);
        out.advance(bytes)?;
    }
}
