//! Snapshots of one of containerd's snapshotters.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tonic::{Code, Response, Status};

use super::error::found;
use super::{CALL_TIMEOUT, Containerd, ContainerdError, ContainerdErrorKind, Mount, Result, Transport, required};
use crate::api::snapshots as api;
use crate::api::snapshots::snapshots_client::SnapshotsClient;
use crate::limits::{
    MAX_CONTAINERD_MESSAGE_BYTES, MAX_LISTED_SNAPSHOTS, SNAPSHOT_PREPARE_TIMEOUT_MS, SNAPSHOTTER_AWAY_MS, SNAPSHOTTER_AWAY_POLL_MS,
};
pub use crate::record::Kind as SnapshotKind;

const PREPARE_TIMEOUT: Duration = Duration::from_millis(SNAPSHOT_PREPARE_TIMEOUT_MS);
const AWAY: Duration = Duration::from_millis(SNAPSHOTTER_AWAY_MS);
const AWAY_POLL: Duration = Duration::from_millis(SNAPSHOTTER_AWAY_POLL_MS);
/// How what containerd's gRPC library says begins where it cannot connect to a snapshotter, or loses the connection. A snapshotter's own
/// reason to be of no use for the moment begins otherwise.
const CONNECTION_LOST: [&str; 7] = [
    "connection error: ",
    "connection closed",
    "error reading from server",
    "transport is closing",
    "the connection is draining",
    "closing transport due to",
    "keepalive ping failed",
];

/// One of containerd's snapshotters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    containerd: Containerd,
    snapshotter: String,
}

/// What is known of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// What it is called.
    pub name: String,
    /// The snapshot that it stands on.
    pub parent: Option<String>,
    /// What it is.
    pub kind: SnapshotKind,
    /// What clients have noted of it.
    pub labels: BTreeMap<String, String>,
}

/// The answer to a prepare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Prepared {
    /// An active snapshot was made; where it is mounted, it can be written.
    Mounts(Vec<Mount>),
    /// The snapshotter has what the labels ask for already, or there is a snapshot of that key.
    AlreadyExists,
}

/// The answer to a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// The active snapshot has become the committed one.
    Done,
    /// There was one of that name. The active snapshot is as it was.
    AlreadyExists,
}

impl Containerd {
    /// The snapshotter that containerd's configuration has under that name; whether it has one is not asked.
    pub fn snapshots(&self, snapshotter: &str) -> Snapshots {
        Snapshots { containerd: self.clone(), snapshotter: snapshotter.to_owned() }
    }
}

