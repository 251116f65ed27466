//! Content on its way into containerd.
//!
//! A write is a stream of requests, each answered in its turn. containerd names it by a reference, which it lets one client at a time
//! have. What was written under a reference stays when the stream ends without a commit, and the next who takes it goes on there.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use snap_digest::Digest;
use snap_registry::{Descriptor, is_index, is_manifest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::error::found;
use super::{CALL_TIMEOUT, Containerd, ContainerdError, ContainerdErrorKind, Result, required};
use crate::api::content::{AbortRequest, WriteAction, WriteContentRequest, WriteContentResponse};
use crate::limits::{CONTENT_COMMIT_TIMEOUT_MS, CONTENT_WRITE_TIMEOUT_MS, WRITE_AHEAD_BYTES, WRITE_AHEAD_PIECES, WRITE_PIECE_BYTES};

const WRITE_TIMEOUT: Duration = Duration::from_millis(CONTENT_WRITE_TIMEOUT_MS);
const COMMIT_TIMEOUT: Duration = Duration::from_millis(CONTENT_COMMIT_TIMEOUT_MS);

/// The name that whoever made an OCI layout gave a descriptor in it.
const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// How a write begins.
#[derive(Debug)]
pub enum Begin {
    /// The content is wanted.
    Writer(Box<ContentWriter>),
    /// It is there already, and held by the lease from now on.
    Here,
}

/// Content that is being written. When it is dropped, containerd keeps what was written for the next who begins.
pub struct ContentWriter {
    containerd: Containerd,
    digest: Digest,
    size_bytes: u64,
    reference: String,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    /// Bytes that were sent, with those that were there at the beginning.
    sent_bytes: u64,
    /// Of these, those that containerd says it has written.
    written_bytes: u64,
    /// Requests that are not answered yet.
    unanswered: usize,
}

impl Containerd {
    /// Begins to write the content of `descriptor`, or goes on with what was broken off. While another client writes it, the error is
    /// [`ContainerdError::Busy`]: containerd itself has waited about a second then.
    pub async fn begin_write(&self, descriptor: &Descriptor) -> Result<Begin> {
        let (digest, size_bytes) = (descriptor.digest, descriptor.size_bytes);
        let reference = reference(descriptor);
        let (requests, stream) = mpsc::channel(WRITE_AHEAD_PIECES + 1);
        let begin = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total: size_bytes.cast_signed(),
            expected: digest.to_string(),
            ..WriteContentRequest::default()
        };
        let doing = || format!("begin to write {digest}");
        let opened = async {
            // containerd begins to answer with its first answer.
            requests.send(begin).await.map_err(|_| Status::internal("the stream has no room"))?;
            let mut answers = self.content_client().write(ReceiverStream::new(stream)).await?.into_inner();
            let first = answers.message().await?;
            Ok((answers, first))
        };
        let (answers, first) = match self.within(doing, COMMIT_TIMEOUT, opened).await {
            Err(error) if error.kind() == ContainerdErrorKind::AlreadyExists => return Ok(Begin::Here),
            Err(ContainerdError::Call { code: Code::Unavailable, reason, .. }) if reason.contains("locked") => {
                return Err(ContainerdError::Busy { reference });
            }
            opened => opened?,
        };
        let written_bytes = offset(&required(first, "no state of the write", doing)?);
        let containerd = self.clone();
        let sent_bytes = written_bytes;
        let mut writer =
            ContentWriter { containerd, digest, size_bytes, reference, requests, answers, sent_bytes, written_bytes, unanswered: 0 };
        if written_bytes > size_bytes {
            writer.restart().await?;
        }
        Ok(Begin::Writer(Box::new(writer)))
    }

    async fn abort_write(&self, reference: &str) -> Result<()> {
        let abort = async { self.content_client().abort(AbortRequest { r#ref: reference.to_owned() }).await };
        found(self.answer(|| format!("give up writing {reference}"), CALL_TIMEOUT, abort).await).map(drop)
    }
}

impl ContentWriter {
    /// How many bytes there are already: what is to be written next begins there.
    pub fn offset(&self) -> u64 {
        self.sent_bytes
    }

    /// Writes the next bytes. Returns when containerd lags behind by no more than [`WRITE_AHEAD_BYTES`]; what goes wrong with bytes
    /// that were sent ahead is told by a later call.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        let actual_bytes = self.sent_bytes + bytes.len() as u64;
        if actual_bytes > self.size_bytes {
            return Err(self.wrong_size(actual_bytes));
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(WRITE_PIECE_BYTES));
            let after = self.sent_bytes + piece.len() as u64;
            while self.unanswered >= WRITE_AHEAD_PIECES || (self.unanswered > 0 && after - self.written_bytes > WRITE_AHEAD_BYTES) {
                self.next_answer(WRITE_TIMEOUT).await?;
            }
            let request = WriteContentRequest { data: piece, ..self.request(WriteAction::Write) };
            self.send(request).await?;
            self.sent_bytes = after;
        }
        Ok(())
    }

    /// Drops all that was written, to begin again at 0.
    pub async fn restart(&mut self) -> Result<()> {
        self.catch_up(WRITE_TIMEOUT).await?;
        if self.sent_bytes == 0 {
            return Ok(());
        }
        self.sent_bytes = 0;
        // A write at 0, where more was written, is what containerd begins again for.
        let request = self.request(WriteAction::Write);
        self.send(request).await?;
        self.catch_up(WRITE_TIMEOUT).await
    }

    /// Makes what was written content with `labels`, once all of it is there. If it has become content in the meantime, that one is
    /// labelled.
    ///
    /// Where the bytes are not those of the digest ([`ContainerdError::DigestMismatch`]), what was written is deleted.
    pub async fn commit(mut self, labels: &BTreeMap<String, String>) -> Result<()> {
        if self.sent_bytes != self.size_bytes {
            return Err(self.wrong_size(self.sent_bytes));
        }
        // Nothing is repeated of what containerd should expect: it would look for the content, and if it is there say so without
        // having it held by the lease.
        let request = WriteContentRequest { labels: labels.clone(), ..self.request(WriteAction::Commit) };
        let committed = match self.send(request).await {
            Ok(()) => self.catch_up(COMMIT_TIMEOUT).await,
            failed => failed,
        };
        match committed {
            Err(error) if error.kind() == ContainerdErrorKind::AlreadyExists => self.containerd.label_content(&self.digest, labels).await,
            Err(ContainerdError::Call { code: Code::FailedPrecondition, .. }) => {
                let digest = self.digest;
                if let Err(error) = self.abort().await {
                    tracing::warn!(%digest, %error, "wrong bytes were left in containerd");
                }
                Err(ContainerdError::DigestMismatch { digest })
            }
            committed => committed,
        }
    }

    /// Gives up, and deletes what was written.
    pub async fn abort(self) -> Result<()> {
        let Self { containerd, digest, reference, requests, mut answers, .. } = self;
        // containerd closes its file when it has seen the end of the requests, and ends the answers then.
        drop(requests);
        let closed = async {
            while let Some(_answer) = answers.message().await? {}
            Ok(())
        };
        match containerd.within(|| format!("give up writing {digest}"), WRITE_TIMEOUT, closed).await {
            // The stream may be the reason for giving up.
            Ok(()) | Err(ContainerdError::Call { .. }) => containerd.abort_write(&reference).await,
            failed => failed,
        }
    }

    fn request(&self, action: WriteAction) -> WriteContentRequest {
        WriteContentRequest { action: action.into(), offset: self.sent_bytes.cast_signed(), ..WriteContentRequest::default() }
    }

    /// There is always room for a request: fewer are without an answer.
    async fn send(&mut self, request: WriteContentRequest) -> Result<()> {
        if self.requests.send(request).await.is_ok() {
            self.unanswered += 1;
            return Ok(());
        }
        // The stream has ended; the answers end with the reason.
        loop {
            self.next_answer(WRITE_TIMEOUT).await?;
        }
    }

    async fn catch_up(&mut self, limit: Duration) -> Result<()> {
        while self.unanswered > 0 {
            self.next_answer(limit).await?;
        }
        Ok(())
    }

    async fn next_answer(&mut self, limit: Duration) -> Result<()> {
        let digest = self.digest;
        let doing = || format!("write {digest}");
        let answer = self.containerd.within(doing, limit, self.answers.message()).await?;
        self.written_bytes = offset(&required(answer, "come to its end", doing)?);
        self.unanswered = self.unanswered.saturating_sub(1);
        Ok(())
    }

    fn wrong_size(&self, actual_bytes: u64) -> ContainerdError {
        ContainerdError::SizeMismatch { digest: self.digest, expected_bytes: self.size_bytes, actual_bytes }
    }
}

impl fmt::Debug for ContentWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentWriter").field("reference", &self.reference).field("offset", &self.sent_bytes).finish_non_exhaustive()
    }
}

