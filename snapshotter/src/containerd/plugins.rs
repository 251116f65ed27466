//! What containerd is made of.

use super::{CALL_TIMEOUT, Containerd, Result};
use crate::api::introspection::PluginsRequest;
use crate::api::introspection::introspection_client::IntrospectionClient;
use crate::limits::MAX_CONTAINERD_MESSAGE_BYTES;

const SNAPSHOTTERS: &str = "type==io.containerd.snapshotter.v1";

impl Containerd {
    /// The names of the snapshotters that can be used, in order. A proxy plugin is one of them whether or not its process runs.
    pub async fn snapshotters(&self) -> Result<Vec<String>> {
        let mut client = IntrospectionClient::new(self.transport()).max_decoding_message_size(MAX_CONTAINERD_MESSAGE_BYTES);
        let plugins = client.plugins(PluginsRequest { filters: vec![SNAPSHOTTERS.to_owned()] });
        let answer = self.answer(|| "ask for the snapshotters".to_owned(), CALL_TIMEOUT, plugins).await?;
        let usable = answer.plugins.into_iter().filter(|plugin| plugin.init_err.is_none());
        let mut names: Vec<String> = usable.map(|plugin| plugin.id).collect();
        names.sort_unstable();
        Ok(names)
    }
}
