//! Pulls an image through containerd, as docker does, and made lazy wherever the snapshotter can serve a layer.
//!
//! # The way of an image
//! The reference is resolved and the image's documents go into containerd's content store (`documents`), under a lease, with the labels
//! that its garbage collector follows (`labels`). Then the layers, the lowest first (`unpack`): one that has its snapshot, or that the
//! snapshotter answers for, is there already; any other one is fetched into the content store (`download`) and unpacked by containerd's diff
//! service. Last comes the image's record, which from then on keeps all of it.
//!
//! What a pull that was interrupted has left is under its lease for a day, and the next pull of the image goes on with it. Two pulls at
//! once, of one process or several, do nothing twice (`chain_lock`).

mod busy;
mod chain_lock;
mod documents;
mod download;
mod error;
mod event;
mod fetch;
mod file_lock;
mod labels;
mod lease;
mod schema1;
mod unpack;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use snap_digest::Digest;
use snap_registry::{Client, Error, Image, Platform, Reference, Refusal, RegistryReference, Schema1Found, Source, resolve_image_at};

use crate::containerd::{Containerd, ImageRecord};
use crate::pull::chain_lock::ChainLocks;
use crate::pull::documents::StoredDocuments;
use crate::pull::download::Downloads;
use crate::pull::lease::Lease;
use crate::pull::schema1::Conversion;
use crate::pull::unpack::Unpack;

pub use error::PullError;
pub use event::{Event, Outcome, Step};
pub use fetch::Contents;

/// Takes what a pull tells.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// docker's namespace, and what it calls an image that has lost its name.
const DOCKER_NAMESPACE: &str = "moby";
const DANGLING: &str = "moby-dangling@";

/// A layer that a snapshotter reads whole at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The digest of its blob.
    pub layer: Digest,
    /// Bytes of the blob that were read.
    pub current_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Knows what the snapshotter does while it is waited for. containerd's interface does not.
#[async_trait]
pub trait Watch: Send + Sync {
    /// The layers that are being read; none where that is not known.
    async fn reading(&self) -> Vec<Reading>;
}

/// How images are pulled.
#[derive(Clone)]
pub struct PullOptions {
    /// The snapshotter, by its name in containerd.
    pub snapshotter: String,
    /// What images are for.
    pub platform: Platform,
    /// Where pulls of this machine keep the locks that tell each other what they work on.
    pub locks_dir: PathBuf,
    /// Whether images in docker's first format are converted instead of refused.
    pub allow_schema1: bool,
    /// Who knows more of the snapshotter.
    pub watch: Option<Arc<dyn Watch>>,
}

/// Pulls images into one namespace of one containerd.
pub struct Puller {
    containerd: Containerd,
    client: Client,
    options: PullOptions,
}

/// An image that was pulled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulled {
    /// The name of its record in containerd: `docker.io/library/debian:12`.
    pub name: String,
    /// What the reference names: the digest of an index or a manifest.
    pub digest: Digest,
    /// Whether the name stood for something else before, or for nothing. A digest is no news where its repository has an image of it.
    pub is_newer: bool,
}

impl Puller {
    /// Pulls through `containerd`, from the registries that `client` knows.
    ///
    /// # Errors
    /// [`PullError::UnknownSnapshotter`], and where containerd cannot be asked.
    pub async fn new(containerd: Containerd, client: Client, options: PullOptions) -> Result<Self, PullError> {
        let there = containerd.snapshotters().await?;
        if !there.contains(&options.snapshotter) {
            return Err(PullError::UnknownSnapshotter { name: options.snapshotter, there });
        }
        Ok(Self { containerd, client, options })
    }

    /// The tags of a repository, valid or not, in the registry's order.
    ///
    /// # Errors
    /// The registry's.
    pub async fn tags(&self, reference: &RegistryReference) -> Result<Vec<String>, PullError> {
        self.client.tags(reference).await.map_err(|error| denied(error, reference))
    }

