//! From a reference to an image: the index, the platform's manifest and the configuration, from the registry or a local store.

use async_trait::async_trait;
use bytes::Bytes;
use oci_spec::image as oci;
use snap_digest::Digest;

use crate::descriptor::Descriptor;
use crate::error::{Error, ErrorKind, Schema1Found};
use crate::limits::INDEX_DEPTH_MAX;
use crate::manifest::{DocumentError, ImageManifest, choose_platform, document_media_type, parse_manifest};
use crate::media_type::{DOCKER_SCHEMA1_SIGNED, is_index, is_schema1};
use crate::platform::Platform;
use crate::source::Source;

/// A local store of verified documents and of what references named when they were last asked for.
///
/// Whatever it fails to keep is fetched again: nothing here returns an error.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// The document or configuration with this digest.
    async fn get(&self, digest: &Digest) -> Option<Bytes>;
    /// Keeps a document whose digest has been verified.
    async fn put(&self, digest: &Digest, bytes: &[u8]);
    /// What `reference` (canonical) named when it was last resolved.
    async fn resolved(&self, reference: &str) -> Option<Descriptor>;
    /// Keeps what `reference` (canonical) names.
    async fn set_resolved(&self, reference: &str, descriptor: &Descriptor);
}

/// A store that keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoStore;

#[async_trait]
impl DocumentStore for NoStore {
    async fn get(&self, _: &Digest) -> Option<Bytes> {
        None
    }
    async fn put(&self, _: &Digest, _: &[u8]) {}
    async fn resolved(&self, _: &str) -> Option<Descriptor> {
        None
    }
    async fn set_resolved(&self, _: &str, _: &Descriptor) {}
}

/// What an image configuration says that this product uses or shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What the image runs on.
    pub platform: Platform,
    /// The digest of each layer's uncompressed tar, the lowest first.
    pub diff_ids: Vec<Digest>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// The program, and arguments that stay.
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace, or the program if there is no entry point.
    pub cmd: Vec<String>,
    /// Where the program starts; empty: `/`.
    pub working_dir: String,
    /// `user[:group]`, as names or numbers; empty: root.
    pub user: String,
}

impl ImageConfig {
    /// What each layer makes together with those below it, the lowest first
    /// (<https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid>).
    pub fn chain_ids(&self) -> Vec<Digest> {
        let onto = |below: &mut Option<Digest>, diff_id: &Digest| {
            *below = Some(chain_id(*below, *diff_id));
            *below
        };
        self.diff_ids.iter().scan(None, onto).collect()
    }
}

/// What a layer makes together with what is below it.
pub fn chain_id(below: Option<Digest>, diff_id: Digest) -> Digest {
    below.map_or(diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes()))
}

/// An image for one platform: everything that has to be known before its layers are opened.
#[derive(Debug, Clone)]
pub struct Image {
    /// The canonical reference it was asked by.
    pub reference: String,
    /// What the reference names: an index or the manifest.
    pub root: Descriptor,
    /// The indexes passed on the way to the manifest, the outermost first, each with its own bytes. Empty where the root is the
    /// manifest. What [`ImageManifest::descriptor`] holds is how the last of them describes the manifest.
    pub indexes: Vec<(Descriptor, Bytes)>,
    /// The platform's manifest.
    pub manifest: ImageManifest,
    /// The manifest's own bytes.
    pub manifest_bytes: Bytes,
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration's own bytes.
    pub config_bytes: Bytes,
    /// Why the registry could not be asked, if what the reference named earlier was used instead.
    pub stale: Option<String>,
}

/// Reads an image configuration.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    let configuration: oci::ImageConfiguration = serde_json::from_slice(bytes)?;
    if configuration.rootfs().typ() != "layers" {
        return Err(DocumentError::RootFs(configuration.rootfs().typ().chars().take(100).collect()));
    }
    let config = configuration.config().clone().unwrap_or_default();
    Ok(ImageConfig {
        platform: Platform::normalized(
            &configuration.os().to_string(),
            &configuration.architecture().to_string(),
            configuration.variant().as_deref(),
        ),
        diff_ids: configuration.rootfs().diff_ids().iter().map(|diff_id| diff_id.parse()).collect::<Result<_, _>>()?,
        env: config.env().clone().unwrap_or_default(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
    })
}

