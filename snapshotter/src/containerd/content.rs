//! Content that is there: its labels, its bytes, its end.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use prost_types::FieldMask;
use snap_digest::Digest;
use snap_registry::Descriptor;

use super::error::found;
use super::{Begin, CALL_TIMEOUT, Containerd, ContainerdError, Result, Transport, required};
use crate::api::content as api;
use crate::api::content::content_client::ContentClient;
use crate::limits::MAX_CONTAINERD_MESSAGE_BYTES;

/// What containerd knows of content besides its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContentInfo {
    /// How many bytes it has.
    pub size_bytes: u64,
    /// What clients have noted of it; some say what else it keeps from the garbage collector.
    pub labels: BTreeMap<String, String>,
}

impl Containerd {
    /// What is known of the content, if it is there.
    pub async fn content(&self, digest: &Digest) -> Result<Option<ContentInfo>> {
        let doing = || format!("look for {digest}");
        let info = async { self.content_client().info(api::InfoRequest { digest: digest.to_string() }).await };
        let Some(answer) = found(self.answer(doing, CALL_TIMEOUT, info).await)? else { return Ok(None) };
        let info = required(answer.info, "no content", doing)?;
        let Ok(size_bytes) = u64::try_from(info.size) else {
            return Err(ContainerdError::BadAnswer { doing: doing(), problem: format!("a size of {} bytes", info.size) });
        };
        Ok(Some(ContentInfo { size_bytes, labels: info.labels }))
    }

    /// Adds `labels` to those of the content, in place of those of the same keys; one without a value is taken away.
    pub async fn label_content(&self, digest: &Digest, labels: &BTreeMap<String, String>) -> Result<()> {
        // No path at all would mean every field.
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = api::Info { digest: digest.to_string(), size: 0, labels: labels.clone() };
        let request = api::UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
        let update = async { self.content_client().update(request).await };
        self.answer(|| format!("label {digest}"), CALL_TIMEOUT, update).await.map(drop)
    }

    /// The bytes of the content, at most `limit_bytes` of them, checked against `digest`.
    pub async fn read_content(&self, digest: &Digest, limit_bytes: u64) -> Result<Bytes> {
        let doing = || format!("read {digest}");
        // One byte more tells what is larger.
        let size = i64::try_from(limit_bytes).unwrap_or(i64::MAX).saturating_add(1);
        let request = api::ReadContentRequest { digest: digest.to_string(), offset: 0, size };
        let read = async { self.content_client().read(request).await };
        let mut pieces = self.answer(doing, CALL_TIMEOUT, read).await?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.within(doing, CALL_TIMEOUT, pieces.message()).await? {
            if (bytes.len() + piece.data.len()) as u64 > limit_bytes {
                return Err(ContainerdError::TooLarge { digest: *digest, limit_bytes });
            }
            bytes.extend_from_slice(&piece.data);
        }
        let bytes = bytes.freeze();
        if Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(ContainerdError::DigestMismatch { digest: *digest }) }
    }

    /// Writes a document of a few bytes, which are those of `descriptor`, and labels it. If it is there it is labelled only.
    pub async fn write_content(&self, descriptor: &Descriptor, bytes: Bytes, labels: &BTreeMap<String, String>) -> Result<()> {
        // What is wrong would be found by containerd too, but would leave an ingest.
        if bytes.len() as u64 != descriptor.size_bytes {
            let (expected_bytes, actual_bytes) = (descriptor.size_bytes, bytes.len() as u64);
            return Err(ContainerdError::SizeMismatch { digest: descriptor.digest, expected_bytes, actual_bytes });
        }
        if Digest::of(&bytes) != descriptor.digest {
            return Err(ContainerdError::DigestMismatch { digest: descriptor.digest });
        }
        match self.begin_write(descriptor).await? {
            Begin::Here => self.label_content(&descriptor.digest, labels).await,
            Begin::Writer(mut writer) => {
                // Of so little nothing is worth going on with.
                writer.restart().await?;
                writer.write(bytes).await?;
                writer.commit(labels).await
            }
        }
    }

    /// Deletes the content, if it is there, whatever refers to it.
    pub async fn delete_content(&self, digest: &Digest) -> Result<()> {
        let delete = async { self.content_client().delete(api::DeleteContentRequest { digest: digest.to_string() }).await };
        found(self.answer(|| format!("delete {digest}"), CALL_TIMEOUT, delete).await).map(drop)
    }

    pub(super) fn content_client(&self) -> ContentClient<Transport> {
        ContentClient::new(self.transport()).max_decoding_message_size(MAX_CONTAINERD_MESSAGE_BYTES)
    }
}
