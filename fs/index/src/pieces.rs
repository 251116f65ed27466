//! What passes between the stages of the streaming pass: blocks of the blob, and pieces of data space.

use std::sync::mpsc::{Receiver, Sender, SyncSender};

use crate::chunks::Codec;
use crate::error::IndexError;
use crate::limits;

/// Why a stage ended early.
pub(crate) enum Stopped {
    /// The stage before or after it is gone, and knows why.
    ByNeighbour,
    /// It failed itself.
    Failed(IndexError),
}

impl<E: Into<IndexError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The blob as its decoder reads it. Blocks are full but for the last, so what a decoder sees does not depend on how the blob arrived.
pub(crate) struct Blocks {
    arriving: Receiver<Vec<u8>>,
    used: Sender<Vec<u8>>,
    block: Vec<u8>,
    read: usize,
    offset: u64,
}

impl Blocks {
    pub(crate) fn new(arriving: Receiver<Vec<u8>>, used: Sender<Vec<u8>>) -> Self {
        Self { arriving, used, block: Vec::new(), read: 0, offset: 0 }
    }

    /// Offset in the blob of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes; none at the blob's end.
    pub(crate) fn bytes(&mut self) -> &[u8] {
        if self.read == self.block.len() {
            self.next_block();
        }
        &self.block[self.read..]
    }

    /// The next bytes, `count` or more of them unless the blob ends before.
    pub(crate) fn at_least(&mut self, count: usize) -> &[u8] {
        while self.block.len() - self.read < count {
            let kept = self.block.split_off(self.read);
            if !self.next_block() {
                (self.block, self.read) = (kept, 0);
                break;
            }
            self.block.splice(..0, kept);
        }
        &self.block[self.read..]
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.read += bytes;
        self.offset += bytes as u64;
    }

    /// Lets the rest of the blob pass, so that all of it is hashed.
    pub(crate) fn drain(&mut self) {
        while self.next_block() {}
    }

    fn next_block(&mut self) -> bool {
        self.read = 0;
        let Ok(block) = self.arriving.recv() else {
            self.block.clear();
            return false;
        };
        // The reader may be done already; then nobody wants the buffer.
        let _ = self.used.send(std::mem::replace(&mut self.block, block));
        true
    }
}

/// Where decoding can start, as the decoder meets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PointStart {
    pub(crate) blob_offset: u64,
    pub(crate) codec: Codec,
    /// The decoder's last 32 KiB of output, as they are.
    pub(crate) window: Vec<u8>,
}

/// The next bytes of data space. Only the first may belong to a new point.
pub(crate) struct Piece {
    pub(crate) point: Option<PointStart>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

/// Data space as its decoder writes it.
pub(crate) struct PieceWriter {
    leaving: SyncSender<Piece>,
    unused: Receiver<Vec<u8>>,
    point: Option<PointStart>,
    buffer: Vec<u8>,
    filled: usize,
    offset: u64,
    point_offset: u64,
    bytes_max: u64,
}

impl PieceWriter {
    /// `unused` must hold the buffers that go round; see [`piece_buffers`]. More than `bytes_max` are refused.
    pub(crate) fn new(leaving: SyncSender<Piece>, unused: Receiver<Vec<u8>>, bytes_max: u64) -> Self {
        Self { leaving, unused, point: None, buffer: Vec::new(), filled: 0, offset: 0, point_offset: 0, bytes_max }
    }

    /// Bytes since the last point.
    pub(crate) fn since_point(&self) -> u64 {
        self.offset - self.point_offset
    }

    /// Room for the next bytes; never empty.
    pub(crate) fn room(&mut self) -> Result<&mut [u8], Stopped> {
        if self.filled == self.buffer.len() {
            self.send()?;
            self.buffer = self.unused.recv().map_err(|_| Stopped::ByNeighbour)?;
            self.buffer.resize(limits::PIECE_BYTES, 0);
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// Counts bytes that were written to the room's start.
    pub(crate) fn advance(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.filled += bytes;
        self.offset += bytes as u64;
        if self.offset > self.bytes_max {
            return Err(IndexError::limit("decoded bytes", self.bytes_max).into());
        }
        Ok(())
    }

    /// What follows starts at a point, unless nothing follows.
    pub(crate) fn start_point(&mut self, point: PointStart) -> Result<(), Stopped> {
        self.send()?;
        self.point.get_or_insert(point);
        self.point_offset = self.offset;
        Ok(())
    }

    /// Sends what is left.
    pub(crate) fn finish(mut self) -> Result<(), Stopped> {
        self.send()
    }

    fn send(&mut self) -> Result<(), Stopped> {
        if self.filled == 0 {
            return Ok(());
        }
        let piece = Piece { point: self.point.take(), buffer: std::mem::take(&mut self.buffer), filled: self.filled };
        self.filled = 0;
        self.leaving.send(piece).map_err(|_| Stopped::ByNeighbour)
    }
}

/// The buffers that go round. They get their length when they are first used: most layers are small and use one.
pub(crate) fn piece_buffers() -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat_with(Vec::new).take(limits::PIECES_IN_FLIGHT)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn blocks(parts: &[&[u8]]) -> (Blocks, Receiver<Vec<u8>>) {
        let (full, arriving) = mpsc::sync_channel(parts.len());
        let (used, free) = mpsc::channel();
        parts.iter().for_each(|part| full.send(part.to_vec()).unwrap());
        (Blocks::new(arriving, used), free)
    }

    #[test]
    fn blocks_are_joined_where_more_is_wanted_than_one_holds() {
        let (mut blob, _free) = blocks(&[b"abc", b"d", b"efg"]);
        assert_eq!(blob.bytes(), b"abc");
        blob.consume(2);
        assert_eq!(blob.at_least(3), b"cdefg");
        blob.consume(4);
        assert_eq!(blob.offset(), 6);
        assert_eq!(blob.bytes(), b"g");
        assert_eq!(blob.at_least(3), b"g", "the blob ends before");
        blob.consume(1);
        assert_eq!(blob.at_least(1), b"");
        assert_eq!(blob.bytes(), b"");
    }

    #[test]
    fn pieces_never_straddle_a_point_and_points_without_bytes_vanish() {
        let (leaving, pieces) = mpsc::sync_channel(limits::PIECES_IN_FLIGHT);
        let (free, unused) = mpsc::channel();
        piece_buffers().for_each(|buffer| free.send(buffer).unwrap());
        let mut out = PieceWriter::new(leaving, unused, u64::MAX);
        let point = |blob_offset| PointStart { blob_offset, codec: Codec::Stored, window: Vec::new() };
        let write = |out: &mut PieceWriter, bytes: &[u8]| {
            let room = out.room().unwrap_or_else(|_| panic!("there are buffers"));
            room[..bytes.len()].copy_from_slice(bytes);
            assert!(out.advance(bytes.len()).is_ok());
        };
        assert!(out.start_point(point(0)).is_ok());
        write(&mut out, b"ab");
        write(&mut out, b"c");
        assert!(out.start_point(point(10)).is_ok());
        write(&mut out, b"d");
        assert_eq!(out.since_point(), 1);
        assert!(out.start_point(point(20)).is_ok());
        assert!(out.finish().is_ok());
        let sent: Vec<_> =
            pieces.iter().map(|piece| (piece.point.as_ref().map(|point| point.blob_offset), piece.bytes().to_vec())).collect();
        assert_eq!(sent, [(Some(0), b"abc".to_vec()), (Some(10), b"d".to_vec())]);
    }
}
