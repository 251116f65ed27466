//! From layers to snapshots, the lowest first: what the snapshotter has or serves is left to it, the rest is fetched and unpacked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use snap_digest::Digest;
use snap_registry::{Image, RegistryReference};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use crate::containerd::{Committed, Containerd, Mount, Prepared, Snapshots};
use crate::labels::{DECLINED_LABEL, opened_by};
use crate::limits;
use crate::pull::chain_lock::ChainLocks;
use crate::pull::download::Downloads;
use crate::pull::error::PullError;
use crate::pull::event::{Event, Outcome, Step};
use crate::pull::{Tell, Watch, labels};

/// The unpacking of one image.
pub(crate) struct Unpack {
    pub(crate) containerd: Containerd,
    pub(crate) snapshotter: String,
    /// The name of the image's record.
    pub(crate) name: String,
    pub(crate) reference: RegistryReference,
    pub(crate) image: Arc<Image>,
    pub(crate) downloads: Arc<Downloads>,
    pub(crate) locks: ChainLocks,
    pub(crate) watch: Option<Arc<dyn Watch>>,
    pub(crate) tell: Tell,
}

/// Blobs that are on their way. A layer that comes twice in an image is fetched once.
type Fetches = HashMap<Digest, AbortOnDropHandle<Result<(), PullError>>>;

/// What a lowest layer that is not there needs.
enum Need {
    Nothing(Outcome),
    /// To be unpacked here.
    Content {
        key: String,
        mounts: Vec<Mount>,
        declined: Option<String>,
    },
}

impl Unpack {
    fn snapshots(&self) -> Snapshots {
        self.containerd.snapshots(&self.snapshotter)
    }

    /// How many of the image's layers have their snapshot, from the lowest on. `lease` keeps them from now on.
    pub(crate) async fn hold_present(&self, lease: &str) -> Result<usize, PullError> {
        let snapshots = self.snapshots();
        // A snapshot keeps its parents, so the highest that is there answers for all below.
        for (place, chain_id) in self.image.config.chain_ids().iter().enumerate().rev() {
            let name = chain_id.to_string();
            if snapshots.stat(&name).await?.is_some() {
                self.containerd.hold_snapshot(lease, &self.snapshotter, &name).await?;
                return Ok(place + 1);
            }
        }
        Ok(0)
    }

    /// Brings the layers above the lowest `present` ones. Tells nothing of layers where all are present.
    pub(crate) async fn run(&self, present: usize) -> Result<(), PullError> {
        let count = self.image.manifest.layers.len();
        if present < count {
            (0..count).for_each(|place| self.tell(place, Step::Queued));
            (0..present).for_each(|place| self.tell(place, Step::Done(Outcome::AlreadyExists)));
        }
        let chain_ids = self.image.config.chain_ids();
        let mut fetches = Fetches::new();
        for (place, chain_id) in chain_ids.iter().enumerate().skip(present) {
            let parent = place.checked_sub(1).map(|below| chain_ids[below]);
            let outcome = self.layer(place, *chain_id, parent, &mut fetches).await?;
            self.tell(place, Step::Done(outcome));
        }
        let config = &self.image.manifest.config.digest;
        let kept = labels::of_config(&self.snapshotter, chain_ids.last());
        self.containerd.label_content(config, &kept).await?;
        Ok(())
    }

    fn tell(&self, place: usize, step: Step) {
        (self.tell)(Event::Layer { layer: self.image.manifest.layers[place].digest, step });
    }

    async fn layer(&self, place: usize, chain_id: Digest, parent: Option<Digest>, fetches: &mut Fetches) -> Result<Outcome, PullError> {
        let _lock = self.locks.wait(chain_id, || self.tell(place, Step::Waiting)).await?;
        let (key, mounts, declined) = match self.prepare(place, chain_id, parent).await? {
            Need::Nothing(outcome) => return Ok(outcome),
            Need::Content { key, mounts, declined } => (key, mounts, declined),
        };
        // A snapshotter that declines one layer may serve the next; one that only stores needs all of them.
        let layers = &self.image.manifest.layers;
        let last = if declined.is_some() { place } else { layers.len() - 1 };
        for (place, layer) in layers.iter().enumerate().take(last + 1).skip(place) {
            fetches.entry(layer.digest).or_insert_with(|| self.fetch(place));
        }
        if let Some(fetch) = fetches.remove(&layers[place].digest) {
            fetch.await??;
        }
        self.extract(place, chain_id, &key, &mounts).await?;
        Ok(declined.map_or(Outcome::Unpacked, |reason| Outcome::Declined { reason }))
    }

