//! The layers that a service has open: each once, however many images have it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snap_digest::Digest;
use snap_registry::{Blob, Client, Descriptor};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::background::Background;
use crate::blob_sources::BlobSources;
use crate::counted::CountedBlob;
use crate::error::{FsError, LayerError};
use crate::ladder::{Local, Shared, open_layer, open_local};
use crate::layer::Layer;
use crate::limits;
use crate::progress::Rung;
use crate::remote::RemoteLayer;
use crate::single_flight::SingleFlight;

/// Opens layers, keeps them open, and brings the rest of each in the background.
pub(crate) struct OpenLayers {
    client: Client,
    shared: Shared,
    runtime: tokio::runtime::Handle,
    /// Whether everything is fetched behind the reads.
    background: bool,
    /// Requests of the background of all layers at a time.
    slots: Arc<Semaphore>,
    held: Mutex<HashMap<Digest, Held>>,
    opening: SingleFlight<Digest, Result<Arc<Layer>, Arc<FsError>>>,
    /// Held while a layer is opened from the local store: no two at once for one digest.
    local: Mutex<()>,
}

struct Held {
    layer: Arc<Layer>,
    sources: Arc<BlobSources>,
    /// Of a layer that nobody asked for yet: until when it is kept for whoever will.
    expected_until: Option<Instant>,
    background: Option<AbortHandle>,
}

/// A layer that someone asked for.
struct Claimed {
    layer: Arc<Layer>,
    sources: Arc<BlobSources>,
    /// Whether nobody asked for it before.
    is_first: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(background) = &self.background {
            background.abort();
        }
    }
}

