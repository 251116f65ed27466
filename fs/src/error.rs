//! Why a layer, an image or a mount cannot be had; and what a reader is told.

use std::path::PathBuf;
use std::sync::Arc;

use snap_digest::Digest;
use snap_index::IndexError;
use snap_registry::ErrorKind;

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
    Tree(#[source] IndexError),
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
    /// The image that a client names does not have the layer it wants.
    #[error("{image} has no layer that completes {chain_id}")]
    NotInImage {
        /// The image.
        image: String,
        /// The chain ID that was wanted.
        chain_id: Digest,
    },
    /// The manifest of the image that a client names cannot be had.
    #[error("cannot find {image}: {why}")]
    NoManifest {
        /// The image.
        image: String,
        /// The registry's answer, which may be an earlier one.
        why: String,
    },
    /// Layers that the service has not.
    #[error("the service has no layer {}", listed(layers))]
    UnknownLayers {
        /// Their digests, as far as they were looked for.
        layers: Vec<Digest>,
    },
    /// Not all of a layer can be brought here.
    #[error("layer {}: the rest of it cannot be had: {source}", layer.short())]
    Incomplete {
        /// Its digest.
        layer: Digest,
        /// What stands in the way.
        source: ReadError,
    },
    /// A worker ended before its work did.
    #[error("a worker thread failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
    /// The worker that several waited for ended before its work did.
    #[error("a worker thread failed: {0}")]
    Panicked(Arc<tokio::task::JoinError>),
}

impl FsError {
    /// Whether unpacking the layer as usual may work where serving it does not.
    ///
    /// False for what would fail there too (bytes that are not what the manifest says) and for what went wrong on this machine.
    pub fn is_unservable(&self) -> bool {
        match self {
            Self::NotInImage { .. } | Self::NoManifest { .. } | Self::Tree(_) => true,
            Self::Layer { source, .. } => match &**source {
                LayerError::MediaType { .. } | LayerError::NumberCollision { .. } => true,
                LayerError::Registry(error) => matches!(error.kind(), ErrorKind::NotFound),
                LayerError::Index(error) => is_beyond_us(error),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the same may succeed later without anyone changing anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_temporary(),
            Self::Layer { source, .. } => source.is_temporary(),
            Self::Incomplete { source, .. } => source.is_temporary(),
            _ => false,
        }
    }
}

fn listed(layers: &[Digest]) -> String {
    layers.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether another reader of the format may make more of the same bytes.
fn is_beyond_us(error: &IndexError) -> bool {
    matches!(
        error,
        IndexError::Limit { .. }
            | IndexError::Path { .. }
            | IndexError::Entry { .. }
            | IndexError::EntryType { .. }
            | IndexError::Tar { .. }
            | IndexError::Compressed { .. }
    )
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
    Index(#[from] IndexError),
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
    /// It is not in the local store.
    #[error("its index is not in the local store")]
    NotHere,
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
    fn is_temporary(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_temporary(),
            Self::Cache(error) => is_passing(error),
            _ => false,
        }
    }

    pub(crate) fn of(self, layer: Digest) -> FsError {
        FsError::Layer { layer, source: Box::new(self) }
    }
}

/// Whether the store may do the same later.
fn is_passing(error: &snap_cache::Error) -> bool {
    matches!(error, snap_cache::Error::Busy { .. } | snap_cache::Error::NoSpace { .. })
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
    /// Whether the same read may succeed later without anyone changing anything.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Deadline { .. } | Self::GivenUp => true,
            Self::Fetch(error) => error.is_temporary(),
            Self::Store(error) => is_passing(error),
        }
    }

    /// What the reader gets. Everything is EIO but a store that is full: a program can act on ENOSPC only where it writes, so a reader
    /// gets EIO for that too, and the log says which it was.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Deadline { .. } | Self::Fetch(_) | Self::Store(_) | Self::GivenUp => libc::EIO,
        }
    }
}

/// Why a FUSE connection cannot be mounted, taken over or served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Mounting it, or clearing away what was mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It has ended.
    #[error("the FUSE connection is gone: it was unmounted or aborted")]
    Gone,
    /// The descriptor is not that of a FUSE connection.
    #[error("what was kept is no descriptor of /dev/fuse")]
    NotFuse,
    /// What an earlier daemon has read and not answered would never be answered.
    #[error("the kernel cannot repeat requests that an earlier daemon left unanswered\nhint: Linux 6.9 and later can")]
    NoResend,
    /// The file that keeps the handshake cannot be read or written.
    #[error("the handshake of the FUSE connection, {}: {source}", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file that keeps the handshake is damaged.
    #[error("{} holds no handshake of a FUSE connection: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file is of another boot, of another version of the program, or of another connection.
    #[error("{} holds the handshake of another FUSE connection", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The kernel's first request is not one that is understood.
    #[error("the kernel began with request {opcode} of FUSE protocol {major}.{minor}; FUSE_INIT (26) of protocol 7 is needed")]
    Protocol {
        /// Of the request.
        opcode: u32,
        /// Of the protocol.
        major: u32,
        /// Of the protocol.
        minor: u32,
    },
    /// The session did not agree to what the kernel offered.
    #[error("the FUSE handshake failed: {}", std::io::Error::from_raw_os_error(*errno))]
    Refused {
        /// Its answer; 0 if it was no answer.
        errno: i32,
    },
    /// This program would agree to less than an earlier one has agreed to.
    #[error(
        "an earlier version of this program agreed with the kernel on what this one does not: flags {dropped_flags:#x}, \
         requests of {agreed_write_bytes} bytes where this one takes {write_bytes}"
    )]
    Renegotiated {
        /// Bits of the protocol's flags that are missing now.
        dropped_flags: u64,
        /// Largest write that was agreed on.
        agreed_write_bytes: u32,
        /// Largest write that would be agreed on now.
        write_bytes: u32,
    },
    /// The descriptor of the connection.
    #[error("the FUSE connection: {0}")]
    Device(#[source] std::io::Error),
    /// The session that is to serve it.
    #[error("the FUSE session: {0}")]
    Session(#[source] std::io::Error),
}

/// Why a connection's descriptor cannot be given to, or had from, who keeps it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The keeper cannot be started.
    #[error("cannot start the keeper of the FUSE connection: {0}")]
    Start(#[source] std::io::Error),
    /// The keeper ended, or was ended, before it was ready.
    #[error("the keeper of the FUSE connection was not ready in time ({0})")]
    NotReady(std::process::ExitStatus),
    /// The keeper's own process.
    #[error("the keeper of the FUSE connection: {0}")]
    Process(#[source] std::io::Error),
    /// The keeper was given something else.
    #[error("the keeper was given no descriptor of /dev/fuse")]
    NotFuse,
    /// The keeper's socket.
    #[error("the socket of the FUSE connection's keeper, {}: {source}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The notification socket, or the environment, of the service manager.
    #[error("the service manager: {0}")]
    ServiceManager(#[source] std::io::Error),
}