/// Resolves the reference of `source` and reads manifest and configuration for `platform`.
///
/// Documents that `docs` has are not asked for again. A registry that cannot be reached or does not let us in (never one that
/// says "not found") is replaced by what `docs` knows the reference to have named, if all its documents are there or can be had.
/// A schema 1 manifest is [`Error::Schema1`], which holds it.
pub async fn resolve_image(source: &dyn Source, docs: &dyn DocumentStore, platform: &Platform) -> Result<Image, Error> {
    let walk = Walk { source, docs, platform };
    if let Some(root) = walk.pinned_root().await? {
        return walk.image(root).await;
    }
    let reference = source.name();
    let fresh = match source.resolve().await {
        Ok(root) => walk.image(root).await,
        Err(error) => Err(error),
    };
    match fresh {
        Ok(image) => {
            docs.set_resolved(&reference, &image.root).await;
            Ok(image)
        }
        Err(error) if allows_stale(&error) => {
            let Some(root) = docs.resolved(&reference).await else { return Err(error) };
            tracing::warn!(%reference, %error, digest = %root.digest, "the registry does not answer; using what the reference named before");
            match walk.image(root).await {
                Ok(image) => Ok(Image { stale: Some(error.to_string()), ..image }),
                Err(_) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Reads manifest and configuration of what `source` has resolved to `root`, for `platform`.
///
/// Documents that `docs` has are not asked for again. Errors as those of [`resolve_image`].
pub async fn resolve_image_at(
    source: &dyn Source,
    docs: &dyn DocumentStore,
    platform: &Platform,
    root: Descriptor,
) -> Result<Image, Error> {
    Walk { source, docs, platform }.image(root).await
}

/// Whether `error` says nothing about what the reference names.
fn allows_stale(error: &Error) -> bool {
    error.is_temporary() || matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Denied)
}

/// What lies between a root and an image.
struct Found {
    indexes: Vec<(Descriptor, Bytes)>,
    manifest: ImageManifest,
    manifest_bytes: Bytes,
}

/// One way from a root descriptor down to an image.
struct Walk<'a> {
    source: &'a dyn Source,
    docs: &'a dyn DocumentStore,
    platform: &'a Platform,
}

impl Walk<'_> {
    /// For a reference with a digest whose document is in the store: its descriptor, without asking anyone.
    async fn pinned_root(&self) -> Result<Option<Descriptor>, Error> {
        let Some(digest) = self.source.pinned() else { return Ok(None) };
        let Some(bytes) = self.docs.get(&digest).await else { return Ok(None) };
        // The content says what it is, so the descriptor need not.
        Ok(Some(Descriptor::new(digest, bytes.len() as u64, "")))
    }

    async fn image(&self, root: Descriptor) -> Result<Image, Error> {
        let Found { indexes, manifest, manifest_bytes } = self.manifest(&root).await?;
        let root = indexes.first().map_or(&manifest.descriptor, |(root, _)| root).clone();
        let config_bytes = match self.stored(&manifest.config).await {
            Some(bytes) => bytes,
            None => {
                let bytes = self.source.small_blob(&manifest.config).await?;
                self.docs.put(&manifest.config.digest, &bytes).await;
                bytes
            }
        };
        let config = parse_config(&config_bytes).map_err(|error| invalid("configuration", &manifest.config, error))?;
        if config.diff_ids.len() != manifest.layers.len() {
            let error = DocumentError::LayerCount { layers: manifest.layers.len(), diff_ids: config.diff_ids.len() };
            return Err(invalid("manifest", &manifest.descriptor, error));
        }
        Ok(Image { reference: self.source.name(), root, indexes, manifest, manifest_bytes, config, config_bytes, stale: None })
    }

    /// Follows indexes down to the platform's manifest.
    async fn manifest(&self, root: &Descriptor) -> Result<Found, Error> {
        let mut indexes = Vec::new();
        let mut descriptor = root.clone();
        for _ in 0..=INDEX_DEPTH_MAX {
            let bytes = self.document(&descriptor).await?;
            descriptor.media_type = match document_media_type(&bytes, &descriptor.media_type) {
                Ok(media_type) => media_type,
                Err(DocumentError::Schema1) => return Err(schema1(descriptor, bytes)),
                Err(error) => return Err(invalid("document", &descriptor, error)),
            };
            if is_index(&descriptor.media_type) {
                let chosen = choose_platform(&bytes, self.platform)?;
                indexes.push((descriptor, bytes));
                descriptor = chosen;
            } else {
                let manifest = parse_manifest(&bytes, &descriptor).map_err(|error| invalid("document", &descriptor, error))?;
                return Ok(Found { indexes, manifest, manifest_bytes: bytes });
            }
        }
        Err(invalid("image index", root, DocumentError::TooDeep))
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        if let Some(bytes) = self.stored(descriptor).await {
            return Ok(bytes);
        }
        let bytes = self.source.document(descriptor).await?;
        self.docs.put(&descriptor.digest, &bytes).await;
        Ok(bytes)
    }

    /// What the store has, if it is what it should be: the disk it comes from may lie too.
    async fn stored(&self, descriptor: &Descriptor) -> Option<Bytes> {
        self.docs.get(&descriptor.digest).await.filter(|bytes| Digest::of(bytes) == descriptor.digest)
    }
}

/// The registry tells the size of a signed manifest as it sends it, and only what is signed has been verified and kept.
fn schema1(descriptor: Descriptor, bytes: Bytes) -> Error {
    let media_type = if is_schema1(&descriptor.media_type) { descriptor.media_type } else { DOCKER_SCHEMA1_SIGNED.to_owned() };
    Error::Schema1(Box::new(Schema1Found { root: Descriptor::new(descriptor.digest, bytes.len() as u64, media_type), bytes }))
}

fn invalid(kind: &str, descriptor: &Descriptor, source: DocumentError) -> Error {
    Error::Document { what: format!("{kind} {}", descriptor.digest), source: source.into() }
}
