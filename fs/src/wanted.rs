//! From what a client says of a layer to the layer's descriptor: by the manifest of the image, fetched once.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use snap_digest::Digest;
use snap_registry::{Descriptor, Image, Platform, Reference};

use crate::error::FsError;
use crate::image::Engine;
use crate::limits;
use crate::remote::WantedLayer;
use crate::single_flight::SingleFlight;

/// Manifests of images that clients named, found or not.
pub(crate) struct Images {
    engine: Engine,
    platform: Platform,
    remembered: Mutex<LruCache<Key, Remembered>>,
    asking: SingleFlight<Key, Answer>,
}

/// A reference, and the digest of the platform's manifest where it is known.
type Key = (String, Option<Digest>);
/// The image, or why there is none.
type Answer = Result<Arc<Image>, String>;

struct Remembered {
    answer: Answer,
    until: Option<Instant>,
}

impl Images {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(engine: Engine, platform: Platform) -> Self {
        let remembered = Mutex::new(LruCache::new(NonZeroUsize::new(limits::IMAGES_REMEMBERED_MAX).unwrap_or(NonZeroUsize::MIN)));
        Self { engine, platform, remembered, asking: SingleFlight::new() }
    }

    /// The image that has the wanted layer.
    ///
    /// # Errors
    /// [`FsError::NoManifest`], which is remembered for a while: an image that was loaded from a file has no registry to ask, and each of
    /// its layers would ask.
    pub(crate) async fn find(&self, wanted: &WantedLayer) -> Result<Arc<Image>, FsError> {
        let key = (wanted.reference.clone(), wanted.manifest);
        let answer = match self.recall(&key) {
            Some(answer) => answer,
            None => {
                let (engine, platform, asked) = (self.engine.clone(), self.platform.clone(), key.clone());
                let answer = self.asking.join(key.clone(), || async move { ask(&engine, &platform, &asked).await }).await;
                let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
                self.remember(key, &answer);
                answer
            }
        };
        answer.map_err(|why| FsError::NoManifest { image: wanted.reference.clone(), why })
    }

    fn recall(&self, key: &Key) -> Option<Answer> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(key)?;
        found.until.is_none_or(|until| Instant::now() < until).then(|| found.answer.clone())
    }

    fn remember(&self, key: Key, answer: &Answer) {
        // What a digest names does not change; what a tag names does.
        let is_lasting = key.1.is_some() && answer.is_ok();
        let until = (!is_lasting).then(|| Instant::now() + Duration::from_millis(limits::MISSING_IMAGE_MS));
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).put(key, Remembered { answer: answer.clone(), until });
    }
}

async fn ask(engine: &Engine, platform: &Platform, (reference, manifest): &Key) -> Answer {
    let reference: Reference = reference.parse().map_err(|error: snap_registry::ReferenceError| error.to_string())?;
    let Reference::Registry(registry) = &reference else {
        return Err("it is not in a registry".to_owned());
    };
    let reference = manifest.map_or(reference.clone(), |manifest| Reference::Registry(registry.at_digest(manifest)));
    engine.resolve(&reference, platform).await.map(Arc::new).map_err(|error| error.to_string())
}

/// A layer of an image: what its manifest says of it, and what it unpacks to.
pub(crate) struct Found<'a> {
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) diff_id: Digest,
}

/// The layer of an image that completes the wanted chain ID. That is what binds what the client asked for to what the manifest says.
pub(crate) fn find_layer<'a>(image: &'a Image, wanted: &WantedLayer) -> Result<Found<'a>, FsError> {
    let layers = image.manifest.layers.iter().zip(&image.config.diff_ids);
    for ((descriptor, &diff_id), chain_id) in layers.zip(image.config.chain_ids()) {
        if chain_id == wanted.chain_id && wanted.layer.is_none_or(|layer| layer == descriptor.digest) {
            return Ok(Found { descriptor, diff_id });
        }
    }
    Err(FsError::NotInImage { image: wanted.reference.clone(), chain_id: wanted.chain_id })
}
