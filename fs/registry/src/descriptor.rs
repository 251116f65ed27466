//! What names content: digest, size and type.

use std::collections::BTreeMap;

use oci_spec::image as oci;
use serde::{Deserialize, Serialize};
use snap_digest::{Digest, DigestError};

use crate::platform::Platform;

/// A descriptor of the OCI image specification, of which the digest is known to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content.
    pub size_bytes: u64,
    /// The media type, without parameters.
    pub media_type: String,
    /// What else the one who wrote it had to say.
    pub annotations: BTreeMap<String, String>,
    /// Other places of the content. Not used to fetch anything: shown only.
    pub urls: Vec<String>,
    /// What a manifest in an index is for.
    pub platform: Option<Platform>,
    /// What the content is, where it is not an image.
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing but what every one has.
    pub fn new(digest: Digest, size_bytes: u64, media_type: impl Into<String>) -> Self {
        Self {
            digest,
            size_bytes,
            media_type: media_type.into(),
            annotations: BTreeMap::new(),
            urls: Vec::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of `bytes`.
    pub fn of(bytes: &[u8], media_type: impl Into<String>) -> Self {
        Self::new(Digest::of(bytes), bytes.len() as u64, media_type)
    }

    pub(crate) fn from_oci(descriptor: &oci::Descriptor) -> Result<Self, DigestError> {
        let platform = descriptor.platform().as_ref().map(|platform| {
            Platform::normalized(&platform.os().to_string(), &platform.architecture().to_string(), platform.variant().as_deref())
        });
        Ok(Self {
            digest: AsRef::<str>::as_ref(descriptor.digest()).parse()?,
            size_bytes: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
            annotations: descriptor.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
            urls: descriptor.urls().clone().unwrap_or_default(),
            platform,
            artifact_type: descriptor.artifact_type().as_ref().map(ToString::to_string),
        })
    }
}

/// The part of a descriptor that a local record of a resolved reference needs; in the image specification's JSON names.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Serialize for Descriptor {
    /// Digest, size and media type only.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { media_type: self.media_type.clone(), digest: self.digest, size: self.size_bytes }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer).map(|stored| Self::new(stored.digest, stored.size, stored.media_type))
    }
}
