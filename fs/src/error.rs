//! Why a layer, an image or a mount cannot be had; and what a reader is told.

use std::path::PathBuf;
use std::sync::Arc;

use snap_digest::Digest;

/// What can fail between a reference and a mounted tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// The registry, or the OCI layout.
    #[error(transparent)]
    Registry(#[from] snap_registry::Error),
    /// The local store.
    #[error(transparent)]
    Cache(#[from] snap_cache::Error),
    /// The image's layers do not make a tree.
    #[error("the image's layers do not make a file system: {0}")]
    Tree(#[source] snap_index::IndexError),
    /// One layer.
    #[error("layer {}: {source}", layer.short())]
    Layer {
        /// Its digest.
        layer: Digest,
        /// Why.
        source: Box<LayerError>,
    },
    /// Mounting or unmounting.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A worker ended before its work did.
    #[error("a worker thread failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// Why a layer cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Its blob cannot be fetched.
    #[error(transparent)]
    Registry(#[from] snap_registry::Error),
    /// Its bytes are not what they must be.
    #[error(transparent)]
    Index(#[from] snap_index::IndexError),
    /// Its files in the local store.
    #[error(transparent)]
    Cache(#[from] snap_cache::Error),
    /// Its media type is none that can be served.
    #[error("layers of type {media_type:?} cannot be mounted")]
    MediaType {
        /// As the manifest has it.
        media_type: String,
    },
    /// What it unpacks to is not what the image's configuration says.
    #[error("it unpacks to {found}, the image's configuration says {wanted}")]
    DiffId {
        /// Of the stream.
        found: Digest,
        /// Of the configuration.
        wanted: Digest,
    },
    /// Two layers share a node number prefix. One in 10^11 pairs does.
    #[error("its node numbers collide with those of layer {}; it cannot be mounted together with that one", other.short())]
    NumberCollision {
        /// The other layer.
        other: Digest,
    },
    /// A worker ended before its work did.
    #[error("a worker thread failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl LayerError {
    pub(crate) fn of(self, layer: Digest) -> FsError {
        FsError::Layer { layer, source: Box::new(self) }
    }
}

/// Why a tree cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is no /dev/fuse, or it may not be opened.
    #[error("cannot open /dev/fuse: {0}\nhint: load the fuse module (modprobe fuse); in a container, give it --device /dev/fuse")]
    Device(#[source] std::io::Error),
    /// mount(2) or fusermount3 failed.
    #[error("cannot mount at {}: {source}", dir.display())]
    Mount {
        /// The mount point.
        dir: PathBuf,
        /// The kernel's, or fusermount3's answer.
        source: std::io::Error,
    },
    /// umount(2) or fusermount3 failed.
    #[error("cannot unmount {}: {source}", dir.display())]
    Unmount {
        /// The mount point.
        dir: PathBuf,
        /// The kernel's, or fusermount3's answer.
        source: std::io::Error,
    },
    /// The session ended with an error.
    #[error("serving {} ended: {source}", dir.display())]
    Session {
        /// The mount point.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Why a read of file data fails. Many readers may wait for one fetch, so it can be cloned.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing came in time.
    #[error("no data within {waited_ms} ms")]
    Deadline {
        /// How long the reader waited.
        waited_ms: u64,
    },
    /// The fetch failed.
    #[error(transparent)]
    Fetch(Arc<LayerError>),
    /// The local store failed.
    #[error("the local store: {0}")]
    Store(Arc<snap_cache::Error>),
    /// The fetch ended without a result: the daemon is stopping.
    #[error("the fetch was given up")]
    GivenUp,
}

impl ReadError {
    /// What the reader gets. Everything is EIO but a store that is full: a program can act on ENOSPC only where it writes, so a reader
    /// gets EIO for that too, and the log says which it was.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Deadline { .. } | Self::Fetch(_) | Self::Store(_) | Self::GivenUp => libc::EIO,
        }
    }
}
