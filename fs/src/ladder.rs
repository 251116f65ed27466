//! How a layer is opened: the first of these that works.
//!
//! 1. a local index: no network at all;
//! 2. a table of contents in the blob, bound to the manifest by its digest (eStargz): one or two requests;
//! 3. one streaming pass over the whole blob, which leaves an index and all of the data.
//!
//! What none of them can open has its reason in the error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use snap_cache::{BuildOutcome, Cache, Lease};
use snap_digest::Digest;
use snap_index::{Compression, EstargzTail, LayerIndex, TOC_DIGEST_ANNOTATION, estargz_tail_bytes, open_estargz};
use snap_registry::{Blob, Descriptor};

use crate::counted::CountedBlob;
use crate::counters::Counters;
use crate::demand::DemandGate;
use crate::error::LayerError;
use crate::layer::{IndexLayout, Layer, LayerParts};
use crate::limits;
use crate::progress::{Progress, Rung};
use crate::stream_pass::Pass;

/// What the layers of one image share while they are opened and served.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) cache: Cache,
    pub(crate) counters: Arc<Counters>,
    pub(crate) gate: Arc<DemandGate>,
    pub(crate) progress: Arc<Progress>,
    /// Bounds how many layers are streamed at a time.
    pub(crate) passes: Arc<tokio::sync::Semaphore>,
}

impl Shared {
    /// Nothing opened yet.
    pub(crate) fn new(cache: Cache, progress: Arc<Progress>) -> Self {
        let passes = Arc::new(tokio::sync::Semaphore::new(limits::PASSES_MAX));
        Self { cache, counters: Arc::default(), gate: Arc::default(), progress, passes }
    }
}

/// What rung 1 found.
pub(crate) enum Local {
    /// The layer, opened.
    Opened(Arc<Layer>),
    /// No index. The lease is given back.
    Absent(Lease),
}

/// Opens one layer. `diff_id` is what the image's configuration says it unpacks to. A failure leaves nothing in the store.
pub(crate) async fn open_layer(
    shared: Shared,
    descriptor: &Descriptor,
    diff_id: Digest,
    blob: Arc<dyn Blob>,
) -> Result<Arc<Layer>, LayerError> {
    let (cache, layer) = (shared.cache.clone(), descriptor.digest);
    let opened = climb(shared, descriptor, diff_id, blob).await;
    if opened.is_err() {
        match tokio::task::spawn_blocking(move || cache.remove_unbuilt(&layer)).await? {
            Ok(()) => {}
            Err(error) => tracing::warn!(%layer, %error, "cannot remove what is left of a layer that could not be opened"),
        }
    }
    opened
}

async fn climb(shared: Shared, descriptor: &Descriptor, diff_id: Digest, blob: Arc<dyn Blob>) -> Result<Arc<Layer>, LayerError> {
    let layer = descriptor.digest;
    let blob = CountedBlob::new(blob, Arc::clone(&shared.counters));
    let lease = {
        let cache = shared.cache.clone();
        tokio::task::spawn_blocking(move || cache.lease(&layer)).await??
    };
    let lease = match open_here(&shared, lease, diff_id, &blob, Rung::LocalIndex).await? {
        Local::Opened(layer) => return Ok(layer),
        Local::Absent(lease) => lease,
    };
    let (lease, rung) = make_index(&shared, descriptor, diff_id, &blob, lease).await?;
    match open_here(&shared, lease, diff_id, &blob, rung).await? {
        Local::Opened(layer) => Ok(layer),
        Local::Absent(_) => Err(snap_index::IndexError::Io(std::io::Error::other("the index vanished as soon as it was written")).into()),
    }
}

async fn open_here(shared: &Shared, lease: Lease, diff_id: Digest, blob: &Arc<CountedBlob>, rung: Rung) -> Result<Local, LayerError> {
    let (shared, blob) = (shared.clone(), Arc::clone(blob));
    tokio::task::spawn_blocking(move || open_local(&shared, lease, diff_id, blob, rung)).await?
}

