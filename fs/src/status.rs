//! What `snap status` shows of one image, as data.

use serde::{Deserialize, Serialize};
use snap_digest::Digest;

use crate::counters::Counters;
use crate::image::OpenImage;
use crate::progress::Rung;

/// One layer, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerStatus {
    /// Digest of its blob.
    pub digest: Digest,
    /// How it was opened.
    pub opened_by: Rung,
    /// Size of its blob.
    pub blob_bytes: u64,
    /// Bytes of it, decoded, that are here.
    pub present_bytes: u64,
    /// Bytes of it, decoded, in all.
    pub total_bytes: u64,
    /// Whether all of it is here and verified.
    pub complete: bool,
}

/// One image, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageStatus {
    /// The reference in full.
    pub image: String,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// Bottom first.
    pub layers: Vec<LayerStatus>,
    /// Decoded bytes that are here, of all layers.
    pub bytes_present: u64,
    /// Decoded bytes in all.
    pub bytes_total: u64,
    /// Compressed bytes that came from the registry since the image was opened.
    pub bytes_fetched: u64,
    /// Ranges asked for.
    pub requests: u64,
    /// Reads that waited for a fetch.
    pub reads_waited: u64,
    /// How long those waited, together.
    pub read_wait_ms: u64,
    /// Reads that failed.
    pub reads_failed: u64,
    /// Requests of the kernel that reached the daemon.
    pub kernel_requests: u64,
    /// Whether all of it is here and verified: no registry is needed any more.
    pub complete: bool,
    /// Why an earlier resolution of the reference is used, where the registry could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

impl ImageStatus {
    /// Looks at an image.
    pub fn of(image: &OpenImage) -> Self {
        let layers: Vec<LayerStatus> = image
            .layers()
            .iter()
            .map(|layer| LayerStatus {
                digest: layer.digest(),
                opened_by: layer.rung(),
                blob_bytes: layer.index().blob_bytes(),
                present_bytes: layer.present_bytes(),
                total_bytes: layer.total_bytes(),
                complete: layer.is_complete(),
            })
            .collect();
        let counters = image.counters();
        Self {
            image: image.reference().to_owned(),
            manifest: image.image().manifest.descriptor.digest,
            bytes_present: layers.iter().map(|layer| layer.present_bytes).sum(),
            bytes_total: layers.iter().map(|layer| layer.total_bytes).sum(),
            complete: layers.iter().all(|layer| layer.complete),
            layers,
            bytes_fetched: Counters::get(&counters.fetched_bytes),
            requests: Counters::get(&counters.requests),
            reads_waited: Counters::get(&counters.reads_waited),
            read_wait_ms: Counters::get(&counters.read_wait_us) / 1000,
            reads_failed: Counters::get(&counters.reads_failed),
            kernel_requests: Counters::get(&counters.kernel_requests),
            stale: image.image().stale.clone(),
        }
    }
}
