//! The database of snapshots.
//!
//! Three tables in one redb file:
//! ```text
//! meta       "version" -> 1, "next_id" -> an ID that no snapshot has had
//! snapshots  name -> Record as JSON
//! children   (parent's name, child's name) -> ()
//! ```
//! # Invariants
//! - Every call is one transaction: a crash leaves all of it or nothing. Commits are synced before they are answered.
//! - A snapshot's directory is made before its record and removed after it, so a record's directory is always there.
//! - Nothing is waited for inside a transaction.
//!
//! All methods block on the disk: they are not for async threads.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use snap_fs::RemoteLayer;

use crate::error::Error;
use crate::layers::{InUse, LayerUsage};
use crate::limits::{DATABASE_CACHE_BYTES, MAX_ANCESTORS};
use crate::record::{Kind, Labels, Record, Snapshot};
use crate::retention;

const FILE_NAME: &str = "records.redb";
const VERSION: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SNAPSHOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshots");
const CHILDREN: TableDefinition<(&str, &str), ()> = TableDefinition::new("children");
const META_VERSION: &str = "version";
const META_NEXT_ID: &str = "next_id";

type SnapshotTable<'a> = Table<'a, &'static str, &'static [u8]>;

/// The records of one snapshotter's directory; one process has them open at a time.
pub struct Records {
    database: Database,
    directory: PathBuf,
    path: PathBuf,
    next_id: AtomicU64,
}

/// What a record that is to be made says.
pub(crate) struct NewRecord {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) parent: String,
    pub(crate) labels: Labels,
    pub(crate) remote: Option<RemoteLayer>,
}

/// What [`Records::create_remote`] found or did.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum RemoteRecord {
    /// It was there already.
    Found,
    /// It is new.
    Created,
}

