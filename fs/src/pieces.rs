//! From an asynchronous body to a blocking `Read`: pieces cross a bounded channel, so the network never runs far ahead of the decoder.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use snap_registry::{Blob as _, ByteStream};
use tokio::sync::mpsc;

use crate::counted::CountedBlob;
use crate::limits;

pub(crate) type Piece = Result<Bytes, snap_registry::Error>;

/// Reads a blob's bytes from a known offset on. A registry error travels inside the `io::Error`; see [`registry_error`].
pub(crate) struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    /// Blob offset of the next byte.
    position: u64,
    /// The byte before `position`, for points that share one with their neighbour.
    last: Option<u8>,
    stepped_back: bool,
}

impl PieceReader {
    /// Must be read outside of the asynchronous threads.
    pub(crate) fn new(pieces: mpsc::Receiver<Piece>, position: u64) -> Self {
        Self { pieces, piece: Bytes::new(), position, last: None, stepped_back: false }
    }

    /// Moves on to `target`, at most one byte back.
    pub(crate) fn advance_to(&mut self, target: u64) -> io::Result<()> {
        if target + 1 == self.position && self.last.is_some() && !self.stepped_back {
            self.stepped_back = true;
            self.position = target;
            return Ok(());
        }
        if target < self.position {
            return Err(io::Error::other("a point lies before what was fetched"));
        }
        while self.position < target {
            if self.stepped_back {
                self.stepped_back = false;
                self.position += 1;
                continue;
            }
            if self.piece.is_empty() && !self.next_piece()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let skipped = self.piece.split_to(self.piece.len().min((target - self.position) as usize));
            self.last = skipped.last().copied();
            self.position += skipped.len() as u64;
        }
        Ok(())
    }

    fn next_piece(&mut self) -> io::Result<bool> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.stepped_back {
            self.stepped_back = false;
            self.position += 1;
            buffer[0] = self.last.unwrap_or_default();
            return Ok(1);
        }
        if !self.next_piece()? {
            return Ok(0);
        }
        let taken = self.piece.split_to(self.piece.len().min(buffer.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        self.last = taken.last().copied();
        self.position += taken.len() as u64;
        Ok(taken.len())
    }
}

/// Takes a registry error back out of what a decoder reports for a failed read.
pub(crate) fn registry_error(error: snap_index::IndexError) -> crate::error::LayerError {
    let snap_index::IndexError::Io(io) = error else { return error.into() };
    match io.downcast::<snap_registry::Error>() {
        Ok(registry) => registry.into(),
        Err(io) => snap_index::IndexError::Io(io).into(),
    }
}

/// Sends a body's pieces on; ends with the body, with its first error, or when nobody reads any more.
pub(crate) async fn forward(mut body: ByteStream, pieces: mpsc::Sender<Piece>) {
    while let Some(piece) = body.next().await {
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// Fetches one range as a reader for a blocking thread.
pub(crate) fn fetch_range(runtime: &tokio::runtime::Handle, blob: &Arc<CountedBlob>, range: std::ops::Range<u64>) -> PieceReader {
    let (sender, receiver) = mpsc::channel(limits::PIECES_AHEAD);
    let start = range.start;
    let blob = Arc::clone(blob);
    runtime.spawn(async move {
        // A reader that is gone must not leave its request waiting for a connection or a retry.
        tokio::select! {
            body = blob.stream(range) => match body {
                Ok(body) => forward(body, sender).await,
                Err(error) => drop(sender.send(Err(error)).await),
            },
            () = sender.closed() => {}
        }
    });
    PieceReader::new(receiver, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader over `bytes`, which start at blob offset 100 and come in pieces of three.
    fn reader(bytes: &'static [u8]) -> PieceReader {
        let (sender, receiver) = mpsc::channel(bytes.len());
        for piece in bytes.chunks(3) {
            sender.try_send(Ok(Bytes::from_static(piece))).unwrap();
        }
        PieceReader::new(receiver, 100)
    }

    fn take(reader: &mut PieceReader, bytes: u64) -> String {
        let mut text = String::new();
        reader.take(bytes).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn neighbouring_points_may_share_a_byte() {
        let mut reader = reader(b"0123456789");
        assert_eq!(take(&mut reader, 4), "0123");
        reader.advance_to(103).unwrap();
        assert_eq!(take(&mut reader, 3), "345");
        reader.advance_to(105).unwrap();
        reader.advance_to(107).unwrap();
        assert_eq!(take(&mut reader, 9), "789");
    }

    #[test]
    fn what_was_passed_is_not_read_again() {
        let mut reader = reader(b"0123456789");
        assert_eq!(take(&mut reader, 5), "01234");
        assert!(reader.advance_to(103).is_err());
        assert_eq!(reader.advance_to(200).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
