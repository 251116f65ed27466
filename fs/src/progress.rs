//! How far the opening of layers is, for whoever watches.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// What is being streamed while layers are opened. Cheap to look at as often as one likes.
#[derive(Default, Debug)]
pub struct Progress {
    layers: Mutex<Vec<Arc<LayerProgress>>>,
    /// Whether what has ended leaves the list.
    forgets: bool,
}

impl Progress {
    /// One for a process that opens layers for as long as it lives: only what is streamed now is in it.
    pub(crate) fn of_now() -> Arc<Self> {
        Arc::new(Self { forgets: true, ..Self::default() })
    }

    /// The layers that are or were streamed, in the order they began.
    pub fn layers(&self) -> Vec<Arc<LayerProgress>> {
        self.list().clone()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<LayerProgress>>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A layer begins to be streamed; that ends when what this gives is dropped.
    pub(crate) fn begin(self: &Arc<Self>, layer: Digest, total_bytes: u64) -> Streaming {
        let layer = Arc::new(LayerProgress { layer, total_bytes, done_bytes: AtomicU64::new(0) });
        self.list().push(Arc::clone(&layer));
        Streaming { layer, progress: Arc::clone(self) }
    }
}

/// A layer that is being streamed, by whoever streams it.
pub(crate) struct Streaming {
    layer: Arc<LayerProgress>,
    progress: Arc<Progress>,
}

impl Deref for Streaming {
    type Target = LayerProgress;

    fn deref(&self) -> &LayerProgress {
        &self.layer
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if self.progress.forgets {
            self.progress.list().retain(|layer| !Arc::ptr_eq(layer, &self.layer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_leaves_the_list_of_now_and_stays_in_the_other() {
        let (now, all) = (Progress::of_now(), Arc::<Progress>::default());
        for (progress, left) in [(now, 1), (all, 2)] {
            // The same layer twice, as when a second try begins before the first is gone.
            let (first, second) = (progress.begin(Digest::of(b"layer"), 10), progress.begin(Digest::of(b"layer"), 10));
            second.add(3);
            drop(first);
            assert_eq!(progress.layers().len(), left);
            assert_eq!(progress.layers()[left - 1].done_bytes(), 3);
        }
    }
}
