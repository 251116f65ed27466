//! A repository in a registry as a source (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>).

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use snap_digest::Digest;

use crate::body::RegistryBlob;
use crate::cause::Cause;
use crate::chain::Chain;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::host::{Answer, Ask, Host};
use crate::limits::{DOCUMENT_MAX_BYTES, Limits, RECENT_DOCUMENTS};
use crate::media_type::{ACCEPT_DOCUMENT, is_schema1};
use crate::redirect::Target;
use crate::reference::RegistryReference;
use crate::response::limited_body;
use crate::schema1::schema1_payload;
use crate::source::{Blob, Source, bounded_document, bounded_small_blob};

const CONTENT_DIGEST: &str = "docker-content-digest";

/// A repository and the hosts that answer for its registry.
pub(crate) struct Repository {
    registry: String,
    name: String,
    hosts: Vec<Arc<Host>>,
    limits: Arc<Limits>,
}

impl Repository {
    pub(crate) fn new(reference: &RegistryReference, hosts: Vec<Arc<Host>>, limits: Arc<Limits>) -> Self {
        Self { registry: reference.host().to_owned(), name: reference.repository().to_owned(), hosts, limits }
    }

    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.name)
    }

    pub(crate) fn tags_path(&self) -> String {
        format!("{}/tags/list", self.name)
    }

    fn manifest_path(&self, name: &str) -> String {
        format!("{}/manifests/{name}", self.name)
    }

    /// The hosts that serve content by digest.
    pub(crate) fn pull_hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.iter().filter(|host| host.config.can_pull)
    }

    pub(crate) fn pull_chain(&self, path: &str) -> Result<Chain, Error> {
        self.chain(path, self.pull_hosts().cloned().collect(), "pull")
    }

    pub(crate) fn resolve_chain(&self, path: &str) -> Result<Chain, Error> {
        self.chain(path, self.hosts.iter().filter(|host| host.config.can_resolve).cloned().collect(), "resolve")
    }

    fn chain(&self, path: &str, hosts: Vec<Arc<Host>>, purpose: &'static str) -> Result<Chain, Error> {
        Chain::new(&self.registry, path, hosts, self.limits.clone(), purpose)
    }
}

/// What content has to be.
struct Expected {
    digest: Digest,
    /// Not known of a document that only its digest names.
    size_bytes: Option<u64>,
}

impl Expected {
    fn check(&self, bytes: &[u8]) -> Result<(), Cause> {
        let actual_bytes = bytes.len() as u64;
        match self.size_bytes.filter(|size_bytes| *size_bytes != actual_bytes) {
            Some(expected_bytes) => Err(Cause::SizeMismatch { expected_bytes, actual_bytes }),
            None => match Digest::of(bytes) {
                actual if actual == self.digest => Ok(()),
                actual => Err(Cause::DigestMismatch { expected: self.digest, actual }),
            },
        }
    }
}

/// An image in a registry.
pub(crate) struct RegistrySource {
    reference: RegistryReference,
    repository: Arc<Repository>,
    /// Documents that resolving has read anyway, so that nobody asks twice. Verified.
    recent: Mutex<Vec<(Digest, Bytes)>>,
}

impl RegistrySource {
    pub(crate) fn new(reference: RegistryReference, repository: Arc<Repository>) -> Self {
        Self { reference, repository, recent: Mutex::default() }
    }

    /// Gets verified content by digest from the first host that has it right.
    async fn verified(&self, path: &str, accept: Option<&'static str>, expected: Expected) -> Result<(HeaderMap, Bytes), Error> {
        let mut chain = self.repository.pull_chain(path)?;
        loop {
            let (_, host) = chain.host();
            match self.verified_at(&host.clone(), path, accept, &expected).await {
                Ok(content) => return Ok(content),
                Err(cause) => chain.failed(cause).await?,
            }
        }
    }