/// Rung 1: asks nobody and waits for nothing but the disk. A damaged index is thrown away: it is made anew.
pub(crate) fn open_local(shared: &Shared, lease: Lease, diff_id: Digest, blob: Arc<CountedBlob>, rung: Rung) -> Result<Local, LayerError> {
    let layer = lease.digest();
    let Some(bytes) = lease.read_index()? else { return Ok(Local::Absent(lease)) };
    let index = match LayerIndex::open(Box::new(bytes), &layer) {
        Ok(index) => Arc::new(index),
        Err(error) => {
            tracing::warn!(%layer, %error, "the stored index is unusable and is made anew");
            lease.discard_index()?;
            return Ok(Local::Absent(lease));
        }
    };
    if let Some(found) = index.diff_id()
        && found != diff_id
    {
        return Err(LayerError::DiffId { found, wanted: diff_id });
    }
    let data = lease.open_data(Arc::new(IndexLayout(Arc::clone(&index))))?;
    let Shared { cache, gate, .. } = shared.clone();
    Ok(Local::Opened(Layer::new(LayerParts { index, data, rung, blob, gate, cache, lease })))
}

async fn make_index(
    shared: &Shared,
    descriptor: &Descriptor,
    diff_id: Digest,
    blob: &Arc<CountedBlob>,
    lease: Lease,
) -> Result<(Lease, Rung), LayerError> {
    let (lease, outcome) = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_millis(limits::BUILD_WAIT_MS);
        lease.begin_build(deadline).map(|outcome| (lease, outcome))
    })
    .await??;
    let rung = match outcome {
        BuildOutcome::Built => Rung::LocalIndex,
        BuildOutcome::Build(build) => match toc_index(descriptor, blob).await {
            Some(index) => {
                tokio::task::spawn_blocking(move || build.finish_index_only(&index)).await??;
                Rung::Estargz
            }
            None => {
                stream(shared, descriptor, diff_id, blob, build).await?;
                Rung::StreamingPass
            }
        },
    };
    Ok((lease, rung))
}

/// Rung 2. Whatever is wrong with a table of contents is no reason to fail: the streaming pass is bound to the manifest as well.
async fn toc_index(descriptor: &Descriptor, blob: &Arc<CountedBlob>) -> Option<Vec<u8>> {
    let annotation = descriptor.annotations.get(TOC_DIGEST_ANNOTATION)?;
    if descriptor.size_bytes <= limits::SMALL_LAYER_BYTES {
        return None;
    }
    let layer = descriptor.digest;
    let opened = match annotation.parse::<Digest>() {
        Ok(toc_digest) => read_toc(layer, blob, toc_digest).await,
        Err(error) => {
            tracing::warn!(%layer, %error, "the layer's TOC annotation is no digest; the layer is streamed instead");
            return None;
        }
    };
    match opened {
        Ok(Some(index)) => Some(index),
        Ok(None) => {
            tracing::warn!(%layer, "the layer is annotated as eStargz, but has no such footer; it is streamed instead");
            None
        }
        Err(error) => {
            tracing::warn!(%layer, %error, "the layer's table of contents is unusable; the layer is streamed instead");
            None
        }
    }
}

async fn read_toc(layer: Digest, blob: &Arc<CountedBlob>, toc_digest: Digest) -> Result<Option<Vec<u8>>, LayerError> {
    let blob_bytes = blob.size_bytes();
    let mut tail = blob_bytes.saturating_sub(estargz_tail_bytes(blob_bytes))..blob_bytes;
    // The first read usually has all; where it does not, its footer says what the second must have.
    for _ in 0..2 {
        let bytes = blob.read(tail.clone()).await?;
        let opened = tokio::task::spawn_blocking(move || open_estargz(&layer, blob_bytes, &bytes, &toc_digest)).await??;
        match opened {
            EstargzTail::Index(index) => return Ok(Some(index)),
            EstargzTail::Not => return Ok(None),
            EstargzTail::Need(range) => tail = range,
        }
    }
    Ok(None)
}

/// Rung 3.
async fn stream(
    shared: &Shared,
    descriptor: &Descriptor,
    diff_id: Digest,
    blob: &Arc<CountedBlob>,
    build: snap_cache::Build,
) -> Result<(), LayerError> {
    let media_type = &descriptor.media_type;
    let compression = Compression::of_media_type(media_type).ok_or_else(|| LayerError::MediaType { media_type: media_type.clone() })?;
    let Ok(_permit) = shared.passes.acquire().await else {
        return Err(snap_index::IndexError::Io(std::io::Error::other("the engine is stopping")).into());
    };
    let pass = Pass {
        layer: descriptor.digest,
        compression,
        blob: Arc::clone(blob),
        is_estargz: descriptor.annotations.contains_key(TOC_DIGEST_ANNOTATION),
        diff_id: Some(diff_id),
        progress: shared.progress.begin(descriptor.digest, descriptor.size_bytes),
    };
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || pass.run(runtime, build)).await?
}
