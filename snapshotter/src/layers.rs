//! The seam to whoever serves layers: this crate says which ones are wanted and which are still named, and nothing of how they
//! are fetched or shown.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
pub use snap_fs::{LowerDirectory, Opened, Run};
use snap_fs::{RemoteLayer, WantedLayer};

/// Opens layers, shows runs of them as directories, and drops what no snapshot names any more.
#[async_trait]
pub trait Layers: Send + Sync + 'static {
    /// Makes the layer servable, and says what a record must keep of it and how it was opened. May take minutes where the layer has to be read through.
    ///
    /// The future is dropped when the client goes away; a later call for the same layer starts over or joins what still runs.
    /// Asked again for a layer that is open, it answers without work. Two calls for one chain ID are never made at once.
    async fn open(&self, wanted: &WantedLayer) -> Result<Opened, OpenError>;

    /// The directory that shows `run` merged into one tree, for use as a `lowerdir`.
    ///
    /// Needs no network for layers that are complete. The path is the same every time for the same run; it should be
    /// short, because all lowers of a mount share one page.
    async fn lower(&self, run: &Run) -> Result<LowerDirectory, OpenError>;

    /// What the layer takes on the local disk now. Zeros for a layer that is not there.
    async fn usage(&self, layer: &RemoteLayer) -> LayerUsage;

    /// Called after removals: layers and runs that `in_use` does not name may go. Must be quick; slow deleting belongs elsewhere.
    ///
    /// While it runs nothing else takes effect: an `open` or `lower` that overlaps it is repeated afterwards.
    async fn retain(&self, in_use: &InUse);
}

/// What the snapshots there are need.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InUse {
    /// Every layer that a snapshot stands for, once each.
    pub layers: Vec<RemoteLayer>,
    /// Every run that the mounts of an active snapshot or a view contain, once each.
    pub runs: Vec<Run>,
}

/// What something takes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LayerUsage {
    /// Allocated bytes.
    pub size_bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Why a layer or a run is not served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be served lazily here: containerd is to unpack it as usual.
    #[error("{reason}")]
    Unservable {
        /// What stands in the way, for people.
        reason: String,
    },
    /// It could be served, but not now, or something broke on the way.
    #[error("{doing}")]
    Failed {
        /// What was tried, as in `cannot read the manifest of docker.io/library/busybox`.
        doing: String,
        /// Whether the same call may succeed later: the network, a deadline, a full queue.
        temporary: bool,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
