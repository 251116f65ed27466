//! Images of docker's first format: their layers are unpacked to learn what the manifest does not say, and documents of today are made.

use std::sync::Arc;

use snap_digest::Digest;
use snap_registry::{
    Descriptor, Image, RegistryReference, Schema1Blob, Schema1Found, Source, chain_id, parse_config, parse_manifest, parse_schema1,
};

use crate::containerd::{Committed, Containerd, Prepared};
use crate::limits;
use crate::pull::chain_lock::ChainLocks;
use crate::pull::download::Downloads;
use crate::pull::error::PullError;
use crate::pull::event::{Event, Outcome, Step};
use crate::pull::{Tell, documents, labels};
use crate::record::Labels;

/// What the blobs of a schema 1 image are: it does not say.
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// The conversion of one image.
pub(crate) struct Conversion {
    pub(crate) containerd: Containerd,
    pub(crate) snapshotter: String,
    pub(crate) reference: RegistryReference,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) downloads: Arc<Downloads>,
    pub(crate) locks: ChainLocks,
    pub(crate) tell: Tell,
}

impl Conversion {
    /// Fetches and unpacks every layer, and files the documents that describe them. The image is then like any other.
    pub(crate) async fn run(&self, found: &Schema1Found) -> Result<Image, PullError> {
        let schema1 = parse_schema1(&found.bytes).map_err(PullError::Conversion)?;
        let kept: Vec<Digest> = schema1.kept_blobs().collect();
        kept.iter().for_each(|&layer| self.tell(layer, Step::Queued));
        let mut blobs: Vec<Schema1Blob> = Vec::new();
        let mut below = None;
        for (place, &digest) in kept.iter().enumerate() {
            let layer = Descriptor::new(digest, self.source.blob_size(&digest).await?, LAYER_TYPE);
            let from = labels::source(&self.reference, None);
            self.downloads.fetch(place, &layer, &from, |step| self.tell(digest, step)).await?;
            let (diff_id, chain_id) = self.unpack(&layer, below).await?;
            blobs.push(Schema1Blob { digest, size_bytes: layer.size_bytes, diff_id });
            below = Some(chain_id);
            self.tell(digest, Step::Done(Outcome::Unpacked));
        }
        let converted = schema1.convert(&blobs).map_err(PullError::Conversion)?;
        let manifest = parse_manifest(&converted.manifest_bytes, &converted.manifest).map_err(PullError::Conversion)?;
        let config = parse_config(&converted.config_bytes).map_err(PullError::Conversion)?;
        let image = Image {
            reference: self.reference.to_string(),
            root: converted.manifest,
            indexes: Vec::new(),
            manifest,
            manifest_bytes: converted.manifest_bytes,
            config,
            config_bytes: converted.config_bytes,
            stale: None,
        };
        documents::file(&self.containerd, &image, &self.reference).await?;
        Ok(image)
    }

    fn tell(&self, layer: Digest, step: Step) {
        (self.tell)(Event::Layer { layer, step });
    }

    /// Unpacks a layer whose diff ID nobody knows. Gives it, and the chain ID that it completes.
    async fn unpack(&self, layer: &Descriptor, below: Option<Digest>) -> Result<(Digest, Digest), PullError> {
        let snapshots = self.containerd.snapshots(&self.snapshotter);
        // Until its chain ID is known, this names its place.
        let place = Digest::of(format!("schema 1 {} {below:?}", layer.digest).as_bytes());
        let _lock = self.locks.wait(place, || self.tell(layer.digest, Step::Waiting)).await?;
        let key = format!("snap-pull {place}");
        let parent = below.map(|below| below.to_string());
        self.tell(layer.digest, Step::Extracting);
        for _ in 0..limits::PULL_PREPARE_TRIES {
            let Prepared::Mounts(mounts) = snapshots.prepare(&key, parent.as_deref(), &Labels::new()).await? else {
                // Left by a pull that died: the lock makes it ours.
                snapshots.remove(&key).await?;
                continue;
            };
            let diff_id = self.containerd.apply(layer, &mounts).await?;
            let chain_id = chain_id(below, diff_id);
            if snapshots.commit(&key, &chain_id.to_string(), &Labels::new()).await? == Committed::AlreadyExists {
                snapshots.remove(&key).await?;
            }
            let uncompressed = Labels::from([(labels::UNCOMPRESSED.to_owned(), diff_id.to_string())]);
            self.containerd.label_content(&layer.digest, &uncompressed).await?;
            return Ok((diff_id, chain_id));
        }
        Err(PullError::Unprepared { chain_id: place, tries: limits::PULL_PREPARE_TRIES })
    }
}
