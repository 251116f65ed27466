//! How far the opening of an image is, for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use snap_digest::Digest;

/// How a layer was opened, or is being opened: the rungs of the ladder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Its index was here already.
    LocalIndex,
    /// It came with a table of contents (eStargz).
    Estargz,
    /// It was streamed once, whole.
    StreamingPass,
}

/// One layer that is being streamed.
#[derive(Debug)]
pub struct LayerProgress {
    /// The layer.
    pub layer: Digest,
    /// Size of its blob.
    pub total_bytes: u64,
    done_bytes: AtomicU64,
}

impl LayerProgress {
    pub(crate) fn add(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Relaxed);
    }

    /// Compressed bytes that were read so far.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Relaxed)
    }
}

/// What is being streamed while an image is opened. Cheap to look at as often as one likes.
#[derive(Default, Debug)]
pub struct Progress {
    layers: Mutex<Vec<Arc<LayerProgress>>>,
}

impl Progress {
    /// The layers that are or were streamed, in the order they began.
    pub fn layers(&self) -> Vec<Arc<LayerProgress>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn begin(&self, layer: Digest, total_bytes: u64) -> Arc<LayerProgress> {
        let progress = Arc::new(LayerProgress { layer, total_bytes, done_bytes: AtomicU64::new(0) });
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&progress));
        progress
    }
}
