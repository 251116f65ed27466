//! Why a layer, a TOC or an index file is refused.

use crate::limits;

/// Why bytes could not become, or are not, a layer index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The index file is not one, or is damaged.
    #[error("not a valid layer index: {what} (at byte {at})")]
    Damaged {
        /// The rule that does not hold.
        what: &'static str,
        /// Where in the file.
        at: u64,
    },
    /// The index file was written by another version of this format.
    #[error("the layer index has format version {found}, this program reads {supported}")]
    Version {
        /// The file's version.
        found: u32,
        /// The version that is read here.
        supported: u32,
    },
    /// The index file describes another layer.
    #[error("the layer index is for {found}, not for {wanted}")]
    OtherLayer {
        /// What the file says.
        found: snap_digest::Digest,
        /// What was asked for.
        wanted: snap_digest::Digest,
    },
    /// A bound of [`limits`] was passed.
    #[error("the layer has too much of one thing: {what} over {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is accepted.
        limit: u64,
    },
    /// An entry's path cannot exist in a file system.
    #[error("entry {path:?} cannot exist: {why}")]
    Path {
        /// The entry, clipped.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// An entry's own values contradict each other.
    #[error("entry {path:?} is malformed: {why}")]
    Entry {
        /// The entry, clipped.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// An entry is of a type that no file system has.
    #[error("entry {path:?} has the tar type {typeflag:?}, which cannot be shown")]
    EntryType {
        /// The entry, clipped.
        path: String,
        /// The header's type byte.
        typeflag: char,
    },
    /// A tar stream breaks the format.
    #[error("malformed tar stream at offset {at}: {why}")]
    Tar {
        /// Offset in the uncompressed stream.
        at: u64,
        /// The rule.
        why: &'static str,
    },
    /// A compressed stream breaks its format.
    #[error("malformed {format} stream at compressed offset {at}: {why}")]
    Compressed {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// Offset in the blob.
        at: u64,
        /// The decoder's words.
        why: String,
    },
    /// The stream ended before it was whole.
    #[error("the {format} stream is cut off after {at} bytes")]
    Truncated {
        /// `tar`, `gzip` or `zstd`.
        format: &'static str,
        /// Bytes there were.
        at: u64,
    },
    /// A table of contents breaks its format.
    #[error("malformed table of contents: {0}")]
    Toc(#[from] TocError),
    /// What was decoded or read does not have the digest it must have.
    #[error("{what} has digest {found}, not {wanted}")]
    Digest {
        /// What was checked.
        what: &'static str,
        /// The digest of the bytes that came.
        found: snap_digest::Digest,
        /// The digest they must have.
        wanted: snap_digest::Digest,
    },
    /// A chunk's bytes are not the ones the index vouches for.
    #[error("chunk {chunk} does not have the digest that the index gives")]
    ChunkDigest {
        /// The chunk's number.
        chunk: u32,
    },
    /// The blob is not as long as its descriptor says.
    #[error("the blob has {found} bytes or more, not {wanted}")]
    BlobBytes {
        /// Bytes that came until it was clear.
        found: u64,
        /// The length it must have.
        wanted: u64,
    },
    /// A part of the streaming pass died. A bug, but of one layer only.
    #[error("the {stage} of the streaming pass panicked")]
    Panicked {
        /// Which part.
        stage: &'static str,
    },
    /// Reading the compressed stream, or writing the decoded one, failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Why a foreign table of contents is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TocError {
    /// The footer is none that is known.
    #[error("no known footer")]
    NoFooter,
    /// The footer or the TOC points outside of the blob.
    #[error("{what} lies outside of the blob")]
    OutOfBlob {
        /// What does.
        what: &'static str,
    },
    /// The TOC is not the JSON it must be.
    #[error("not the JSON it must be: {0}")]
    Json(#[from] serde_json::Error),
    /// An entry is impossible.
    #[error("entry {name:?}: {why}")]
    Entry {
        /// The entry's name, clipped.
        name: String,
        /// The rule.
        why: &'static str,
    },
    /// The TOC as a whole is impossible.
    #[error("{0}")]
    Rule(&'static str),
}

impl IndexError {
    pub(crate) fn limit(what: &'static str, limit: u64) -> Self {
        Self::Limit { what, limit }
    }

    pub(crate) fn path(path: &[u8], why: &'static str) -> Self {
        Self::Path { path: shown(path), why }
    }

    pub(crate) fn entry(path: &[u8], why: &'static str) -> Self {
        Self::Entry { path: shown(path), why }
    }
}

/// A path as a message shows it: lossy, and clipped.
pub(crate) fn shown(path: &[u8]) -> String {
    let clip = path.len().min(limits::NAME_BYTES_MAX);
    String::from_utf8_lossy(&path[..clip]).into_owned()
}
