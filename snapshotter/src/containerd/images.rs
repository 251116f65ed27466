//! Image records: names for content.

use std::collections::BTreeMap;

use prost_types::FieldMask;
use snap_registry::Descriptor;
use tonic::Code;

use super::descriptor::{of_message, to_message};
use super::error::found;
use super::leases::deletion_timeout;
use super::{CALL_TIMEOUT, Containerd, ContainerdError, ContainerdErrorKind, Result, Transport, required};
use crate::api::images as api;
use crate::api::images::images_client::ImagesClient;
use crate::limits::{MAX_CONTAINERD_MESSAGE_BYTES, PUT_IMAGE_TRIES};

/// An image as containerd knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageRecord {
    /// Its name, in full: `docker.io/library/debian:12`.
    pub name: String,
    /// What clients have noted of it.
    pub labels: BTreeMap<String, String>,
    /// Its manifest, or the index of its manifests.
    pub target: Descriptor,
}

impl Containerd {
    /// The image of that name, if there is one.
    pub async fn image(&self, name: &str) -> Result<Option<ImageRecord>> {
        let doing = || format!("read the image {name}");
        let get = async { self.images_client().get(api::GetImageRequest { name: name.to_owned() }).await };
        let Some(answer) = found(self.answer(doing, CALL_TIMEOUT, get).await)? else { return Ok(None) };
        let image = required(answer.image, "no image", doing)?;
        ImageRecord::of(image).map(Some).map_err(|problem| ContainerdError::BadAnswer { doing: doing(), problem })
    }

    /// The images that any of `filters` (in containerd's grammar: `name==…`, `labels."…"==…`) takes, or all where there is none.
    /// One whose target has no sha256 digest is left out.
    pub async fn images(&self, filters: &[String]) -> Result<Vec<ImageRecord>> {
        let list = async { self.images_client().list(api::ListImagesRequest { filters: filters.to_vec() }).await };
        let answer = self.answer(|| "list images".to_owned(), CALL_TIMEOUT, list).await?;
        let known = |image: api::Image| {
            let name = image.name.clone();
            ImageRecord::of(image).inspect_err(|problem| tracing::debug!(name, problem, "an image was left out")).ok()
        };
        Ok(answer.images.into_iter().filter_map(known).collect())
    }

    /// Makes the name of `record` mean its target, with its labels and no others, whether or not there is an image of that name.
    pub async fn put_image(&self, record: &ImageRecord) -> Result<()> {
        let doing = || format!("record the image {}", record.name);
        let image = api::Image { name: record.name.clone(), labels: record.labels.clone(), target: Some(to_message(&record.target)) };
        let paths = ["target", "labels"].map(str::to_owned).to_vec();
        for _ in 0..PUT_IMAGE_TRIES {
            let request = api::CreateImageRequest { image: Some(image.clone()) };
            let create = async { self.images_client().create(request).await };
            match self.answer(doing, CALL_TIMEOUT, create).await {
                Err(error) if error.kind() == ContainerdErrorKind::AlreadyExists => {}
                created => return created.map(drop),
            }
            let request = api::UpdateImageRequest { image: Some(image.clone()), update_mask: Some(FieldMask { paths: paths.clone() }) };
            let update = async { self.images_client().update(request).await };
            // Another client may have deleted it since.
            if found(self.answer(doing, CALL_TIMEOUT, update).await)?.is_some() {
                return Ok(());
            }
        }
        let reason = "other clients delete and make it all the while".to_owned();
        Err(ContainerdError::Call { doing: doing(), code: Code::Aborted, reason })
    }

    /// Deletes the image of that name, if there is one. What nothing else refers to is collected: before this returns if
    /// `synchronous`, else later.
    pub async fn delete_image(&self, name: &str, synchronous: bool) -> Result<()> {
        let delete = async { self.images_client().delete(api::DeleteImageRequest { name: name.to_owned(), sync: synchronous }).await };
        found(self.answer(|| format!("delete the image {name}"), deletion_timeout(synchronous), delete).await).map(drop)
    }

    fn images_client(&self) -> ImagesClient<Transport> {
        ImagesClient::new(self.transport()).max_decoding_message_size(MAX_CONTAINERD_MESSAGE_BYTES)
    }
}

impl ImageRecord {
    /// The record that containerd answers with, or what is wrong with it.
    fn of(image: api::Image) -> Result<Self, String> {
        let target = image.target.ok_or_else(|| "an image without a target".to_owned())?;
        Ok(Self { name: image.name, labels: image.labels, target: of_message(target)? })
    }
}