impl OpenLayers {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(client: Client, shared: Shared, background: bool) -> Arc<Self> {
        Arc::new(Self {
            client,
            shared,
            runtime: tokio::runtime::Handle::current(),
            background,
            slots: Arc::new(Semaphore::new(limits::BACKGROUND_RUNS_MAX)),
            held: Mutex::default(),
            opening: SingleFlight::new(),
            local: Mutex::default(),
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Digest, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layer, where it is open.
    pub(crate) fn get(&self, layer: &Digest) -> Option<Arc<Layer>> {
        self.held().get(layer).map(|held| Arc::clone(&held.layer))
    }

    /// Every layer that is open.
    pub(crate) fn all(&self) -> Vec<Arc<Layer>> {
        self.held().values().map(|held| Arc::clone(&held.layer)).collect()
    }

    /// What serving them has cost.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn blob(&self, descriptor: &Descriptor, reference: &str) -> Result<Arc<dyn Blob>, snap_registry::Error> {
        Ok(self.client.source(&reference.parse()?)?.blob(descriptor))
    }

    fn sources(&self, descriptor: &Descriptor, reference: &str) -> Result<Arc<BlobSources>, FsError> {
        Ok(BlobSources::new(reference, self.blob(descriptor, reference)?))
    }

    /// Opens a layer from the local store alone. Blocks on nothing but the disk, so the threads that answer the kernel may call it.
    ///
    /// # Errors
    /// [`LayerError::NotHere`] where its index is not in the store, and as the ladder's first rung.
    pub(crate) fn reopen(&self, remote: &RemoteLayer) -> Result<Arc<Layer>, FsError> {
        if let Some(layer) = self.get(&remote.digest) {
            return Ok(layer);
        }
        let _alone = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = self.get(&remote.digest) {
            return Ok(layer);
        }
        let sources = self.sources(&remote.descriptor(), &remote.reference)?;
        let lease = self.shared.cache.lease(&remote.digest)?;
        let blob = CountedBlob::new(Arc::clone(&sources) as Arc<dyn Blob>, Arc::clone(&self.shared.counters));
        match open_local(&self.shared, lease, remote.diff_id, blob, Rung::LocalIndex).map_err(|error| error.of(remote.digest))? {
            Local::Opened(layer) => Ok(self.hold(layer, sources, None)),
            Local::Absent(_) => Err(LayerError::NotHere.of(remote.digest)),
        }
    }

    /// Opens a layer that will be asked for, and keeps it for a while.
    pub(crate) async fn open_ahead(
        self: &Arc<Self>,
        descriptor: &Descriptor,
        diff_id: Digest,
        reference: &str,
    ) -> Result<(), Arc<FsError>> {
        if self.get(&descriptor.digest).is_none() {
            self.join(descriptor, diff_id, reference).await?;
        }
        Ok(())
    }

    /// Opens a layer by the whole ladder, and tells how it was opened for this caller. Whoever asks meanwhile for the same layer waits
    /// for the same work, which goes on when they go away.
    ///
    /// # Errors
    /// As the ladder.
    pub(crate) async fn open(
        self: &Arc<Self>,
        descriptor: &Descriptor,
        diff_id: Digest,
        reference: &str,
    ) -> Result<(Arc<Layer>, Rung), Arc<FsError>> {
        let was_closed = self.get(&descriptor.digest).is_none();
        if was_closed {
            self.join(descriptor, diff_id, reference).await?;
        }
        // Closed again by a removal that did not know of it.
        let claimed = self.claim(&descriptor.digest).ok_or_else(|| Arc::new(LayerError::NotHere.of(descriptor.digest)))?;
        claimed.sources.prefer(reference, || self.blob(descriptor, reference)).map_err(|error| Arc::new(error.into()))?;
        let opened_by = if was_closed || claimed.is_first { claimed.layer.rung() } else { Rung::LocalIndex };
        Ok((claimed.layer, opened_by))
    }

    /// A layer that is open, for good: from now on it is not only expected.
    fn claim(&self, layer: &Digest) -> Option<Claimed> {
        let mut held = self.held();
        let held = held.get_mut(layer)?;
        let is_first = held.expected_until.take().is_some();
        Some(Claimed { layer: Arc::clone(&held.layer), sources: Arc::clone(&held.sources), is_first })
    }

    async fn join(self: &Arc<Self>, descriptor: &Descriptor, diff_id: Digest, reference: &str) -> Result<Arc<Layer>, Arc<FsError>> {
        let climb = || {
            let (this, descriptor, reference) = (Arc::clone(self), descriptor.clone(), reference.to_owned());
            async move { this.climb(&descriptor, diff_id, &reference).await.map_err(Arc::new) }
        };
        self.opening.join(descriptor.digest, climb).await.unwrap_or_else(|error| Err(Arc::new(FsError::Panicked(error))))
    }

    async fn climb(self: &Arc<Self>, descriptor: &Descriptor, diff_id: Digest, reference: &str) -> Result<Arc<Layer>, FsError> {
        let sources = self.sources(descriptor, reference)?;
        let blob = Arc::clone(&sources);
        let layer = open_layer(self.shared.clone(), descriptor, diff_id, blob).await.map_err(|error| error.of(descriptor.digest))?;
        let until = Instant::now() + Duration::from_millis(limits::UNCLAIMED_LAYER_MS);
        Ok(self.hold(layer, sources, Some(until)))
    }

    /// What brings the rest of layers, within the bounds that hold for all of them together.
    pub(crate) fn background_of(&self, layers: &[Arc<Layer>]) -> Arc<Background> {
        Background::new(layers, Arc::clone(&self.shared.gate), Arc::clone(&self.slots))
    }

    /// Keeps a layer open. Where someone was quicker, theirs is the one that is shared.
    fn hold(&self, layer: Arc<Layer>, sources: Arc<BlobSources>, expected_until: Option<Instant>) -> Arc<Layer> {
        let mut held = self.held();
        if let Some(other) = held.get(&layer.digest()) {
            return Arc::clone(&other.layer);
        }
        let background = self.background.then(|| self.runtime.spawn(self.background_of(std::slice::from_ref(&layer)).run()).abort_handle());
        held.insert(layer.digest(), Held { layer: Arc::clone(&layer), sources, expected_until, background });
        layer
    }

    /// Closes every layer that is not among `in_use`, except those that were opened ahead of being asked for and may still be. Gives
    /// those that were closed.
    pub(crate) fn retain(&self, in_use: &HashSet<Digest>) -> Vec<Digest> {
        let now = Instant::now();
        let closed: Vec<Held> = {
            let mut held = self.held();
            held.extract_if(|digest, held| !in_use.contains(digest) && held.expected_until.is_none_or(|until| until < now))
                .map(|(_, held)| held)
                .collect()
        };
        closed.iter().map(|held| held.layer.digest()).collect()
    }
}