    fn fetch(&self, place: usize) -> AbortOnDropHandle<Result<(), PullError>> {
        let (downloads, tell) = (Arc::clone(&self.downloads), Arc::clone(&self.tell));
        let layer = self.image.manifest.layers[place].clone();
        let labels = labels::source(&self.reference, None);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let digest = layer.digest;
            downloads.fetch(place, &layer, &labels, |step| tell(Event::Layer { layer: digest, step })).await.map(drop)
        }))
    }

    /// Asks the snapshotter for the layer.
    async fn prepare(&self, place: usize, chain_id: Digest, parent: Option<Digest>) -> Result<Need, PullError> {
        let snapshots = self.snapshots();
        let name = chain_id.to_string();
        let parent = parent.map(|parent| parent.to_string());
        // The lock makes it ours alone, so whatever has this key was left by a pull that died.
        let key = format!("snap-pull {name}");
        let labels = labels::of_layer(&self.name, &self.image.manifest, place, &chain_id);
        for tries in 0..limits::PULL_PREPARE_TRIES {
            if snapshots.stat(&name).await?.is_some() {
                return Ok(Need::Nothing(Outcome::AlreadyExists));
            }
            match self.watched(snapshots.prepare(&key, parent.as_deref(), &labels)).await? {
                Prepared::Mounts(mounts) => {
                    let declined = snapshots.stat(&key).await?.and_then(|mut prepared| prepared.labels.remove(DECLINED_LABEL));
                    return Ok(Need::Content { key, mounts, declined });
                }
                Prepared::AlreadyExists => match snapshots.stat(&name).await? {
                    Some(served) => return Ok(Need::Nothing(Outcome::Lazy(opened_by(&served.labels)))),
                    None => {
                        tracing::debug!(key, tries, "an interrupted pull's snapshot is removed");
                        snapshots.remove(&key).await?;
                    }
                },
            }
        }
        Err(PullError::Unprepared { chain_id, tries: limits::PULL_PREPARE_TRIES })
    }

    /// Tells what the snapshotter reads while it is waited for.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(watch) = &self.watch else { return work.await };
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(Duration::from_millis(limits::PULL_WATCH_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // The first is immediate, and most layers are there by the second.
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {}
            }
            for reading in watch.reading().await {
                if self.image.manifest.layers.iter().any(|layer| layer.digest == reading.layer) {
                    let step = Step::Indexing { current_bytes: reading.current_bytes, total_bytes: reading.total_bytes };
                    (self.tell)(Event::Layer { layer: reading.layer, step });
                }
            }
        }
    }

    async fn extract(&self, place: usize, chain_id: Digest, key: &str, mounts: &[Mount]) -> Result<(), PullError> {
        let layer = &self.image.manifest.layers[place];
        let wanted = self.image.config.diff_ids[place];
        self.tell(place, Step::Extracting);
        let found = self.containerd.apply(layer, mounts).await?;
        if found != wanted {
            self.snapshots().remove(key).await?;
            return Err(PullError::DiffId { layer: layer.digest, found, wanted });
        }
        let uncompressed = [(labels::UNCOMPRESSED.to_owned(), wanted.to_string())].into();
        self.containerd.label_content(&layer.digest, &uncompressed).await?;
        let kept = labels::of_layer(&self.name, &self.image.manifest, place, &chain_id);
        if self.snapshots().commit(key, &chain_id.to_string(), &kept).await? == Committed::AlreadyExists {
            // Another client, which does not know of our locks, was quicker.
            self.snapshots().remove(key).await?;
        }
        Ok(())
    }
}
