//! An image's documents, between the registry and containerd's content store.

use async_trait::async_trait;
use bytes::Bytes;
use snap_digest::Digest;
use snap_registry::limits::SMALL_BLOB_MAX_BYTES;
use snap_registry::{Descriptor, DocumentStore, Image, RegistryReference, parse_index};

use crate::containerd::{Containerd, ContainerdError, ContainerdErrorKind};
use crate::pull::busy::Patience;
use crate::pull::error::PullError;
use crate::pull::labels;
use crate::record::Labels;

/// containerd's content store, to read from. What is found is filed with its labels afterwards, when all of it is known.
pub(crate) struct StoredDocuments(pub(crate) Containerd);

#[async_trait]
impl DocumentStore for StoredDocuments {
    async fn get(&self, digest: &Digest) -> Option<Bytes> {
        match self.0.read_content(digest, SMALL_BLOB_MAX_BYTES).await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                if error.kind() != ContainerdErrorKind::NotFound {
                    tracing::debug!(%error, "a document cannot be read from containerd; the registry is asked");
                }
                None
            }
        }
    }

    async fn put(&self, _: &Digest, _: &[u8]) {}

    async fn resolved(&self, _: &str) -> Option<Descriptor> {
        None
    }

    async fn set_resolved(&self, _: &str, _: &Descriptor) {}
}

/// Files the documents of `image` from `reference`, with what keeps them and what they keep. Under the lease of `containerd`.
pub(crate) async fn file(containerd: &Containerd, image: &Image, reference: &RegistryReference) -> Result<(), PullError> {
    write(containerd, &image.manifest.config, &image.config_bytes, Labels::new(), reference).await?;
    write(containerd, &image.manifest.descriptor, &image.manifest_bytes, labels::of_manifest(&image.manifest), reference).await?;
    for (descriptor, bytes) in image.indexes.iter().rev() {
        let manifests = parse_index(bytes).map_err(|source| snap_registry::Error::Document {
            what: format!("image index {}", descriptor.digest),
            source: source.into(),
        })?;
        write(containerd, descriptor, bytes, labels::of_index(&manifests), reference).await?;
    }
    Ok(())
}

async fn write(
    containerd: &Containerd,
    descriptor: &Descriptor,
    bytes: &Bytes,
    mut labels: Labels,
    reference: &RegistryReference,
) -> Result<(), PullError> {
    let known = containerd.content(&descriptor.digest).await?;
    labels.extend(labels::source(reference, known.map(|known| known.labels)));
    let patience = Patience::with(descriptor.digest);
    loop {
        match containerd.write_content(descriptor, bytes.clone(), &labels).await {
            Err(ContainerdError::Busy { .. }) => patience.wait().await?,
            result => return Ok(result?),
        }
    }
}
