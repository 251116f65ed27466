//! Letting go of layers that no snapshot names any more, without losing one that is just being opened.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};
use tokio::task::JoinHandle;

use crate::blocking::blocking;
use crate::error::Error;
use crate::layers::{InUse, Layers};
use crate::limits::RETENTION_PERIOD_MS;
use crate::mounts::{Lower, lowers};
use crate::record::{Kind, Record, Snapshot};
use crate::records::Records;

/// A task that tells the layers what is in use, after [`Self::ask`]. It ends when this is dropped.
pub(crate) struct Retention {
    asked: Arc<Notify>,
    /// How many times layers have been let go. Written while that happens, read by whoever relies on a layer.
    passes: Arc<RwLock<u64>>,
    task: JoinHandle<()>,
}

impl Retention {
    pub(crate) fn start(records: Arc<Records>, layers: Arc<dyn Layers>) -> Self {
        let asked = Arc::new(Notify::new());
        let passes = Arc::new(RwLock::new(0));
        let task = tokio::spawn(run(records, layers, asked.clone(), passes.clone()));
        Self { asked, passes, task }
    }

    /// Something was removed. Several calls may be answered by one pass.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Does `work` so that no layer was let go since it began, nor is while the guard lives. It is done again if one was.
    pub(crate) async fn undisturbed<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        mut work: impl FnMut() -> F,
    ) -> Result<(T, OwnedRwLockReadGuard<u64>), E> {
        loop {
            let before = *self.passes.read().await;
            let value = work().await?;
            let guard = self.passes.clone().read_owned().await;
            if *guard == before {
                return Ok((value, guard));
            }
        }
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(records: Arc<Records>, layers: Arc<dyn Layers>, asked: Arc<Notify>, passes: Arc<RwLock<u64>>) {
    loop {
        // Also now and then: what was opened for a pull that never came is asked for by nobody.
        let _ = tokio::time::timeout(Duration::from_millis(RETENTION_PERIOD_MS), asked.notified()).await;
        let mut passes = passes.write().await;
        *passes += 1;
        let records = records.clone();
        match blocking(move || records.in_use()).await {
            Ok(in_use) => layers.retain(&in_use).await,
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot tell which layers are in use: none is let go"),
        }
    }
}

/// What `snapshots` (all there are) need.
pub(crate) fn in_use(snapshots: Vec<Snapshot>) -> Result<InUse, Error> {
    let by_name: HashMap<String, Record> = snapshots.into_iter().map(|snapshot| (snapshot.name, snapshot.record)).collect();
    let mut in_use = InUse::default();
    let mut seen_layers = HashSet::new();
    let mut seen_runs = HashSet::new();
    for record in by_name.values() {
        if let Some(layer) = &record.remote
            && seen_layers.insert((layer.digest, layer.reference.clone()))
        {
            in_use.layers.push(layer.clone());
        }
        if record.kind == Kind::Committed {
            continue;
        }
        for lower in lowers(&ancestors(&by_name, record)?) {
            if let Lower::Run(run) = lower {
                let key: (Vec<_>, _) = (run.layers.iter().map(|layer| layer.digest).collect(), run.below);
                if seen_runs.insert(key) {
                    in_use.runs.push(run);
                }
            }
        }
    }
    Ok(in_use)
}

fn ancestors(by_name: &HashMap<String, Record>, record: &Record) -> Result<Vec<Record>, Error> {
    let mut ancestors: Vec<Record> = Vec::new();
    let mut next = record.parent.as_str();
    while !next.is_empty() {
        // More ancestors than snapshots: they go round in a circle.
        if ancestors.len() > by_name.len() {
            return Err(Error::TooDeep { name: record.parent.clone() });
        }
        let parent = by_name.get(next).ok_or_else(|| Error::NotFound { name: next.to_owned() })?;
        ancestors.push(parent.clone());
        next = &parent.parent;
    }
    Ok(ancestors)
}
