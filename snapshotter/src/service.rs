//! The service as gRPC has it: requests in, answers out, nothing decided.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use prost::Message;
use tonic::service::Routes;
use tonic::{Request, Response, Status, async_trait};

use crate::api::snapshots as api;
use crate::api::snapshots::snapshots_server::{Snapshots, SnapshotsServer};
use crate::api::types;
use crate::error::Error;
use crate::grpc_status::status;
use crate::limits::{LIST_BATCH, LIST_BATCH_BYTES, MAX_REQUEST_BYTES};
use crate::mounts::Mount;
use crate::record::{Kind, Record, Snapshot};
use crate::snapshotter::{self, Prepared, Snapshotter};

/// The service over `snapshotter`, for [`Server::serve`](crate::Server::serve). Other services can be added to it.
pub fn routes(snapshotter: Arc<Snapshotter>) -> Routes {
    Routes::new(SnapshotsServer::new(Service(snapshotter)).max_decoding_message_size(MAX_REQUEST_BYTES))
}

struct Service(Arc<Snapshotter>);

/// Runs a handler: a panic in it becomes an answer, an error becomes a status.
async fn answer<T>(call: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<Response<T>, Status> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(value)) => Ok(Response::new(value)),
        Ok(Err(error)) => {
            let status = status(&error);
            tracing::debug!(call, code = ?status.code(), message = status.message(), "refused");
            Err(status)
        }
        Err(_) => {
            tracing::error!(call, "the handler panicked");
            Err(Status::internal(format!("{call} failed for a reason that is a fault of this program")))
        }
    }
}

#[async_trait]
impl Snapshots for Service {
    type ListStream = BoxStream<'static, Result<api::ListSnapshotsResponse, Status>>;

    async fn prepare(&self, request: Request<api::PrepareSnapshotRequest>) -> Result<Response<api::PrepareSnapshotResponse>, Status> {
        let api::PrepareSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let name = key.clone();
        let prepared = answer("Prepare", self.0.prepare(snapshotter::Request { key, parent, labels })).await?;
        match prepared.into_inner() {
            Prepared::Active(mounts) => Ok(Response::new(api::PrepareSnapshotResponse { mounts: mounts_out(mounts) })),
            Prepared::LayerIsHere => Err(Status::already_exists(format!("the layer for {name:?} is here"))),
        }
    }

    async fn view(&self, request: Request<api::ViewSnapshotRequest>) -> Result<Response<api::ViewSnapshotResponse>, Status> {
        let api::ViewSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let view = self.0.view(snapshotter::Request { key, parent, labels });
        answer("View", async { Ok(api::ViewSnapshotResponse { mounts: mounts_out(view.await?) }) }).await
    }

    async fn mounts(&self, request: Request<api::MountsRequest>) -> Result<Response<api::MountsResponse>, Status> {
        let key = request.into_inner().key;
        answer("Mounts", async { Ok(api::MountsResponse { mounts: mounts_out(self.0.mounts(&key).await?) }) }).await
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let api::CommitSnapshotRequest { name, key, labels, parent, .. } = request.into_inner();
        answer("Commit", self.0.commit(&key, &name, labels, &parent)).await
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        answer("Remove", self.0.remove(&request.into_inner().key)).await
    }

    async fn stat(&self, request: Request<api::StatSnapshotRequest>) -> Result<Response<api::StatSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        answer("Stat", async { Ok(api::StatSnapshotResponse { info: Some(info(self.0.stat(&key).await?, key)) }) }).await
    }

    async fn update(&self, request: Request<api::UpdateSnapshotRequest>) -> Result<Response<api::UpdateSnapshotResponse>, Status> {
        let api::UpdateSnapshotRequest { info: given, update_mask, .. } = request.into_inner();
        let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
        answer("Update", async {
            // The timestamps in `given` are the client's idea of now, and may be anything.
            let api::Info { name, labels, .. } = given.ok_or(Error::NoInfo)?;
            Ok(api::UpdateSnapshotResponse { info: Some(info(self.0.update(&name, labels, paths).await?, name)) })
        })
        .await
    }

    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        let found = answer("List", self.0.list(&filters)).await?.into_inner();
        let mut left = found.into_iter().peekable();
        let batches = std::iter::from_fn(move || {
            left.peek()?;
            let (mut batch, mut size_bytes) = (Vec::new(), 0);
            while batch.len() < LIST_BATCH && size_bytes < LIST_BATCH_BYTES {
                let Some(Snapshot { name, record }) = left.next() else { break };
                let info = info(record, name);
                size_bytes += info.encoded_len();
                batch.push(info);
            }
            Some(Ok(api::ListSnapshotsResponse { info: batch }))
        });
        Ok(Response::new(stream::iter(batches).boxed()))
    }

    async fn usage(&self, request: Request<api::UsageRequest>) -> Result<Response<api::UsageResponse>, Status> {
        let key = request.into_inner().key;
        answer("Usage", async {
            let usage = self.0.usage(&key).await?;
            let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            Ok(api::UsageResponse { size: signed(usage.size_bytes), inodes: signed(usage.inodes) })
        })
        .await
    }

    async fn cleanup(&self, _: Request<api::CleanupRequest>) -> Result<Response<()>, Status> {
        answer("Cleanup", self.0.cleanup()).await
    }
}

fn mounts_out(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let out =
        |mount: Mount| types::Mount { r#type: mount.kind.to_owned(), source: mount.source, target: String::new(), options: mount.options };
    mounts.into_iter().map(out).collect()
}

fn info(record: Record, name: String) -> api::Info {
    let kind = match record.kind {
        Kind::View => api::Kind::View,
        Kind::Active => api::Kind::Active,
        Kind::Committed => api::Kind::Committed,
    };
    api::Info {
        name,
        parent: record.parent,
        kind: kind.into(),
        created_at: Some(record.created.into()),
        updated_at: Some(record.updated.into()),
        labels: record.labels,
    }
}
