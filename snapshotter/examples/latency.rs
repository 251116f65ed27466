//! How long a snapshotter takes for what every container's start asks of it: `Prepare` of its root, then `Mounts`.
//!
//! `latency SOCKET SNAPSHOTTER PARENT CALLS`, where PARENT is the image's topmost snapshot. SOCKET is the snapshotter's own, or that of a
//! containerd, whose namespace `default` is then asked. All roots are prepared, then the mounts of all are asked for, one call after the
//! other on one connection; then they are removed. Prints one JSON object, microseconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use snap_snapshotter::api::snapshots::snapshots_client::SnapshotsClient;
use snap_snapshotter::api::snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// What containerd's own clients say in every call. A snapshotter's own socket ignores it.
const NAMESPACE: (&str, &str) = ("containerd-namespace", "default");
/// Keeps containerd from taking the roots away as garbage while they are measured.
const KEEP: (&str, &str) = ("containerd.io/gc.root", "2024-01-01T00:00:00Z");

type Failure = Box<dyn std::error::Error>;

struct Asked {
    client: SnapshotsClient<Channel>,
    snapshotter: String,
}

impl Asked {
    async fn connect(socket: &str, snapshotter: &str) -> Result<Self, Failure> {
        let channel = Endpoint::try_from(format!("unix://{socket}"))?.connect().await?;
        Ok(Self { client: SnapshotsClient::new(channel), snapshotter: snapshotter.to_owned() })
    }

    async fn prepare(&mut self, key: &str, parent: &str) -> Result<(), Failure> {
        let labels = BTreeMap::from([(KEEP.0.to_owned(), KEEP.1.to_owned())]);
        let (snapshotter, key, parent) = (self.snapshotter.clone(), key.to_owned(), parent.to_owned());
        let prepared = self.client.prepare(in_namespace(PrepareSnapshotRequest { snapshotter, key, parent, labels })).await?;
        if prepared.into_inner().mounts.is_empty() { Err("a root without mounts".into()) } else { Ok(()) }
    }

    async fn mounts(&mut self, key: &str) -> Result<(), Failure> {
        let (snapshotter, key) = (self.snapshotter.clone(), key.to_owned());
        let mounts = self.client.mounts(in_namespace(MountsRequest { snapshotter, key })).await?;
        if mounts.into_inner().mounts.is_empty() { Err("a root without mounts".into()) } else { Ok(()) }
    }

    async fn remove(&mut self, key: &str) -> Result<(), Failure> {
        let (snapshotter, key) = (self.snapshotter.clone(), key.to_owned());
        self.client.remove(in_namespace(RemoveSnapshotRequest { snapshotter, key })).await?;
        Ok(())
    }
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(NAMESPACE.0, tonic::metadata::MetadataValue::from_static(NAMESPACE.1));
    request
}

/// The value that `percent` of all are at or below. There must be one.
fn percentile(sorted: &[Duration], percent: usize) -> u128 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted[rank.max(1) - 1].as_micros()
}

fn summary(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    serde_json::json!({ "p50_us": percentile(&times, 50), "p99_us": percentile(&times, 99), "max_us": percentile(&times, 100) })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, snapshotter, parent, calls] = arguments.as_slice() else {
        return Err("usage: latency SOCKET SNAPSHOTTER PARENT CALLS".into());
    };
    let calls: usize = calls.parse()?;
    if calls == 0 {
        return Err("no calls: nothing to measure".into());
    }
    let mut asked = Asked::connect(socket, snapshotter).await?;
    // Both programs' first use of anything is not what is measured.
    asked.prepare("latency-first", parent).await?;
    asked.mounts("latency-first").await?;
    asked.remove("latency-first").await?;

    let keys: Vec<String> = (0..calls).map(|number| format!("latency-{number}")).collect();
    let (mut prepares, mut mounts) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    for key in &keys {
        let started = Instant::now();
        asked.prepare(key, parent).await?;
        prepares.push(started.elapsed());
    }
    for key in &keys {
        let started = Instant::now();
        asked.mounts(key).await?;
        mounts.push(started.elapsed());
    }
    for key in &keys {
        asked.remove(key).await?;
    }
    println!("{}", serde_json::json!({ "calls": calls, "prepare": summary(prepares), "mounts": summary(mounts) }));
    Ok(())
}
