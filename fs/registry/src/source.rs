//! The seam: where an image's documents and blobs come from.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use snap_digest::Digest;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::limits::{DOCUMENT_MAX_BYTES, READ_MAX_BYTES, SMALL_BLOB_MAX_BYTES};

/// The bytes of a range, in order, in pieces of any size but 0.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// One image's place: a repository in a registry, or an OCI layout.
#[async_trait]
pub trait Source: Send + Sync {
    /// The canonical reference, for messages and as the key of a local record. It holds no secret.
    fn name(&self) -> String;

    /// The digest that the reference names, if it names one: what it resolves to is known without asking.
    fn pinned(&self) -> Option<Digest>;

    /// What the reference names now: a manifest or an index.
    ///
    /// Of a reference with a digest the tag is not looked at.
    async fn resolve(&self) -> Result<Descriptor, Error>;

    /// The manifest or index named by `descriptor`, at most [`DOCUMENT_MAX_BYTES`]; digest and size are verified.
    async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, Error>;

    /// A blob that is read whole, such as an image configuration, at most [`SMALL_BLOB_MAX_BYTES`]; digest and size are verified.
    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, Error>;

    /// The size of a blob that only its digest names, as the source says: what comes may still be something else.
    async fn blob_size(&self, digest: &Digest) -> Result<u64, Error>;

    /// A blob by range. Nothing is asked of the registry until bytes are.
    fn blob(&self, descriptor: &Descriptor) -> Arc<dyn Blob>;
}

/// A blob whose bytes can be had by range.
#[async_trait]
pub trait Blob: Send + Sync {
    /// The digest that names the blob.
    fn digest(&self) -> Digest;

    /// Its size, as its descriptor says.
    fn size_bytes(&self) -> u64;

    /// Exactly the bytes of `range`, as they come, or an error; a body that breaks off is resumed where it broke.
    ///
    /// The bytes are **not verified**: no digest is known for a range here. Dropping the stream ends the transfer.
    async fn stream(&self, range: Range<u64>) -> Result<ByteStream, Error>;

    /// The bytes of `range` in one piece, at most [`READ_MAX_BYTES`]. As unverified as those of [`Blob::stream`].
    async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        in_bounds(self.digest(), self.size_bytes(), &range)?;
        let length = range.end - range.start;
        let what = || format!("a range of blob {}", self.digest());
        bounded(what, length, READ_MAX_BYTES)?;
        let mut stream = self.stream(range).await?;
        let mut whole = BytesMut::with_capacity(length as usize);
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            if piece.len() as u64 == length {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// Refuses a size over a limit.
pub(crate) fn bounded(what: impl FnOnce() -> String, size_bytes: u64, limit_bytes: u64) -> Result<(), Error> {
    if size_bytes <= limit_bytes { Ok(()) } else { Err(Error::TooLarge { what: what(), size_bytes, limit_bytes }) }
}

pub(crate) fn bounded_document(descriptor: &Descriptor) -> Result<(), Error> {
    bounded(|| format!("document {}", descriptor.digest), descriptor.size_bytes, DOCUMENT_MAX_BYTES)
}

pub(crate) fn bounded_small_blob(descriptor: &Descriptor) -> Result<(), Error> {
    bounded(|| format!("blob {}", descriptor.digest), descriptor.size_bytes, SMALL_BLOB_MAX_BYTES)
}

/// Refuses a range that does not lie in the blob.
pub(crate) fn in_bounds(digest: Digest, size_bytes: u64, range: &Range<u64>) -> Result<(), Error> {
    if range.start <= range.end && range.end <= size_bytes {
        Ok(())
    } else {
        Err(Error::OutOfBounds { digest, size_bytes, range: range.clone() })
    }
}
