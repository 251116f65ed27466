//! Completes what a lazy pull has left out: the blobs of an image's layers in containerd's content store.

use std::sync::Arc;

use futures_util::future::try_join_all;
use snap_digest::Digest;
use snap_registry::{Image, Reference, RegistryReference, resolve_image_at};

use crate::containerd::ImageRecord;
use crate::labels::LAYER_DIGEST_LABEL;
use crate::pull::documents::{self, StoredDocuments};
use crate::pull::download::Downloads;
use crate::pull::error::PullError;
use crate::pull::event::{Event, Outcome, Step};
use crate::pull::lease::Lease;
use crate::pull::{Puller, Tell, labels};

/// An image that containerd has, and what of it is where.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The name of its record.
    pub name: String,
    /// What the name stands for: the digest of an index or a manifest.
    pub digest: Digest,
    /// The digests of those layers that the snapshotter serves, the lowest first. The others are unpacked.
    pub served: Vec<Digest>,
}

impl Puller {
    /// An image that was pulled.
    ///
    /// # Errors
    /// [`PullError::NoImage`], [`PullError::NotUnpacked`]; those of a pull where documents are missing and have to be asked for.
    pub async fn contents(&self, reference: &RegistryReference) -> Result<Contents, PullError> {
        let (record, image) = self.stored(reference).await?;
        let snapshotter = &self.options.snapshotter;
        let snapshots = self.containerd.snapshots(snapshotter);
        let mut served = Vec::new();
        for chain_id in image.config.chain_ids() {
            match snapshots.stat(&chain_id.to_string()).await? {
                // Not the manifest's: a blob of the same content may have been there first.
                Some(snapshot) => served.extend(snapshot.labels.get(LAYER_DIGEST_LABEL).and_then(|digest| digest.parse::<Digest>().ok())),
                None => return Err(PullError::NotUnpacked { name: reference.familiar(), snapshotter: snapshotter.clone() }),
            }
        }
        Ok(Contents { name: record.name, digest: record.target.digest, served })
    }

    /// Brings all blobs of an image into containerd's content store, so that it can be saved, exported and pushed.
    ///
    /// # Errors
    /// [`PullError::NoImage`], and those of a pull.
    pub async fn fetch_content(&self, reference: &RegistryReference, tell: Tell) -> Result<(), PullError> {
        let (record, image) = self.stored(reference).await?;
        let lease = Lease::create(&self.containerd, &self.options.locks_dir, &record.name).await?;
        let containerd = self.containerd.with_lease(lease.id())?;
        documents::file(&containerd, &image, reference).await?;
        let source = self.client.source(&Reference::Registry(reference.at_digest(record.target.digest)))?;
        let downloads = &Downloads::new(containerd, source);
        let (layers, from, tell) = (&image.manifest.layers, &labels::source(reference, None), &tell);
        let fetches = layers.iter().enumerate().map(|(place, layer)| async move {
            let tell = |step| tell(Event::Layer { layer: layer.digest, step });
            tell(Step::Queued);
            let outcome = match downloads.fetch(place, layer, from, &tell).await? {
                true => Outcome::Fetched,
                false => Outcome::AlreadyExists,
            };
            tell(Step::Done(outcome));
            Ok::<_, PullError>(())
        });
        try_join_all(fetches).await?;
        lease.end().await;
        Ok(())
    }

    async fn stored(&self, reference: &RegistryReference) -> Result<(ImageRecord, Arc<Image>), PullError> {
        let name = reference.decisive().to_string();
        let Some(record) = self.containerd.image(&name).await? else {
            return Err(PullError::NoImage { name: reference.familiar(), namespace: self.containerd.namespace().to_owned() });
        };
        let source = self.client.source(&Reference::Registry(reference.at_digest(record.target.digest)))?;
        let docs = StoredDocuments(self.containerd.clone());
        let image = resolve_image_at(&*source, &docs, &self.options.platform, record.target.clone()).await;
        Ok((record, Arc::new(image.map_err(|error| super::denied(error, reference))?)))
    }
}
