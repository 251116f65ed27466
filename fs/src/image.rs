//! An image, opened: its layers and the one tree they make.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use snap_cache::Cache;
use snap_digest::Digest;
use snap_index::{ImageTree, Whiteouts};
use snap_registry::{Client, Image, Platform, Reference, resolve_image};
use tokio::sync::{Semaphore, watch};

use crate::background::{Background, Completion};
use crate::counters::Counters;
use crate::documents::CachedDocuments;
use crate::error::FsError;
use crate::ladder::{Shared, open_layer};
use crate::layer::Layer;
use crate::limits;
use crate::progress::Progress;

/// Opens images: a registry client and a local store.
#[derive(Clone)]
pub struct Engine {
    client: Client,
    cache: Cache,
}

/// An image whose tree can be served.
pub struct OpenImage {
    reference: String,
    image: Image,
    tree: Arc<ImageTree>,
    /// By position in the tree's list, bottom first; an image may have a layer more than once.
    layers: Vec<Arc<Layer>>,
    counters: Arc<Counters>,
    background: Arc<Background>,
    cache: Cache,
}

impl Engine {
    /// An engine over a client and a store.
    pub fn new(client: Client, cache: Cache) -> Self {
        Self { client, cache }
    }

    /// The registry client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The local store.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Finds an image's manifest and configuration: from the registry, or what an earlier run knew where that cannot be reached.
    ///
    /// # Errors
    /// [`FsError::Registry`].
    pub async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Image, FsError> {
        let source = self.client.source(reference)?;
        Ok(resolve_image(&*source, &CachedDocuments(&self.cache), platform).await?)
    }

    /// Opens every layer of an image, all at once, and merges them. Returns when the tree can be served; nothing is fetched in the
    /// background until [`OpenImage::fetch_all`] runs.
    ///
    /// # Errors
    /// The first layer's that cannot be opened, with its digest and reason.
    pub async fn open(&self, reference: &Reference, platform: &Platform, progress: Arc<Progress>) -> Result<Arc<OpenImage>, FsError> {
        let source = self.client.source(reference)?;
        let image = resolve_image(&*source, &CachedDocuments(&self.cache), platform).await?;
        let found = &image.config.platform;
        if (&found.os, &found.architecture) != (&platform.os, &platform.architecture) {
            tracing::warn!(image = %reference, %found, wanted = %platform, "the image is for another platform");
        }
        let shared = Shared::new(self.cache.clone(), progress);
        // A layer that is there twice is opened once.
        let mut distinct = HashMap::new();
        for (descriptor, diff_id) in image.manifest.layers.iter().zip(&image.config.diff_ids) {
            distinct.entry(descriptor.digest).or_insert((descriptor, *diff_id));
        }
        // The largest first: it decides when the last is done.
        let mut distinct: Vec<_> = distinct.into_values().collect();
        distinct.sort_by_key(|(descriptor, _)| std::cmp::Reverse(descriptor.size_bytes));
        let opened: HashMap<Digest, Arc<Layer>> = stream::iter(distinct)
            .map(|(descriptor, diff_id)| {
                let (shared, blob) = (shared.clone(), source.blob(descriptor));
                async move {
                    let layer = open_layer(shared, descriptor, diff_id, blob).await.map_err(|error| error.of(descriptor.digest))?;
                    Ok::<_, FsError>((descriptor.digest, layer))
                }
            })
            .buffer_unordered(limits::OPENS_MAX)
            .try_collect()
            .await?;
        let layers: Vec<Arc<Layer>> =
            image.manifest.layers.iter().filter_map(|descriptor| opened.get(&descriptor.digest).cloned()).collect();
        let indexes = layers.iter().map(|layer| Arc::clone(layer.index())).collect();
        let tree = tokio::task::spawn_blocking(move || ImageTree::merge(indexes, Whiteouts::Applied)).await?.map_err(FsError::Tree)?;
        let distinct: Vec<Arc<Layer>> = opened.into_values().collect();
        let slots = Arc::new(Semaphore::new(limits::BACKGROUND_RUNS_MAX));
        let background = Background::new(&distinct, shared.gate, slots);
        Ok(Arc::new(OpenImage {
            reference: reference.to_string(),
            image,
            tree: Arc::new(tree),
            layers,
            counters: shared.counters,
            background,
            cache: self.cache.clone(),
        }))
    }
}

impl OpenImage {
    /// The reference it was opened by, in full.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Its manifest and configuration.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The merged tree.
    pub fn tree(&self) -> &Arc<ImageTree> {
        &self.tree
    }

    /// Its layers, bottom first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// What serving it has cost so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Whether everything is here and verified.
    pub fn is_complete(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_complete())
    }

    /// Fetches everything that is missing, behind the reads. Returns when all is here, then frees what the store has over its budget.
    pub async fn fetch_all(&self) {
        Arc::clone(&self.background).run().await;
        let cache = self.cache.clone();
        match tokio::task::spawn_blocking(move || cache.enforce_budget()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot bring the store within its budget"),
            Err(error) => tracing::warn!(%error, "cannot bring the store within its budget"),
        }
    }

    /// How far [`OpenImage::fetch_all`] is.
    pub fn completion(&self) -> watch::Receiver<Completion> {
        self.background.completion()
    }
}
