//! What `snap status` shows of one image, or of the service, as data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snap_digest::Digest;

use crate::counters::Counters;
use crate::forest::Trees;
use crate::image::OpenImage;
use crate::layer::Layer;
use crate::open_layers::OpenLayers;
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
    /// Compressed bytes of it that came since it was opened, its table of contents included.
    #[serde(default)]
    pub bytes_fetched: u64,
    /// Ranges of it that were asked for since it was opened.
    #[serde(default)]
    pub requests: u64,
}

impl LayerStatus {
    fn of(layer: &Layer) -> Self {
        Self {
            digest: layer.digest(),
            opened_by: layer.rung(),
            blob_bytes: layer.index().blob_bytes(),
            present_bytes: layer.present_bytes(),
            total_bytes: layer.total_bytes(),
            complete: layer.is_complete(),
            bytes_fetched: layer.blob.fetched_bytes(),
            requests: layer.blob.requests(),
        }
    }
}

/// A layer that is being streamed: it is not open yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Digest of its blob.
    pub digest: Digest,
    /// Compressed bytes that were read so far.
    pub done_bytes: u64,
    /// Size of its blob.
    pub total_bytes: u64,
}

/// What serving has cost since the process started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Costs {
    /// Compressed bytes that came from registries.
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
}

impl Costs {
    fn of(counters: &Counters) -> Self {
        Self {
            bytes_fetched: Counters::get(&counters.fetched_bytes),
            requests: Counters::get(&counters.requests),
            reads_waited: Counters::get(&counters.reads_waited),
            read_wait_ms: Counters::get(&counters.read_wait_us) / 1000,
            reads_failed: Counters::get(&counters.reads_failed),
            kernel_requests: Counters::get(&counters.kernel_requests),
        }
    }
}

/// A run of layers that is shown as one directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TreeStatus {
    /// The directory's name below the mount.
    pub name: String,
    /// The image that its topmost layer came with.
    pub image: String,
    /// Bottom first.
    pub layers: Vec<Digest>,
    /// Whether someone has looked into it since the process started.
    pub open: bool,
}

/// The service, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Where the trees are.
    pub mount: PathBuf,
    /// By name.
    pub trees: Vec<TreeStatus>,
    /// By digest.
    pub layers: Vec<LayerStatus>,
    /// The layers that are being streamed now, in the order they began.
    #[serde(default)]
    pub streaming: Vec<StreamStatus>,
    /// What serving them has cost.
    #[serde(flatten)]
    pub costs: Costs,
    /// Whether every layer is here and verified: no registry is needed any more.
    pub complete: bool,
}

impl ServiceStatus {
    pub(crate) fn of(mount: &Path, layers: &OpenLayers, trees: &Trees) -> Self {
        let mut open: Vec<LayerStatus> = layers.all().iter().map(|layer| LayerStatus::of(layer)).collect();
        open.sort_by_key(|layer| layer.digest);
        let trees = trees.all().into_iter().map(|(prefix, tree)| TreeStatus {
            name: prefix.to_string(),
            image: tree.run().layers.last().map(|layer| layer.reference.clone()).unwrap_or_default(),
            layers: tree.run().layers.iter().map(|layer| layer.digest).collect(),
            open: tree.is_open(),
        });
        let streaming = layers.shared().progress.layers().into_iter().map(|layer| StreamStatus {
            digest: layer.layer,
            done_bytes: layer.done_bytes(),
            total_bytes: layer.total_bytes,
        });
        let streaming: Vec<_> = streaming.collect();
        Self {
            mount: mount.to_owned(),
            trees: trees.collect(),
            complete: streaming.is_empty() && open.iter().all(|layer| layer.complete),
            layers: open,
            streaming,
            costs: Costs::of(&layers.shared().counters),
        }
    }
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
    /// What serving it has cost.
    #[serde(flatten)]
    pub costs: Costs,
    /// Whether all of it is here and verified: no registry is needed any more.
    pub complete: bool,
    /// Why an earlier resolution of the reference is used, where the registry could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

impl ImageStatus {
    /// Looks at an image.
    pub fn of(image: &OpenImage) -> Self {
        let layers: Vec<LayerStatus> = image.layers().iter().map(|layer| LayerStatus::of(layer)).collect();
        Self {
            image: image.reference().to_owned(),
            manifest: image.image().manifest.descriptor.digest,
            bytes_present: layers.iter().map(|layer| layer.present_bytes).sum(),
            bytes_total: layers.iter().map(|layer| layer.total_bytes).sum(),
            complete: layers.iter().all(|layer| layer.complete),
            layers,
            costs: Costs::of(image.counters()),
            stale: image.image().stale.clone(),
        }
    }
}
