//! What can be said of an image without mounting it: is it lazy here, and if not, why.

use std::collections::HashSet;

use serde::Serialize;
use snap_cache::Cache;
use snap_digest::Digest;
use snap_index::{Compression, TOC_DIGEST_ANNOTATION};
use snap_registry::{Descriptor, Image};

use crate::limits;

/// One layer, seen from outside.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Digest of its blob.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Size of its blob.
    pub size_bytes: u64,
    /// `estargz`, `gzip`, `zstd`, `tar`, or `unknown`.
    pub format: &'static str,
    /// Whether a mount of it needs no full read first.
    pub lazy: bool,
    /// Why, or why not.
    pub because: String,
}

/// One image, seen from outside.
#[derive(Clone, Debug, Serialize)]
pub struct ImageReport {
    /// The reference in full.
    pub image: String,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// `os/architecture`.
    pub platform: String,
    /// Compressed bytes of all layers.
    pub size_bytes: u64,
    /// Whether every layer is.
    pub lazy: bool,
    /// Bottom first.
    pub layers: Vec<LayerReport>,
    /// Why an earlier resolution of the reference is used, where the registry could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

impl ImageReport {
    /// Looks at a resolved image and at what the local store has of it.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub fn of(reference: String, image: &Image, cache: &Cache) -> Result<Self, snap_cache::Error> {
        let indexed: HashSet<Digest> = cache.layers()?.iter().filter(|layer| layer.has_index).map(|layer| layer.digest).collect();
        let layers: Vec<_> =
            image.manifest.layers.iter().map(|descriptor| layer_report(descriptor, indexed.contains(&descriptor.digest))).collect();
        Ok(Self {
            image: reference,
            manifest: image.manifest.descriptor.digest,
            platform: image.config.platform.to_string(),
            size_bytes: layers.iter().map(|layer| layer.size_bytes).sum(),
            lazy: layers.iter().all(|layer| layer.lazy),
            layers,
            stale: image.stale.clone(),
        })
    }
}

fn layer_report(descriptor: &Descriptor, has_index: bool) -> LayerReport {
    let compression = Compression::of_media_type(&descriptor.media_type);
    let has_toc = descriptor.annotations.contains_key(TOC_DIGEST_ANNOTATION);
    let format = match compression {
        Some(Compression::Gzip) if has_toc => "estargz",
        Some(Compression::Gzip) => "gzip",
        Some(Compression::Zstd) => "zstd",
        Some(Compression::None) => "tar",
        None => "unknown",
    };
    let (lazy, because) = if has_index {
        (true, "its index is in the local store".to_owned())
    } else if format == "estargz" && descriptor.size_bytes > limits::SMALL_LAYER_BYTES {
        (true, "it has a table of contents that the manifest vouches for".to_owned())
    } else if compression.is_none() {
        (false, format!("layers of type {:?} cannot be mounted", descriptor.media_type))
    } else if descriptor.size_bytes <= limits::SMALL_LAYER_BYTES {
        (true, "it is so small that it is fetched whole".to_owned())
    } else {
        (false, "it has no table of contents; the first mount streams it once and keeps an index, later ones are lazy".to_owned())
    };
    let Descriptor { digest, size_bytes, .. } = *descriptor;
    LayerReport { digest, media_type: descriptor.media_type.clone(), size_bytes, format, lazy, because }
}
