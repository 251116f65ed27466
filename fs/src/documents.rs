//! The local store of manifests and configurations, as the registry crate wants it.

use async_trait::async_trait;
use bytes::Bytes;
use snap_cache::Cache;
use snap_digest::Digest;
use snap_registry::{Descriptor, DocumentStore};

/// Failing to store a document costs a request next time, nothing else: it is logged and left at that.
pub(crate) struct CachedDocuments<'a>(pub(crate) &'a Cache);

#[async_trait]
impl DocumentStore for CachedDocuments<'_> {
    async fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.0.document(digest).map(Bytes::from)
    }

    async fn put(&self, digest: &Digest, bytes: &[u8]) {
        if let Err(error) = self.0.put_document(digest, bytes) {
            tracing::warn!(%digest, %error, "cannot keep a manifest for later");
        }
    }

    async fn resolved(&self, reference: &str) -> Option<Descriptor> {
        let json = self.0.reference(reference)?;
        serde_json::from_str(&json).inspect_err(|error| tracing::warn!(reference, %error, "a stored reference is damaged")).ok()
    }

    async fn set_resolved(&self, reference: &str, descriptor: &Descriptor) {
        let stored = serde_json::to_string(descriptor).map_err(std::io::Error::from).map(|json| self.0.set_reference(reference, &json));
        match stored {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(reference, %error, "cannot keep what a reference resolved to"),
            Err(error) => tracing::warn!(reference, %error, "cannot write a descriptor as JSON"),
        }
    }
}
