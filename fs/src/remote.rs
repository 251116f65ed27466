//! Layers as containerd's side names them: what it asks for, and what is kept of one that is served.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use snap_digest::Digest;
use snap_index::TOC_DIGEST_ANNOTATION;
use snap_registry::Descriptor;

use crate::progress::Rung;

/// A layer that a client wants to have mounted instead of unpacked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedLayer {
    /// The chain ID that the layer completes: it names the layer's place in the image, and what is below.
    pub chain_id: Digest,
    /// The image, as the client named it.
    pub reference: String,
    /// Digest of the platform's manifest, where the client told it.
    pub manifest: Option<Digest>,
    /// Digest of the layer's blob, where the client told it.
    pub layer: Option<Digest>,
    /// The layers that will be asked for next.
    pub others: Vec<Digest>,
}

/// A layer that was made servable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// What to keep of it.
    pub layer: RemoteLayer,
    /// How it was opened for whoever asked: [`Rung::LocalIndex`] for one that another image had open already.
    pub opened_by: Rung,
}

/// A layer that is served, as a record keeps it: all that is needed to serve it again without asking anyone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteLayer {
    /// Digest of its blob.
    pub digest: Digest,
    /// Size of its blob.
    pub size_bytes: u64,
    /// Media type of its blob.
    pub media_type: String,
    /// What it unpacks to.
    pub diff_id: Digest,
    /// Where its blob comes from: an image reference in full.
    pub reference: String,
    /// The digest of its table of contents, as its descriptor's annotation has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toc_digest: Option<String>,
}

impl RemoteLayer {
    /// What to keep of a layer that a manifest describes.
    pub(crate) fn new(descriptor: &Descriptor, diff_id: Digest, reference: &str) -> Self {
        Self {
            digest: descriptor.digest,
            size_bytes: descriptor.size_bytes,
            media_type: descriptor.media_type.clone(),
            diff_id,
            reference: reference.to_owned(),
            toc_digest: descriptor.annotations.get(TOC_DIGEST_ANNOTATION).cloned(),
        }
    }

    /// As a manifest would describe it.
    pub(crate) fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::new(self.digest, self.size_bytes, &self.media_type);
        if let Some(toc_digest) = &self.toc_digest {
            descriptor.annotations.insert(TOC_DIGEST_ANNOTATION.to_owned(), toc_digest.clone());
        }
        descriptor
    }
}

/// Consecutive layers of one snapshot that are shown as one tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The layers, the lowest first. Never empty.
    pub layers: Vec<RemoteLayer>,
    /// What overlayfs merges below them.
    pub below: Below,
}

/// The directory that shows a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LowerDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// Whether nothing below the run shows through. overlayfs asks no lower directory's own root for that, so whoever mounts has to leave
    /// out what lies below.
    pub is_opaque: bool,
}

/// What lies below a run of layers in a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Below {
    /// Nothing: the run's whiteouts are applied, and none is shown.
    Nothing,
    /// Layers that overlayfs merges with the run: whiteouts and opaque directories that concern them are shown as overlayfs knows them.
    Layers,
}
