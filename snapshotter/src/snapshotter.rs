//! The ten operations on snapshots, without gRPC.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snap_fs::RemoteLayer;

use crate::blocking::blocking;
use crate::directories::{Directories, Owner};
use crate::disk_usage;
use crate::error::Error;
use crate::filter::Filters;
use crate::id_mapping::IdMapping;
use crate::labels::{apply_update, check_labels, check_name};
use crate::layers::{LayerUsage, Layers, LowerDirectory};
use crate::mounts::{self, Lower, Mount, OverlayOptions, Parts, lowers};
use crate::record::{Kind, Labels, Record, Snapshot};
use crate::records::{NewRecord, Records};
use crate::refusals::{Refusal, Refusals};
use crate::retention::Retention;
use crate::turns::Turns;

/// Answers containerd from the records, the directories of ordinary snapshots, and the layers that are served.
pub struct Snapshotter {
    pub(crate) records: Arc<Records>,
    pub(crate) layers: Arc<dyn Layers>,
    pub(crate) retention: Retention,
    pub(crate) refusals: Refusals,
    /// Whose turn it is to prepare a layer, by chain ID.
    pub(crate) turns: Turns,
    directories: Arc<Directories>,
    overlay: OverlayOptions,
}

/// What there is, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Active snapshots: the roots of containers, and layers that are being unpacked.
    pub active: usize,
    /// Views.
    pub views: usize,
    /// Committed snapshots that have a directory.
    pub unpacked: usize,
    /// Committed snapshots that are served.
    pub served: usize,
    /// The last layers that were not served, the oldest first.
    pub refusals: Vec<Refusal>,
}

/// A snapshot that is to be made.
pub(crate) struct Request {
    pub(crate) key: String,
    /// Empty for none.
    pub(crate) parent: String,
    pub(crate) labels: Labels,
}

/// The answer to a Prepare.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Prepared {
    /// An active snapshot, and how to mount it.
    Active(Vec<Mount>),
    /// No snapshot was made: the layer that it was to be filled with is here.
    LayerIsHere,
}

impl Snapshotter {
    /// Takes over the records' directory: removes what a crash left in it, and tells `layers` what is in use.
    ///
    /// Needs a tokio runtime, on which it runs one task until it is dropped.
    pub async fn start(records: Arc<Records>, layers: Arc<dyn Layers>) -> Result<Self, Error> {
        let directories = Arc::new(Directories::open(records.directory())?);
        let retention = Retention::start(records.clone(), layers.clone());
        retention.ask();
        let overlay = OverlayOptions::detect();
        let snapshotter = Self { records, layers, retention, refusals: Refusals::default(), turns: Turns::default(), directories, overlay };
        snapshotter.cleanup().await?;
        Ok(snapshotter)
    }

    /// Counts the snapshots and recalls the last refusals.
    pub async fn status(&self) -> Result<Status, Error> {
        let records = self.records.clone();
        let mut status = Status { refusals: self.refusals.list(), ..Status::default() };
        for Snapshot { record, .. } in blocking(move || records.all()).await? {
            *match (record.kind, record.remote) {
                (Kind::Active, _) => &mut status.active,
                (Kind::View, _) => &mut status.views,
                (Kind::Committed, None) => &mut status.unpacked,
                (Kind::Committed, Some(_)) => &mut status.served,
            } += 1;
        }
        Ok(status)
    }

    pub(crate) async fn view(&self, request: Request) -> Result<Vec<Mount>, Error> {
        self.create(Kind::View, checked(request)?).await
    }

    /// Makes an ordinary snapshot. `request` has been checked.
    pub(crate) async fn create(&self, kind: Kind, request: Request) -> Result<Vec<Mount>, Error> {
        let Request { key, parent, labels } = request;
        let owner = self.root_owner(&key, &parent, &labels).await?;
        let (records, directories) = (self.records.clone(), self.directories.clone());
        let name = key.clone();
        // One piece, so that a client that goes away leaves all of it or nothing.
        blocking(move || {
            let id = records.allocate_id();
            directories.create(id, kind, owner)?;
            match records.create(NewRecord { id, name, kind, parent, labels, remote: None }) {
                Ok(()) => directories.filed(id),
                Err(error) => {
                    directories.discard(id);
                    return Err(error);
                }
            }
            Ok(())
        })
        .await?;
        self.mounts(&key).await
    }

