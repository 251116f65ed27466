//! Layers and trees for containerd's snapshots: opened as they are asked for, shown below one mount, given up when no snapshot has them
//! any more.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use snap_cache::Cache;
use snap_digest::Digest;
use snap_registry::{Image, Platform};

use crate::completing::Completing;
use crate::connection::{Connection, Served};
use crate::error::{ConnectionError, FsError, LayerError};
use crate::forest::{Forest, Trees};
use crate::fuse::Coat;
use crate::image::Engine;
use crate::ladder::Shared;
use crate::layer::Layer;
use crate::limits;
use crate::open_layers::OpenLayers;
use crate::progress::Progress;
use crate::remote::{LowerDirectory, Opened, RemoteLayer, Run, WantedLayer};
use crate::status::ServiceStatus;
use crate::wanted::{Images, find_layer};

/// How layers are served.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Where the one mount is.
    pub mount_dir: PathBuf,
    /// What images are for where a client does not say which manifest it means.
    pub platform: Platform,
    /// How long a read may wait for the network before it fails with EIO.
    pub read_deadline: Duration,
    /// Whether everything is fetched behind the reads.
    pub background: bool,
    /// Whether layers that no snapshot has any more stay until the store is over its budget. Otherwise they go at once.
    pub keep_unused: bool,
}

/// Serves layers to containerd.
pub struct LayerService {
    options: ServiceOptions,
    cache: Cache,
    images: Images,
    layers: Arc<OpenLayers>,
    trees: Arc<Trees>,
    /// The layers of an earlier process that were not opened yet.
    earlier: Arc<Mutex<HashMap<Digest, RemoteLayer>>>,
}

impl LayerService {
    /// Serves nothing yet. Must be called within a tokio runtime.
    pub fn new(engine: Engine, options: ServiceOptions) -> Arc<Self> {
        let cache = engine.cache().clone();
        let shared = Shared::new(cache.clone(), Progress::of_now());
        let layers = OpenLayers::new(engine.client().clone(), shared, options.background);
        let trees = Trees::new(Arc::clone(&layers));
        let images = Images::new(engine, options.platform.clone());
        Arc::new(Self { options, cache, images, layers, trees, earlier: Arc::default() })
    }

    /// Answers the kernel on a connection that is mounted at the service's directory.
    ///
    /// # Errors
    /// As [`Connection::serve`].
    pub fn serve(&self, connection: Connection) -> Result<Served, ConnectionError> {
        let coat = Coat {
            forest: Forest::Directory(Arc::clone(&self.trees)),
            space: Some(self.cache.dir().to_owned()),
            counters: Arc::clone(&self.layers.shared().counters),
            runtime: tokio::runtime::Handle::current(),
            read_deadline: self.options.read_deadline,
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        connection.serve(coat, processors.clamp(limits::FUSE_THREADS, limits::SERVICE_FUSE_THREADS_MAX))
    }

    /// Takes up what an earlier process served: from now on every number that the kernel may hold is known. Opens nothing, asks nobody.
    /// What cannot be shown is logged, and its readers get ESTALE.
    pub fn restore(&self, runs: &[Run]) {
        for run in runs {
            if let Err(error) = self.trees.plant(run) {
                tracing::error!(%error, "a tree of an earlier run cannot be shown again");
            }
        }
    }

    /// Opens the layers of an earlier process from the local store, and goes on fetching what they lack. Whatever cannot be opened is
    /// logged and left for its next use. The layers are known from the call on, not only when the future runs.
    pub fn warm_up(&self, layers: Vec<RemoteLayer>) -> impl Future<Output = ()> + Send + use<> {
        self.earlier().extend(layers.iter().map(|layer| (layer.digest, layer.clone())));
        let (open, earlier) = (Arc::clone(&self.layers), Arc::clone(&self.earlier));
        let work = move || {
            for layer in layers {
                match open.reopen(&layer) {
                    Ok(_) => drop(lock(&earlier).remove(&layer.digest)),
                    Err(error) => tracing::error!(%error, "a layer of an earlier run cannot be opened"),
                }
            }
        };
        async move {
            if let Err(error) = tokio::task::spawn_blocking(work).await {
                tracing::error!(%error, "opening the layers of an earlier run failed");
            }
        }
    }

    fn earlier(&self) -> MutexGuard<'_, HashMap<Digest, RemoteLayer>> {
        lock(&self.earlier)
    }

    /// Makes a layer servable, and starts on those that will be asked for next. Where the layer has to be streamed, this takes as long
    /// as its download.
    ///
    /// # Errors
    /// See [`FsError::is_unservable`] and [`FsError::is_temporary`].
    pub async fn open(&self, wanted: &WantedLayer) -> Result<Opened, Arc<FsError>> {
        let image = self.images.find(wanted).await?;
        let found = find_layer(&image, wanted)?;
        let opening = self.layers.open(found.descriptor, found.diff_id, &image.reference);
        // In this order: what the client waits for is first in every queue.
        let (opened, ()) = join(opening, async { self.open_ahead(&image, wanted, found.descriptor.digest) }).await;
        let (_, opened_by) = opened?;
        Ok(Opened { layer: RemoteLayer::new(found.descriptor, found.diff_id, &image.reference), opened_by })
    }

    /// Starts on the other layers that a client has named.
    fn open_ahead(&self, image: &Image, wanted: &WantedLayer, but: Digest) {
        for (descriptor, &diff_id) in image.manifest.layers.iter().zip(&image.config.diff_ids) {
            if descriptor.digest == but || !wanted.others.contains(&descriptor.digest) {
                continue;
            }
            let (layers, descriptor, reference) = (Arc::clone(&self.layers), descriptor.clone(), image.reference.clone());
            tokio::spawn(async move {
                // Whoever asks for it will be told.
                if let Err(error) = layers.open_ahead(&descriptor, diff_id, &reference).await {
                    tracing::debug!(%error, "a layer could not be opened ahead");
                }
            });
        }
    }