    async fn verified_at(
        &self,
        host: &Host,
        path: &str,
        accept: Option<&'static str>,
        expected: &Expected,
    ) -> Result<(HeaderMap, Bytes), Cause> {
        // Not kept: whole documents are read once. Its presence allows any redirect, as a digest is checked here.
        let target = Target::default();
        let answer = self.ask(host, Method::GET, path, accept, Some(&target)).await?;
        let headers = answer.response.headers().clone();
        let limit_bytes = expected.size_bytes.unwrap_or(DOCUMENT_MAX_BYTES);
        let bytes = limited_body(answer.response, limit_bytes, self.repository.limits()).await?;
        let refused = match expected.check(&bytes) {
            Ok(()) => return Ok((headers, bytes)),
            Err(cause) => cause,
        };
        // A signed schema 1 manifest is named by the digest of what is signed. Only that part has been verified, so only that is given.
        match schema1_payload(&bytes) {
            Ok(Some(payload)) if Digest::of(&payload) == expected.digest => Ok((headers, payload)),
            _ => Err(refused),
        }
    }

    async fn ask(
        &self,
        host: &Host,
        method: Method,
        path: &str,
        accept: Option<&'static str>,
        target: Option<&Target>,
    ) -> Result<Answer, Cause> {
        let repository = self.repository.name();
        host.send(&Ask { method, url: host.url(path), repository, accept, range: None, target }).await
    }

    /// What `tag` names at `host`. A `HEAD` is enough where the answer says all, and does not count as a pull.
    ///
    /// The refusal of a `HEAD` has no body that says why: the last host is asked again for one that has.
    async fn tag_at(&self, host: &Host, path: &str, is_last: bool) -> Result<Descriptor, Cause> {
        match self.ask(host, Method::HEAD, path, Some(ACCEPT_DOCUMENT), None).await {
            Ok(answer) => {
                if let Some(descriptor) = described(answer.response.headers())? {
                    return Ok(descriptor);
                }
            }
            Err(cause) if is_no_head(&cause) || (is_last && is_mute(&cause)) => {}
            Err(cause) => return Err(cause),
        }
        let answer = self.ask(host, Method::GET, path, Some(ACCEPT_DOCUMENT), None).await?;
        let headers = answer.response.headers().clone();
        let whole = limited_body(answer.response, DOCUMENT_MAX_BYTES, self.repository.limits()).await?;
        let is_signed = content_type(&headers).is_some_and(|media_type| is_schema1(&media_type));
        let payload = if is_signed { schema1_payload(&whole).ok().flatten() } else { None };
        let bytes = payload.unwrap_or(whole);
        let digest = Digest::of(&bytes);
        if let Some(expected) = content_digest(&headers)?.filter(|expected| *expected != digest) {
            return Err(Cause::DigestMismatch { expected, actual: digest });
        }
        self.remember(digest, bytes.clone());
        Ok(Descriptor::new(digest, bytes.len() as u64, content_type(&headers).unwrap_or_default()))
    }

    /// The size of a blob at `host`, by its headers. What signs a redirect for `GET` alone refuses a `HEAD`.
    async fn blob_size_at(&self, host: &Host, path: &str) -> Result<u64, Cause> {
        let target = Target::default();
        for method in [Method::HEAD, Method::GET] {
            match self.ask(host, method.clone(), path, None, Some(&target)).await {
                Ok(answer) => {
                    if let Some(size_bytes) = content_length(answer.response.headers()) {
                        return Ok(size_bytes);
                    }
                }
                Err(cause) if method == Method::HEAD && (is_no_head(&cause) || matches!(cause, Cause::Target(_))) => {}
                Err(cause) => return Err(cause),
            }
        }
        Err(Cause::Header("Content-Length"))
    }

    fn remember(&self, digest: Digest, bytes: Bytes) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT_DOCUMENTS {
            recent.remove(0);
        }
        recent.push((digest, bytes));
    }

    fn remembered(&self, digest: &Digest) -> Option<Bytes> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|(own, _)| own == digest).map(|(_, bytes)| bytes.clone())
    }
}

