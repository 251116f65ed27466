//! The unpacking of layers, which containerd does.

use std::time::Duration;

use snap_digest::Digest;
use snap_registry::Descriptor;

use super::descriptor::{of_message, to_message};
use super::{Containerd, ContainerdError, Mount, Result, required};
use crate::api::diff::ApplyRequest;
use crate::api::diff::diff_client::DiffClient;
use crate::limits::LAYER_APPLY_TIMEOUT_MS;

const APPLY_TIMEOUT: Duration = Duration::from_millis(LAYER_APPLY_TIMEOUT_MS);

impl Containerd {
    /// Unpacks `layer`, whose blob is in the content store, into what `mounts` show, and gives its diff ID. Which compression it has
    /// is told by its media type.
    pub async fn apply(&self, layer: &Descriptor, mounts: &[Mount]) -> Result<Digest> {
        let doing = || format!("unpack the layer {}", layer.digest);
        let request = ApplyRequest { diff: Some(to_message(layer)), mounts: mounts.to_vec() };
        let mut client = DiffClient::new(self.transport());
        let answer = self.answer(doing, APPLY_TIMEOUT, client.apply(request)).await?;
        let applied = of_message(required(answer.applied, "no diff ID", doing)?);
        applied.map(|applied| applied.digest).map_err(|problem| ContainerdError::BadAnswer { doing: doing(), problem })
    }
}