impl Records {
    /// Opens the records in `directory` (usually `<root>/snapshotter`), which is made if it is not there.
    ///
    /// A damaged database, one of a newer release, or one that another process has open is an error; nothing is ever recreated.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let directory = directory.canonicalize().map_err(Error::io("find", directory))?;
        let path = directory.join(FILE_NAME);
        let opened = Database::builder().set_cache_size(DATABASE_CACHE_BYTES).create(&path);
        let database = opened.map_err(|source| open_error(&path, source))?;
        let records = Self { database, directory, path, next_id: AtomicU64::new(0) };
        records.check_version()?;
        // Reads every record once, so that damage is told now and not in the middle of a container's start.
        let highest = records.all()?.iter().map(|snapshot| snapshot.record.id).max().unwrap_or(0);
        let stored = records.stored_next_id()?;
        records.next_id.store(stored.max(highest + 1), Ordering::Relaxed);
        Ok(records)
    }

    /// The directory that holds the database and the snapshots' directories, as an absolute path without symbolic links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the snapshots there are need: every layer, and every run that is part of a mount.
    pub fn in_use(&self) -> Result<InUse, Error> {
        retention::in_use(self.all()?)
    }

    /// An ID that no snapshot has or had.
    pub(crate) fn allocate_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The snapshot `name`.
    pub(crate) fn get(&self, name: &str) -> Result<Record, Error> {
        let read = self.read()?;
        let table = read.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
        self.find(&table, name)?.ok_or_else(|| Error::NotFound { name: name.to_owned() })
    }

    /// The snapshot `name`, followed by its ancestors from parent to root.
    pub(crate) fn chain(&self, name: &str) -> Result<Vec<Record>, Error> {
        let read = self.read()?;
        let table = read.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
        let mut chain = Vec::new();
        let mut next = name.to_owned();
        loop {
            if chain.len() > MAX_ANCESTORS {
                return Err(Error::TooDeep { name: name.to_owned() });
            }
            let record = self.find(&table, &next)?.ok_or_else(|| Error::NotFound { name: next.clone() })?;
            next.clone_from(&record.parent);
            chain.push(record);
            if next.is_empty() {
                return Ok(chain);
            }
        }
    }

    /// Every snapshot, in the order of the names.
    pub(crate) fn all(&self) -> Result<Vec<Snapshot>, Error> {
        self.select(|_| true)
    }

    /// The snapshots that `wanted` accepts, in the order of the names.
    pub(crate) fn select(&self, wanted: impl Fn(&Snapshot) -> bool) -> Result<Vec<Snapshot>, Error> {
        let read = self.read()?;
        let table = read.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
        let mut selected = Vec::new();
        for entry in table.iter().map_err(|e| self.failed(e))? {
            let (name, bytes) = entry.map_err(|e| self.failed(e))?;
            let name = name.value().to_owned();
            let record = decode(&name, bytes.value())?;
            let snapshot = Snapshot { name, record };
            if wanted(&snapshot) {
                selected.push(snapshot);
            }
        }
        Ok(selected)
    }

    /// The IDs of all snapshots that have a directory.
    pub(crate) fn directory_ids(&self) -> Result<HashSet<u64>, Error> {
        Ok(self.all()?.into_iter().filter(|snapshot| snapshot.record.remote.is_none()).map(|snapshot| snapshot.record.id).collect())
    }

    /// Whether a snapshot `key` on `parent` can be made, as [`Self::create`] would say.
    pub(crate) fn check_new(&self, key: &str, parent: &str) -> Result<(), Error> {
        let read = self.read()?;
        let table = read.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
        self.check_new_in(&table, key, parent)
    }

    /// Files a new snapshot. Its directory, if it needs one, is there already.
    pub(crate) fn create(&self, new: NewRecord) -> Result<(), Error> {
        self.write(|write| {
            let mut table = write.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
            self.check_new_in(&table, &new.name, &new.parent)?;
            self.insert_new(write, &mut table, new)
        })
    }

    /// Files the committed snapshot of a layer that is served. If `new.name` is taken by a snapshot on another parent, the name
    /// becomes `<name>/<parent's ID>`: clients find it by its labels and its parent.
    pub(crate) fn create_remote(&self, mut new: NewRecord, ref_label: &str) -> Result<RemoteRecord, Error> {
        self.write(|write| {
            let mut table = write.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
            let wanted = new.labels.get(ref_label).cloned().unwrap_or_default();
            for name in self.remote_names(&table, &new.name, &new.parent)? {
                match self.find(&table, &name)? {
                    Some(record) if stands_for(&record, &new.parent, ref_label, &wanted) => return Ok(RemoteRecord::Found),
                    Some(_) => {}
                    None => {
                        new.name = name;
                        self.check_new_in(&table, &new.name, &new.parent)?;
                        self.insert_new(write, &mut table, new)?;
                        return Ok(RemoteRecord::Created);
                    }
                }
            }
            Err(Error::AlreadyExists { name: std::mem::take(&mut new.name) })
        })
    }

    /// Whether a committed snapshot stands for the layer `target` on `parent`.
    pub(crate) fn has_remote(&self, target: &str, parent: &str, ref_label: &str) -> Result<bool, Error> {
        let read = self.read()?;
        let table = read.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
        for name in self.remote_names(&table, target, parent)? {
            if self.find(&table, &name)?.is_some_and(|record| stands_for(&record, parent, ref_label, target)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Turns the active snapshot `key`, which has the ID `id`, into the committed snapshot `name`. Its labels are replaced.
    pub(crate) fn commit(&self, key: &str, id: u64, name: &str, labels: Labels, usage: LayerUsage) -> Result<(), Error> {
        self.write(|write| {
            let mut table = write.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
            if self.find(&table, name)?.is_some() {
                return Err(Error::AlreadyExists { name: name.to_owned() });
            }
            let mut record =
                self.find(&table, key)?.filter(|record| record.id == id).ok_or_else(|| Error::NotFound { name: key.to_owned() })?;
            if record.kind != Kind::Active {
                return Err(Error::NotActive { name: key.to_owned() });
            }
            record.kind = Kind::Committed;
            record.labels = labels;
            record.usage = usage;
            record.created = SystemTime::now();
            record.updated = record.created;
            table.remove(key).map_err(|e| self.failed(e))?;
            self.insert(&mut table, name, &record)?;
            if !record.parent.is_empty() {
                let mut children = write.open_table(CHILDREN).map_err(|e| self.failed(e))?;
                children.remove((record.parent.as_str(), key)).map_err(|e| self.failed(e))?;
                children.insert((record.parent.as_str(), name), ()).map_err(|e| self.failed(e))?;
            }
            Ok(())
        })
    }

    /// Removes the snapshot `name`, which must have no children, and gives back what was filed.
    pub(crate) fn remove(&self, name: &str) -> Result<Record, Error> {
        self.write(|write| {
            let mut table = write.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
            let record = self.find(&table, name)?.ok_or_else(|| Error::NotFound { name: name.to_owned() })?;
            let mut children = write.open_table(CHILDREN).map_err(|e| self.failed(e))?;
            let first = children.range((name, "")..).map_err(|e| self.failed(e))?.next().transpose().map_err(|e| self.failed(e))?;
            if first.is_some_and(|(pair, _)| pair.value().0 == name) {
                return Err(Error::HasChildren { name: name.to_owned() });
            }
            if !record.parent.is_empty() {
                children.remove((record.parent.as_str(), name)).map_err(|e| self.failed(e))?;
            }
            table.remove(name).map_err(|e| self.failed(e))?;
            Ok(record)
        })
    }

    /// Replaces the labels of `name` by what `change` makes of them, and gives back the record.
    pub(crate) fn update(&self, name: &str, change: impl FnOnce(&mut Labels) -> Result<(), Error>) -> Result<Record, Error> {
        self.write(|write| {
            let mut table = write.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
            let mut record = self.find(&table, name)?.ok_or_else(|| Error::NotFound { name: name.to_owned() })?;
            change(&mut record.labels)?;
            record.updated = SystemTime::now();
            self.insert(&mut table, name, &record)?;
            Ok(record)
        })
    }

    fn remote_names(
        &self,
        table: &impl ReadableTable<&'static str, &'static [u8]>,
        target: &str,
        parent: &str,
    ) -> Result<[String; 2], Error> {
        let parent_id = match parent {
            "" => 0,
            _ => self.find(table, parent)?.ok_or_else(|| Error::ParentNotFound { parent: parent.to_owned() })?.id,
        };
        Ok([target.to_owned(), format!("{target}/{parent_id}")])
    }

    fn check_new_in(&self, table: &impl ReadableTable<&'static str, &'static [u8]>, key: &str, parent: &str) -> Result<(), Error> {
        let parent_kind = match parent {
            "" => Kind::Committed,
            _ => self.find(table, parent)?.ok_or_else(|| Error::ParentNotFound { parent: parent.to_owned() })?.kind,
        };
        if self.find(table, key)?.is_some() {
            return Err(Error::AlreadyExists { name: key.to_owned() });
        }
        if parent_kind != Kind::Committed {
            return Err(Error::ParentNotCommitted { parent: parent.to_owned() });
        }
        Ok(())
    }

    fn insert_new(&self, write: &WriteTransaction, table: &mut SnapshotTable<'_>, new: NewRecord) -> Result<(), Error> {
        let now = SystemTime::now();
        let record = Record {
            id: new.id,
            kind: new.kind,
            parent: new.parent,
            labels: new.labels,
            created: now,
            updated: now,
            usage: LayerUsage::default(),
            remote: new.remote,
        };
        self.insert(table, &new.name, &record)?;
        if !record.parent.is_empty() {
            let mut children = write.open_table(CHILDREN).map_err(|e| self.failed(e))?;
            children.insert((record.parent.as_str(), new.name.as_str()), ()).map_err(|e| self.failed(e))?;
        }
        let mut meta = write.open_table(META).map_err(|e| self.failed(e))?;
        meta.insert(META_NEXT_ID, self.next_id.load(Ordering::Relaxed)).map_err(|e| self.failed(e))?;
        Ok(())
    }

    fn insert(&self, table: &mut SnapshotTable<'_>, name: &str, record: &Record) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(|source| Error::BadRecord { name: name.to_owned(), source })?;
        table.insert(name, bytes.as_slice()).map_err(|e| self.failed(e))?;
        Ok(())
    }

    fn find(&self, table: &impl ReadableTable<&'static str, &'static [u8]>, name: &str) -> Result<Option<Record>, Error> {
        let found = table.get(name).map_err(|e| self.failed(e))?;
        found.map(|bytes| decode(name, bytes.value())).transpose()
    }

    fn read(&self) -> Result<ReadTransaction, Error> {
        self.database.begin_read().map_err(|e| self.failed(e))
    }

    /// Runs `change` in a transaction, which is committed if it gives Ok and forgotten otherwise.
    fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let write = self.database.begin_write().map_err(|e| self.failed(e))?;
        let value = change(&write)?;
        write.commit().map_err(|e| self.failed(e))?;
        Ok(value)
    }

    /// Writes the version into a new database, and refuses one of a newer release.
    fn check_version(&self) -> Result<(), Error> {
        let found = self.write(|write| {
            let mut meta = write.open_table(META).map_err(|e| self.failed(e))?;
            let found = meta.get(META_VERSION).map_err(|e| self.failed(e))?.map(|version| version.value());
            if found.is_none() {
                meta.insert(META_VERSION, VERSION).map_err(|e| self.failed(e))?;
                write.open_table(SNAPSHOTS).map_err(|e| self.failed(e))?;
                write.open_table(CHILDREN).map_err(|e| self.failed(e))?;
            }
            Ok(found.unwrap_or(VERSION))
        })?;
        if found > VERSION {
            return Err(Error::NewerDatabase { path: self.path.clone(), found, supported: VERSION });
        }
        Ok(())
    }

    fn stored_next_id(&self) -> Result<u64, Error> {
        let read = self.read()?;
        let meta = read.open_table(META).map_err(|e| self.failed(e))?;
        Ok(meta.get(META_NEXT_ID).map_err(|e| self.failed(e))?.map_or(1, |id| id.value()))
    }

    fn failed(&self, source: impl Into<redb::Error>) -> Error {
        Error::Database { path: self.path.clone(), source: Box::new(source.into()) }
    }
}

/// Whether `record` is what a client that looks for the layer `target` on `parent` finds.
fn stands_for(record: &Record, parent: &str, ref_label: &str, target: &str) -> bool {
    record.kind == Kind::Committed && record.parent == parent && record.labels.get(ref_label).is_some_and(|label| label == target)
}

fn decode(name: &str, bytes: &[u8]) -> Result<Record, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::BadRecord { name: name.to_owned(), source })
}

fn open_error(path: &Path, source: redb::DatabaseError) -> Error {
    let path = path.to_path_buf();
    match source {
        redb::DatabaseError::DatabaseAlreadyOpen => Error::DatabaseInUse { path },
        source @ (redb::DatabaseError::UpgradeRequired(_) | redb::DatabaseError::Storage(redb::StorageError::Corrupted(_))) => {
            Error::DamagedDatabase { path, source: Box::new(source.into()) }
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(source)) if source.kind() == std::io::ErrorKind::InvalidData => {
            Error::DamagedDatabase { path, source: Box::new(redb::StorageError::Io(source).into()) }
        }
        source => Error::Database { path, source: Box::new(source.into()) },
    }
}