impl Snapshots {
    /// What is known of the snapshot `name`, if there is one.
    pub async fn stat(&self, name: &str) -> Result<Option<SnapshotInfo>> {
        let doing = || format!("read the snapshot {name}");
        let request = api::StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: name.to_owned() };
        let stat = async || self.client().stat(request.clone()).await;
        let Some(answer) = found(self.answer(doing, CALL_TIMEOUT, stat).await)? else { return Ok(None) };
        let info = required(answer.info, "no snapshot", doing)?;
        SnapshotInfo::of(info).map(Some).map_err(|problem| ContainerdError::BadAnswer { doing: doing(), problem })
    }

    /// Makes the active snapshot `key` on `parent`. A snapshotter that can serve a layer looks at `labels` for which one is meant.
    pub async fn prepare(&self, key: &str, parent: Option<&str>, labels: &BTreeMap<String, String>) -> Result<Prepared> {
        let request = api::PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.unwrap_or_default().to_owned(),
            labels: labels.clone(),
        };
        let prepare = async || self.client().prepare(request.clone()).await;
        match self.answer(|| format!("prepare the snapshot {key}"), PREPARE_TIMEOUT, prepare).await {
            Err(error) if error.kind() == ContainerdErrorKind::AlreadyExists => Ok(Prepared::AlreadyExists),
            prepared => prepared.map(|answer| Prepared::Mounts(answer.mounts)),
        }
    }

    /// Makes the active snapshot `key` the committed one `name`, with `labels`.
    pub async fn commit(&self, key: &str, name: &str, labels: &BTreeMap<String, String>) -> Result<Committed> {
        let request = api::CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: labels.clone(),
            parent: String::new(),
        };
        // It may have to sync all that was unpacked.
        let commit = async || self.client().commit(request.clone()).await;
        match self.answer(|| format!("commit the snapshot {name}"), PREPARE_TIMEOUT, commit).await {
            Err(error) if error.kind() == ContainerdErrorKind::AlreadyExists => Ok(Committed::AlreadyExists),
            committed => committed.map(|()| Committed::Done),
        }
    }

    /// Removes the snapshot `key`, if there is one. One that others stand on is not removed.
    pub async fn remove(&self, key: &str) -> Result<()> {
        let request = api::RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let remove = async || self.client().remove(request.clone()).await;
        found(self.answer(|| format!("remove the snapshot {key}"), CALL_TIMEOUT, remove).await).map(drop)
    }

    /// How the active snapshot or view `key` is mounted.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let request = api::MountsRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let mounts = async { self.client().mounts(request).await };
        let answer = self.containerd.answer(|| format!("ask how the snapshot {key} is mounted"), CALL_TIMEOUT, mounts).await?;
        Ok(answer.mounts)
    }

    /// The snapshots that any of `filters` (in containerd's grammar: `parent==…`, `labels."…"==…`) takes, or all where there is none.
    pub async fn list(&self, filters: &[String]) -> Result<Vec<SnapshotInfo>> {
        let doing = || format!("list the snapshots of {}", self.snapshotter);
        let request = api::ListSnapshotsRequest { snapshotter: self.snapshotter.clone(), filters: filters.to_vec() };
        let list = async { self.client().list(request).await };
        let mut batches = self.containerd.answer(doing, CALL_TIMEOUT, list).await?;
        let bad = |problem| ContainerdError::BadAnswer { doing: doing(), problem };
        let mut listed = Vec::new();
        while let Some(batch) = self.containerd.within(doing, CALL_TIMEOUT, batches.message()).await? {
            if listed.len() + batch.info.len() > MAX_LISTED_SNAPSHOTS {
                return Err(bad(format!("more than {MAX_LISTED_SNAPSHOTS} snapshots")));
            }
            for info in batch.info {
                listed.push(SnapshotInfo::of(info).map_err(bad)?);
            }
        }
        Ok(listed)
    }

    /// Makes a call that is to do `doing`, again and again for a while where the snapshotter behind containerd is not there: it may be
    /// about to come back, of which containerd takes notice only every few seconds.
    async fn answer<T>(
        &self,
        doing: impl Fn() -> String + Copy,
        limit: Duration,
        call: impl AsyncFn() -> std::result::Result<Response<T>, Status>,
    ) -> Result<T> {
        let mut deadline = None;
        loop {
            match self.containerd.answer(doing, limit, call()).await {
                Err(ContainerdError::Call { code: Code::Unavailable, reason, .. }) if is_away(&reason) => {
                    if deadline.is_none() {
                        tracing::warn!(snapshotter = self.snapshotter, reason, "the snapshotter is not there; it is waited for");
                    }
                    if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + AWAY) {
                        return Err(ContainerdError::NoSnapshotter { doing: doing(), snapshotter: self.snapshotter.clone(), reason });
                    }
                    tokio::time::sleep(AWAY_POLL).await;
                }
                answer => return answer,
            }
        }
    }

    fn client(&self) -> SnapshotsClient<Transport> {
        SnapshotsClient::new(self.containerd.transport()).max_decoding_message_size(MAX_CONTAINERD_MESSAGE_BYTES)
    }
}

/// Whether nobody has answered containerd.
fn is_away(reason: &str) -> bool {
    CONNECTION_LOST.iter().any(|lost| reason.starts_with(lost))
}

impl SnapshotInfo {
    /// The snapshot that containerd answers with, or what is wrong with it.
    fn of(info: api::Info) -> Result<Self, String> {
        let kind = match info.kind() {
            api::Kind::View => SnapshotKind::View,
            api::Kind::Active => SnapshotKind::Active,
            api::Kind::Committed => SnapshotKind::Committed,
            api::Kind::Unknown => return Err(format!("a snapshot {:?} of no known kind", info.name)),
        };
        let parent = (!info.parent.is_empty()).then_some(info.parent);
        Ok(Self { name: info.name, parent, kind, labels: info.labels })
    }
}