    /// Who owns the root of a new snapshot: whoever the labels say, else whoever owns the parent's root.
    async fn root_owner(&self, key: &str, parent: &str, labels: &Labels) -> Result<Owner, Error> {
        let mapping = IdMapping::of(labels)?;
        let (records, name, base) = (self.records.clone(), key.to_owned(), parent.to_owned());
        let ancestors = blocking(move || {
            records.check_new(&name, &base)?;
            if base.is_empty() { Ok(Vec::new()) } else { records.chain(&base) }
        })
        .await?;
        check_mapping(key, &mapping, &ancestors)?;
        if let Some(root) = mapping.root {
            return Ok(root);
        }
        let Some(highest) = lowers(&ancestors).into_iter().next() else {
            return Ok(Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() });
        };
        let (directory, in_use) = self.retention.undisturbed(|| self.directory_of(&highest)).await?;
        blocking(move || {
            let metadata = std::fs::metadata(&directory.path).map_err(Error::io("look at", &directory.path))?;
            drop(in_use);
            Ok(Owner { uid: metadata.uid(), gid: metadata.gid() })
        })
        .await
    }

    pub(crate) async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Error> {
        let (records, name) = (self.records.clone(), key.to_owned());
        let mut chain = blocking(move || records.chain(&name)).await?;
        let ancestors = chain.split_off(1);
        // A chain begins with the snapshot itself.
        let Some(record) = chain.pop().filter(|record| record.kind != Kind::Committed) else {
            return Err(Error::NotMountable { name: key.to_owned() });
        };
        let mapping = IdMapping::of(&record.labels)?;
        check_mapping(key, &mapping, &ancestors)?;
        let mut directories = Vec::new();
        for lower in lowers(&ancestors) {
            // From here on the snapshot's record keeps its runs.
            let (directory, _) = self.retention.undisturbed(|| self.directory_of(&lower)).await?;
            directories.push(directory.path);
            if directory.is_opaque {
                break;
            }
        }
        let parts = Parts {
            kind: record.kind,
            content: self.directories.content(record.id),
            work: self.directories.work(record.id),
            lowers: directories,
            mapping: mapping.options,
        };
        mounts::mounts(parts, &self.overlay)
    }

    async fn directory_of(&self, lower: &Lower) -> Result<LowerDirectory, Error> {
        match lower {
            Lower::Ordinary(id) => Ok(LowerDirectory { path: self.directories.content(*id), is_opaque: false }),
            Lower::Run(run) => Ok(self.layers.lower(run).await?),
        }
    }

    pub(crate) async fn commit(&self, key: &str, name: &str, labels: Labels, onto: &str) -> Result<(), Error> {
        check_name("key", key)?;
        check_name("name", name)?;
        let labels = check_labels(labels)?;
        let (records, directories) = (self.records.clone(), self.directories.clone());
        let (key, name, onto) = (key.to_owned(), name.to_owned(), onto.to_owned());
        blocking(move || {
            let record = records.get(&key)?;
            if !onto.is_empty() && onto != record.parent {
                return Err(Error::Rebase { name: key });
            }
            let usage = disk_usage::measure(&directories.content(record.id))?;
            records.commit(&key, record.id, &name, labels, usage)
        })
        .await
    }

    /// Forgets a snapshot. Its files are only renamed here; [`Self::cleanup`] deletes them.
    pub(crate) async fn remove(&self, key: &str) -> Result<(), Error> {
        let (records, directories, name) = (self.records.clone(), self.directories.clone(), key.to_owned());
        blocking(move || {
            let record = records.remove(&name)?;
            if record.remote.is_none() {
                directories.bury(record.id);
            }
            Ok(())
        })
        .await?;
        self.retention.ask();
        Ok(())
    }

    pub(crate) async fn stat(&self, key: &str) -> Result<Record, Error> {
        let (records, name) = (self.records.clone(), key.to_owned());
        blocking(move || records.get(&name)).await
    }

    /// Changes the labels of `name` to what `given` has for the fields in `paths`, or to `given` if there are none.
    pub(crate) async fn update(&self, name: &str, given: Labels, paths: Vec<String>) -> Result<Record, Error> {
        check_name("name", name)?;
        let given = check_labels(given)?;
        let (records, name) = (self.records.clone(), name.to_owned());
        blocking(move || records.update(&name, |labels| apply_update(labels, &given, &paths))).await
    }

    /// The snapshots that any of `filters` accepts; all of them if there are no filters.
    pub(crate) async fn list(&self, filters: &[String]) -> Result<Vec<Snapshot>, Error> {
        let filters = Filters::parse(filters)?;
        let records = self.records.clone();
        blocking(move || records.select(|snapshot| filters.accept(snapshot))).await
    }

    pub(crate) async fn usage(&self, key: &str) -> Result<LayerUsage, Error> {
        let (records, directories, name) = (self.records.clone(), self.directories.clone(), key.to_owned());
        let known: Result<LayerUsage, RemoteLayer> = blocking(move || {
            let record = records.get(&name)?;
            match (record.kind, record.remote) {
                (Kind::Active, _) => disk_usage::measure(&directories.content(record.id)).map(Ok),
                (_, Some(layer)) => Ok(Err(layer)),
                (_, None) => Ok(Ok(record.usage)),
            }
        })
        .await?;
        match known {
            Ok(usage) => Ok(usage),
            Err(layer) => Ok(self.layers.usage(&layer).await),
        }
    }

    /// Deletes the files of removed snapshots.
    pub(crate) async fn cleanup(&self) -> Result<(), Error> {
        let (records, directories) = (self.records.clone(), self.directories.clone());
        blocking(move || directories.sweep(|| records.directory_ids())).await
    }
}

/// A request whose names and labels are within bounds.
pub(crate) fn checked(request: Request) -> Result<Request, Error> {
    check_name("key", &request.key)?;
    if !request.parent.is_empty() {
        check_name("parent", &request.parent)?;
    }
    Ok(Request { labels: check_labels(request.labels)?, ..request })
}

/// Shifted owners are containerd's work, on ordinary directories only.
fn check_mapping(key: &str, mapping: &IdMapping, ancestors: &[Record]) -> Result<(), Error> {
    if !mapping.is_empty() && ancestors.iter().any(|record| record.remote.is_some()) {
        return Err(Error::IdMappedLayer { name: key.to_owned() });
    }
    Ok(())
}