    /// The directory that shows a run of layers. No registry is asked where their indexes are here.
    ///
    /// # Errors
    /// A layer's that cannot be opened; [`FsError::Tree`].
    pub async fn lower(&self, run: &Run) -> Result<LowerDirectory, Arc<FsError>> {
        let opening =
            run.layers.iter().map(|layer| async move { self.layers.open(&layer.descriptor(), layer.diff_id, &layer.reference).await });
        // They stay alive until the tree has them.
        let _opened = try_join_all(opening).await?;
        let prefix = self.trees.plant(run)?;
        let trees = Arc::clone(&self.trees);
        let opened = tokio::task::spawn_blocking(move || trees.get(prefix).map(|tree| trees.open_saying_why(&tree)));
        match opened.await.map_err(FsError::from)? {
            Some(Ok(fs)) => Ok(LowerDirectory { path: self.options.mount_dir.join(prefix.to_string()), is_opaque: fs.is_opaque() }),
            Some(Err(error)) => Err(error.into()),
            None => Err(Arc::new(LayerError::NotHere.of(run.layers[0].digest))),
        }
    }

    /// Layers that are to be brought here whole, whether everything is fetched in the background or not. Each must be of a snapshot, or
    /// be open already.
    ///
    /// # Errors
    /// [`FsError::UnknownLayers`]; a layer's of an earlier process that cannot be opened.
    pub async fn complete(&self, layers: &[Digest]) -> Result<Completing, Arc<FsError>> {
        let (mut named, mut unknown) = (HashSet::new(), Vec::new());
        let mut wanted = Vec::new();
        for layer in layers.iter().filter(|layer| named.insert(**layer)) {
            let earlier = self.earlier().get(layer).cloned();
            match (self.layers.get(layer), earlier) {
                (Some(open), _) => wanted.push(Ok(open)),
                (None, Some(earlier)) => wanted.push(Err(earlier)),
                (None, None) => unknown.push(*layer),
            }
        }
        if !unknown.is_empty() {
            return Err(Arc::new(FsError::UnknownLayers { layers: unknown }));
        }
        let wanted = try_join_all(wanted.into_iter().map(|wanted| self.open_again(wanted))).await?;
        Ok(Completing::new(wanted, Arc::clone(&self.layers), self.cache.clone()))
    }

    /// A layer that is open, or else one of an earlier process.
    async fn open_again(&self, layer: Result<Arc<Layer>, RemoteLayer>) -> Result<Arc<Layer>, Arc<FsError>> {
        match layer {
            Ok(open) => Ok(open),
            Err(earlier) => Ok(self.layers.open(&earlier.descriptor(), earlier.diff_id, &earlier.reference).await?.0),
        }
    }

    /// Bytes that a layer takes on disk, and the number of its inodes. Zeros for one that is not open.
    pub fn usage(&self, layer: &Digest) -> (u64, u64) {
        self.layers.get(layer).map_or((0, 0), |layer| (layer.present_bytes(), u64::from(layer.index().inode_count())))
    }

    /// Gives up every layer and tree that is not named here, and the disk they took.
    pub async fn retain(&self, layers: &HashSet<Digest>, runs: &[Run]) {
        self.earlier().retain(|layer, _| layers.contains(layer));
        let felled = self.trees.retain(runs);
        let closed = self.layers.retain(layers);
        tracing::debug!(trees = felled.len(), layers = closed.len(), "given up");
        if closed.is_empty() {
            return;
        }
        let cache = self.cache.clone();
        if self.options.keep_unused {
            run_blocking(move || enforce(&cache)).await;
            return;
        }
        let busy = remove(cache.clone(), closed).await;
        if !busy.is_empty() {
            tokio::spawn(remove_later(cache, busy));
        }
    }

    /// How it is.
    pub fn status(&self) -> ServiceStatus {
        ServiceStatus::of(&self.options.mount_dir, &self.layers, &self.trees)
    }
}

fn lock(earlier: &Mutex<HashMap<Digest, RemoteLayer>>) -> MutexGuard<'_, HashMap<Digest, RemoteLayer>> {
    earlier.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work that blocks, and logs where it cannot be run to its end.
async fn run_blocking<T: Send + Default + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "freeing the disk failed");
        T::default()
    })
}

fn enforce(cache: &Cache) {
    if let Err(error) = cache.enforce_budget() {
        tracing::warn!(%error, "cannot bring the store within its budget");
    }
}

/// Removes layers from the store. Gives those that are in use.
async fn remove(cache: Cache, mut layers: Vec<Digest>) -> Vec<Digest> {
    run_blocking(move || {
        layers.retain(|layer| match cache.remove(layer) {
            Ok(_) | Err(snap_cache::Error::NotCached { .. }) => false,
            Err(snap_cache::Error::InUse { .. }) => true,
            Err(error) => {
                tracing::warn!(%layer, %error, "cannot remove a layer");
                false
            }
        });
        layers
    })
    .await
}

/// Removes layers whose last read or fetch is not over yet. Those that another process has mounted, or that came back meanwhile, stay.
async fn remove_later(cache: Cache, mut layers: Vec<Digest>) {
    for _ in 0..limits::REMOVE_TRIES {
        tokio::time::sleep(Duration::from_millis(limits::REMOVE_PAUSE_MS)).await;
        layers = remove(cache.clone(), layers).await;
        if layers.is_empty() {
            return;
        }
    }
    tracing::info!(?layers, "layers that no snapshot has stay in the store: they are in use");
}