    /// Pulls an image. It may be dropped at any time: the next pull of the same image goes on with what is there.
    ///
    /// # Errors
    /// See [`PullError`]. What was pulled until then stays for the next attempt, for a day.
    pub async fn pull(&self, reference: &RegistryReference, tell: Tell) -> Result<Pulled, PullError> {
        let reference = &reference.decisive();
        let name = reference.to_string();
        let before = self.before(reference, &name).await?;
        let source = self.client.source(&Reference::Registry(reference.clone()))?;
        let found = self.find(&*source, reference).await?;
        // From here on there is something to keep.
        let lease = Lease::create(&self.containerd, &self.options.locks_dir, &name).await?;
        let containerd = self.containerd.with_lease(lease.id())?;
        if let Found::Image(image) = &found {
            documents::file(&containerd, image, reference).await?;
        }
        let tag = reference.tag().map_or_else(|| name.clone(), str::to_owned);
        tell(Event::Resolved { repository: reference.repository().to_owned(), tag });
        let locks = self.locks(&containerd);
        let downloads = Downloads::new(containerd.clone(), Arc::clone(&source));
        let image = match found {
            Found::Image(image) => image,
            Found::Schema1(found) => {
                let conversion = Conversion {
                    containerd: containerd.clone(),
                    snapshotter: self.options.snapshotter.clone(),
                    reference: reference.clone(),
                    source,
                    downloads: Arc::clone(&downloads),
                    locks: locks.clone(),
                    tell: Arc::clone(&tell),
                };
                Arc::new(conversion.run(&found).await?)
            }
        };
        let unpack = Unpack {
            containerd: containerd.clone(),
            snapshotter: self.options.snapshotter.clone(),
            name: name.clone(),
            reference: reference.clone(),
            image: Arc::clone(&image),
            downloads,
            locks,
            watch: self.options.watch.clone(),
            tell,
        };
        unpack.run(unpack.hold_present(lease.id()).await?).await?;
        let target = image.root.clone();
        // What others have noted of the name, as that it is pinned, stays.
        let labels = before.as_ref().filter(|before| before.name == name).map(|before| before.labels.clone()).unwrap_or_default();
        let is_newer = before.as_ref().is_none_or(|before| before.target.digest != target.digest);
        if let Some(before) = before.filter(|_| is_newer) {
            self.keep_as_dangling(before).await;
        }
        let digest = target.digest;
        containerd.put_image(&ImageRecord { name: name.clone(), labels, target }).await?;
        self.remove_dangling(digest).await;
        lease.end().await;
        Ok(Pulled { name, digest, is_newer })
    }

    /// The image that the reference has meant until now. As docker sees it, a digest means whatever image of the repository has it.
    async fn before(&self, reference: &RegistryReference, name: &str) -> Result<Option<ImageRecord>, PullError> {
        let named = self.containerd.image(name).await?;
        let (None, Some(digest)) = (&named, reference.digest()) else { return Ok(named) };
        let mut same = self.containerd.images(&[format!("target.digest=={digest}")]).await?;
        let is_of_repository = |image: &ImageRecord| match image.name.parse() {
            Ok(Reference::Registry(other)) => (other.host(), other.repository()) == (reference.host(), reference.repository()),
            _ => false,
        };
        same.retain(is_of_repository);
        Ok(same.pop())
    }

    /// What the reference names, its documents read from where they are.
    async fn find(&self, source: &dyn Source, reference: &RegistryReference) -> Result<Found, PullError> {
        let docs = StoredDocuments(self.containerd.clone());
        let found = async { resolve_image_at(source, &docs, &self.options.platform, source.resolve().await?).await };
        match found.await {
            Ok(image) => Ok(Found::Image(Arc::new(image))),
            Err(Error::Schema1(found)) if self.options.allow_schema1 => Ok(Found::Schema1(found)),
            Err(Error::Schema1(_)) => Err(PullError::Schema1 { reference: reference.familiar() }),
            Err(error) => Err(denied(error, reference)),
        }
    }

    fn locks(&self, containerd: &Containerd) -> ChainLocks {
        let place = format!("{} {} {}", containerd.socket().display(), containerd.namespace(), self.options.snapshotter);
        ChainLocks::new(&self.options.locks_dir, &place)
    }

    /// docker keeps an image whose name has moved on until somebody prunes it. Other clients of containerd do not.
    async fn keep_as_dangling(&self, before: ImageRecord) {
        if self.containerd.namespace() != DOCKER_NAMESPACE {
            return;
        }
        let dangling = ImageRecord { name: dangling_name(&before.target.digest), ..before };
        if let Err(error) = self.containerd.put_image(&dangling).await {
            tracing::warn!(%error, "the image that had this name before could not be kept as a dangling one");
        }
    }

    /// What has a name again is not dangling any more.
    async fn remove_dangling(&self, digest: Digest) {
        if let Err(error) = self.containerd.delete_image(&dangling_name(&digest), false).await {
            tracing::warn!(%error, "a dangling image of the same digest could not be removed");
        }
    }
}

/// What a reference names.
enum Found {
    Image(Arc<Image>),
    Schema1(Box<Schema1Found>),
}

fn dangling_name(digest: &Digest) -> String {
    format!("{DANGLING}{digest}")
}

/// Says as docker does what a registry answers to those it does not let in.
fn denied(error: Error, reference: &RegistryReference) -> PullError {
    match error.refusal() {
        Some(Refusal::NoBasicCredentials) => PullError::NoCredentials { source: error },
        Some(Refusal::Unauthorized | Refusal::Denied | Refusal::RepositoryUnknown) => {
            PullError::AccessDenied { repository: reference.familiar_repository(), source: error }
        }
        _ => error.into(),
    }
}