#[async_trait]
impl Source for RegistrySource {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn pinned(&self) -> Option<Digest> {
        self.reference.digest()
    }

    async fn resolve(&self) -> Result<Descriptor, Error> {
        if let Some(digest) = self.reference.digest() {
            let path = self.repository.manifest_path(&digest.to_string());
            let (headers, bytes) = self.verified(&path, Some(ACCEPT_DOCUMENT), Expected { digest, size_bytes: None }).await?;
            let descriptor = Descriptor::new(digest, bytes.len() as u64, content_type(&headers).unwrap_or_default());
            self.remember(digest, bytes);
            return Ok(descriptor);
        }
        let path = self.repository.manifest_path(self.reference.tag().unwrap_or_default());
        let mut chain = self.repository.resolve_chain(&path)?;
        loop {
            let (index, host) = chain.host();
            match self.tag_at(&host.clone(), &path, index + 1 == chain.host_count()).await {
                Ok(descriptor) => return Ok(descriptor),
                Err(cause) => chain.failed(cause).await?,
            }
        }
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        bounded_document(descriptor)?;
        if let Some(bytes) = self.remembered(&descriptor.digest) {
            return Ok(bytes);
        }
        let path = self.repository.manifest_path(&descriptor.digest.to_string());
        let expected = Expected { digest: descriptor.digest, size_bytes: Some(descriptor.size_bytes) };
        self.verified(&path, Some(ACCEPT_DOCUMENT), expected).await.map(|(_, bytes)| bytes)
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        bounded_small_blob(descriptor)?;
        let path = self.repository.blob_path(&descriptor.digest);
        let expected = Expected { digest: descriptor.digest, size_bytes: Some(descriptor.size_bytes) };
        self.verified(&path, None, expected).await.map(|(_, bytes)| bytes)
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64, Error> {
        let path = self.repository.blob_path(digest);
        let mut chain = self.repository.pull_chain(&path)?;
        loop {
            let (_, host) = chain.host();
            match self.blob_size_at(&host.clone(), &path).await {
                Ok(size_bytes) => return Ok(size_bytes),
                Err(cause) => chain.failed(cause).await?,
            }
        }
    }

    fn blob(&self, descriptor: &Descriptor) -> Arc<dyn Blob> {
        Arc::new(RegistryBlob::new(self.repository.clone(), descriptor.digest, descriptor.size_bytes))
    }
}

/// The descriptor in the headers of a manifest, if all of it is there.
fn described(headers: &HeaderMap) -> Result<Option<Descriptor>, Cause> {
    let size_bytes = content_length(headers).filter(|size| *size > 0);
    let (Some(digest), Some(size_bytes), Some(media_type)) = (content_digest(headers)?, size_bytes, content_type(headers)) else {
        return Ok(None);
    };
    Ok(Some(Descriptor::new(digest, size_bytes, media_type)))
}

/// Whether `cause` is how servers say that they do not know `HEAD`.
fn is_no_head(cause: &Cause) -> bool {
    matches!(cause, Cause::Status { status: 400 | 405, .. } | Cause::Server { status: 501, .. })
}

/// Whether `cause` is a refusal without a reason. One of credentials is not asked for again: that would count as another attempt.
fn is_mute(cause: &Cause) -> bool {
    let is_refusal = matches!(cause, Cause::NotFound | Cause::Denied { .. } | Cause::Unauthorized { with_credentials: false, .. });
    is_refusal && cause.message().is_none()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn content_digest(headers: &HeaderMap) -> Result<Option<Digest>, Cause> {
    let Some(value) = headers.get(CONTENT_DIGEST) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Cause::Header("Docker-Content-Digest"))?;
    Ok(Some(text.trim().parse()?))
}

/// The media type without parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = text.split(';').next().unwrap_or_default().trim();
    (!media_type.is_empty()).then(|| media_type.to_ascii_lowercase())
}
