//! What can keep an image from being pulled.

use std::io;
use std::path::PathBuf;

use snap_digest::Digest;

use crate::containerd::ContainerdError;

/// Why an image is not pulled. Messages end in `hint: …` where a person can act.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry's, or the way to it.
    #[error(transparent)]
    Registry(snap_registry::Error),
    /// The registry does not say whether there is such a repository, or lets nobody in without credentials.
    #[error("pull access denied for {repository}, repository does not exist or may require 'snap login' or 'docker login'")]
    AccessDenied {
        /// The repository, as docker writes it.
        repository: String,
        /// What the registry said.
        #[source]
        source: snap_registry::Error,
    },
    /// The registry asks for a name and a password, and there are none for it.
    #[error("no basic auth credentials")]
    NoCredentials {
        /// What the registry said.
        #[source]
        source: snap_registry::Error,
    },
    /// Docker's first manifest format.
    #[error(
        "{reference} is a docker schema 1 image, a format deprecated since 2015, which nothing verifies\nhint: push it again with a current \
         client, or convert it here with --allow-schema1"
    )]
    Schema1 {
        /// The image.
        reference: String,
    },
    /// A schema 1 image that cannot be converted.
    #[error("cannot convert the schema 1 image: {0}")]
    Conversion(#[source] snap_registry::DocumentError),
    /// containerd's.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// containerd does not know the snapshotter.
    #[error("containerd has no snapshotter {name:?}; it has {}\nhint: docs/CONTAINERD.md says how to add snap to its configuration", there.join(", "))]
    UnknownSnapshotter {
        /// The one asked for.
        name: String,
        /// Those there are.
        there: Vec<String>,
    },
    /// What containerd has unpacked is not what the configuration says.
    #[error("layer {layer} unpacks to {found}, and the image's configuration says {wanted}")]
    DiffId {
        /// The layer's blob.
        layer: Digest,
        /// What it unpacks to.
        found: Digest,
        /// What it must unpack to.
        wanted: Digest,
    },
    /// Another client keeps a blob or a document.
    #[error("another client has been fetching {layer} for too long")]
    Busy {
        /// Its digest.
        layer: Digest,
    },
    /// The snapshotter neither has a layer nor prepares it.
    #[error("the snapshotter neither has {chain_id} nor makes it, after {tries} tries")]
    Unprepared {
        /// The layer's chain ID.
        chain_id: Digest,
        /// How often it was asked.
        tries: u32,
    },
    /// A lock that keeps two pulls from doing the same work.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another pull holds a layer.
    #[error("another pull has been busy with {chain_id} for too long")]
    Held {
        /// The layer's chain ID.
        chain_id: Digest,
    },
    /// The image is there, and the snapshotter has not all of its layers.
    #[error("{name} is not unpacked for the snapshotter {snapshotter}\nhint: snap pull --snapshotter {snapshotter} {name}")]
    NotUnpacked {
        /// Its name.
        name: String,
        /// The snapshotter.
        snapshotter: String,
    },
    /// There is no such image.
    #[error("there is no image {name} in namespace {namespace}\nhint: snap pull {name}")]
    NoImage {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// A task of the pull has ended before its work.
    #[error("the pull was stopped")]
    Stopped,
}

impl From<snap_registry::Error> for PullError {
    fn from(error: snap_registry::Error) -> Self {
        Self::Registry(error)
    }
}

impl From<tokio::task::JoinError> for PullError {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::Stopped
    }
}
