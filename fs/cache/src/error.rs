//! What can go wrong in the local store.

use std::io;
use std::path::{Path, PathBuf};

use snap_digest::Digest;

/// Why the local store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// The device or the quota is full.
    #[error("no space left to write {}\nhint: free space on that file system, or prune the cache", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// The cache directory, or something in it, cannot be written.
    #[error("{} is not writable\nhint: use a cache directory that this user can write, on a file system mounted read-write", path.display())]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// The directory holds something else.
    #[error("{} is not a snap cache: it is not empty and has no version file\nhint: name an empty directory, or one that does not exist yet", path.display())]
    NotACache {
        /// The directory.
        path: PathBuf,
    },
    /// The cache was written by a newer release.
    #[error("the cache {} has version {found}, this program knows versions up to {supported}\nhint: use a newer snap, or another cache directory", path.display())]
    NewerVersion {
        /// The directory.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },
    /// The version file says nothing known.
    #[error("{} does not hold the version of a snap cache\nhint: remove the cache directory, or name another one", path.display())]
    BadVersionFile {
        /// The version file.
        path: PathBuf,
    },
    /// The kernel's boot ID could not be read, without which no chunk could be trusted.
    #[error("cannot read the boot ID from {}\nhint: mount procfs on /proc", path.display())]
    BootId {
        /// Where it was looked for.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// The layer is leased and cannot be evicted.
    #[error("layer {layer} is in use\nhint: unmount the images that use it first")]
    InUse {
        /// The layer.
        layer: Digest,
    },
    /// The layer has no directory in this cache.
    #[error("layer {layer} is not in the cache")]
    NotCached {
        /// The layer.
        layer: Digest,
    },
    /// Another process was still building or changing the layer when the deadline passed.
    #[error("layer {layer} is still being built by another process")]
    Busy {
        /// The layer.
        layer: Digest,
    },
    /// The layer's index is not the one this lease read or built: another process discarded it, or none was read.
    #[error("the index of layer {layer} was replaced or never read")]
    IndexChanged {
        /// The layer.
        layer: Digest,
    },
    /// A document's bytes do not have the digest they were given under.
    #[error("document {expected} has the digest {actual}")]
    DocumentMismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// Something is larger than this crate stores.
    #[error("{what} of {size_bytes} bytes is larger than {limit_bytes} bytes, the most that is stored")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The layer has more chunks than a presence map is made for.
    #[error("a layer of {count} chunks has more than {limit}, the most that is stored")]
    TooManyChunks {
        /// How many it has.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// The chunk number is not below the layer's chunk count.
    #[error("chunk {chunk} of a layer of {count} chunks")]
    NoSuchChunk {
        /// The chunk number.
        chunk: u32,
        /// How many there are.
        count: u32,
    },
    /// A chunk's bytes are not as many as its range.
    #[error("chunk {chunk} is {expected_bytes} bytes long, not {actual_bytes}")]
    ChunkLength {
        /// The chunk number.
        chunk: u32,
        /// The length of its range.
        expected_bytes: u64,
        /// The length that was given.
        actual_bytes: u64,
    },
    /// Other processes removed a file as often as it was made.
    #[error("gave up on {}: other processes remove it each time it is made", path.display())]
    Contended {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// Sorts the answers on which a person can act from the others.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::NotWritable { path, source },
            _ => Self::Io { action, path, source },
        }
    }
}
