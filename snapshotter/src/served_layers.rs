//! The layers of the product: those that [`snap_fs`] mounts.

use std::sync::Arc;

use async_trait::async_trait;
use snap_fs::{FsError, LayerService, LowerDirectory, Opened, RemoteLayer, Run, WantedLayer};

use crate::layers::{InUse, LayerUsage, Layers, OpenError};

#[async_trait]
impl Layers for LayerService {
    async fn open(&self, wanted: &WantedLayer) -> Result<Opened, OpenError> {
        self.open(wanted).await.map_err(|error| open_error(format!("cannot serve a layer of {}", wanted.reference), error))
    }

    async fn lower(&self, run: &Run) -> Result<LowerDirectory, OpenError> {
        let image = run.layers.last().map(|layer| layer.reference.clone()).unwrap_or_default();
        self.lower(run).await.map_err(|error| open_error(format!("cannot show the layers of {image}"), error))
    }

    async fn usage(&self, layer: &RemoteLayer) -> LayerUsage {
        let (size_bytes, inodes) = self.usage(&layer.digest);
        LayerUsage { size_bytes, inodes }
    }

    async fn retain(&self, in_use: &InUse) {
        let layers = in_use.layers.iter().map(|layer| layer.digest).collect();
        self.retain(&layers, &in_use.runs).await;
    }
}

fn open_error(doing: String, error: Arc<FsError>) -> OpenError {
    if error.is_unservable() {
        return OpenError::Unservable { reason: error.to_string() };
    }
    OpenError::Failed { doing, temporary: error.is_temporary(), source: Box::new(error) }
}