fn offset(answer: &WriteContentResponse) -> u64 {
    u64::try_from(answer.offset).unwrap_or_default()
}

/// What containerd's own clients call a write of this content (`remotes.MakeRefKey`), so that each goes on with what another began.
fn reference(descriptor: &Descriptor) -> String {
    let Descriptor { digest, media_type, .. } = descriptor;
    let kind = match media_type.as_str() {
        manifest if is_manifest(manifest) => "manifest",
        index if is_index(index) => "index",
        layer if is_layer(layer) => "layer",
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => "config",
        _ => "unknown",
    };
    match descriptor.annotations.get(REF_NAME_ANNOTATION) {
        Some(name) => format!("{kind}-{name}@{digest}"),
        None => format!("{kind}-{digest}"),
    }
}

/// Whether containerd takes it for a layer, which may be compressed and encrypted in any way.
fn is_layer(media_type: &str) -> bool {
    const DOCKER: [&str; 5] = [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ];
    let plain = media_type.split('+').next().unwrap_or_default();
    media_type.starts_with("application/vnd.oci.image.layer.") || DOCKER.contains(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_named_as_by_containerds_clients() {
        let digest = Digest::from_bytes([7; 32]);
        for (media_type, kind) in [
            ("application/vnd.oci.image.manifest.v1+json", "manifest"),
            ("application/vnd.docker.distribution.manifest.v2+json", "manifest"),
            ("application/vnd.oci.image.index.v1+json", "index"),
            ("application/vnd.docker.distribution.manifest.list.v2+json", "index"),
            ("application/vnd.oci.image.layer.v1.tar", "layer"),
            ("application/vnd.oci.image.layer.v1.tar+zstd", "layer"),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "layer"),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", "layer"),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted", "layer"),
            ("application/vnd.oci.image.config.v1+json", "config"),
            ("application/vnd.docker.container.image.v1+json", "config"),
            ("application/octet-stream", "unknown"),
        ] {
            assert_eq!(reference(&Descriptor::new(digest, 1, media_type)), format!("{kind}-{digest}"), "{media_type}");
        }
        let mut named = Descriptor::new(digest, 1, "application/vnd.oci.image.manifest.v1+json");
        named.annotations.insert(REF_NAME_ANNOTATION.to_owned(), "12".to_owned());
        assert_eq!(reference(&named), format!("manifest-12@{digest}"));
    }
}
