//! What the registry has.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::json;
use snap_digest::Digest;

use crate::descriptor::Descriptor;
use crate::media_type::{OCI_INDEX, is_schema1};
use crate::schema1::schema1_payload;

/// Blobs of all repositories; manifests by repository.
#[derive(Default)]
pub(super) struct Contents {
    blobs: HashMap<Digest, Bytes>,
    /// By (repository, tag or digest).
    manifests: HashMap<(String, String), Document>,
    /// Lists of tags by repository, where they are not those of the manifests.
    tag_lists: HashMap<String, Vec<String>>,
    /// How many tags a page has, if a list has more than one.
    page_tags: Option<usize>,
}

/// A manifest or index and its media type.
#[derive(Clone)]
pub(super) struct Document {
    pub(super) bytes: Bytes,
    pub(super) media_type: String,
    /// That of its bytes, but for a signed schema 1 manifest.
    pub(super) digest: Digest,
}

impl Contents {
    pub(super) fn add_blob(&mut self, bytes: Bytes) -> Descriptor {
        let descriptor = Descriptor::of(&bytes, "application/octet-stream");
        self.blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    pub(super) fn add_manifest(&mut self, name: &str, tag: &str, bytes: Bytes, media_type: &str) -> Descriptor {
        let payload = if is_schema1(media_type) { schema1_payload(&bytes).ok().flatten() } else { None };
        let digest = Digest::of(payload.as_ref().unwrap_or(&bytes));
        let descriptor = Descriptor::new(digest, bytes.len() as u64, media_type);
        let document = Document { bytes, media_type: media_type.to_owned(), digest };
        self.manifests.insert((name.to_owned(), descriptor.digest.to_string()), document.clone());
        self.manifests.insert((name.to_owned(), tag.to_owned()), document);
        descriptor
    }

    pub(super) fn blob(&self, digest: &str) -> Option<Bytes> {
        self.blobs.get(&digest.parse().ok()?).cloned()
    }

    pub(super) fn set_tags(&mut self, name: &str, tags: Vec<String>) {
        self.tag_lists.insert(name.to_owned(), tags);
    }

    pub(super) fn page_tags(&mut self, tags: usize) {
        self.page_tags = Some(tags);
    }

    /// Whether there is a repository of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tag_lists.contains_key(name) || self.manifests.keys().any(|(repository, _)| repository == name)
    }

    /// A page of the tags of `name` after the first `after`, and how many lie before the next page.
    pub(super) fn tags(&self, name: &str, after: usize) -> (Vec<String>, Option<usize>) {
        let of_manifests = || {
            let own = self.manifests.keys().filter(|(repository, tag)| repository == name && tag.parse::<Digest>().is_err());
            let mut tags: Vec<String> = own.map(|(_, tag)| tag.clone()).collect();
            tags.sort();
            tags
        };
        let tags = self.tag_lists.get(name).cloned().unwrap_or_else(of_manifests);
        let end = self.page_tags.map_or(tags.len(), |count| tags.len().min(after + count));
        (tags.get(after..end).unwrap_or_default().to_vec(), (end < tags.len()).then_some(end))
    }

    pub(super) fn manifest(&self, name: &str, tag_or_digest: &str) -> Option<Document> {
        self.manifests.get(&(name.to_owned(), tag_or_digest.to_owned())).cloned()
    }

    /// `index.json` and the files of a layout of the repository `name`.
    pub(super) fn layout(&self, name: &str) -> (Vec<u8>, Vec<(Digest, Bytes)>) {
        let own = self.manifests.iter().filter(|((repository, _), _)| repository == name);
        let mut files: Vec<(Digest, Bytes)> = self.blobs.iter().map(|(digest, bytes)| (*digest, bytes.clone())).collect();
        let mut entries = Vec::new();
        for ((_, tag), document) in own {
            let digest = Digest::of(&document.bytes);
            files.push((digest, document.bytes.clone()));
            if tag.parse::<Digest>().is_err() {
                let annotations = json!({"org.opencontainers.image.ref.name": tag});
                entries.push(
                    json!({"mediaType": document.media_type, "digest": digest, "size": document.bytes.len(), "annotations": annotations}),
                );
            }
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        (index.to_string().into_bytes(), files)
    }
}

/// Configuration and manifest of an image for linux/amd64 with these layers: (media type, blob, diff ID).
pub(super) fn image(layers: &[(&str, Bytes, Digest)]) -> (Vec<u8>, Vec<u8>) {
    let diff_ids: Vec<Digest> = layers.iter().map(|(_, _, diff_id)| *diff_id).collect();
    let config = json!({
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/true"], "WorkingDir": "/", "User": "0:0"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let described = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
    let layers: Vec<_> = layers.iter().map(|(media_type, blob, _)| described(media_type, blob)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": crate::media_type::OCI_MANIFEST,
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers,
    });
    (config, manifest.to_string().into_bytes())
}
