//! What can go wrong between a call and its answer, and at start.

use std::io;
use std::path::{Path, PathBuf};

use crate::layers::OpenError;
use crate::limits::{MAX_ANCESTORS, MAX_LABEL_BYTES, MAX_LABELS, MAX_NAME_BYTES};

/// Why the snapshotter could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no snapshot of that name.
    #[error("snapshot {name:?} does not exist")]
    NotFound {
        /// The name that was asked for.
        name: String,
    },
    /// The parent that a new snapshot names does not exist.
    #[error("parent {parent:?} does not exist")]
    ParentNotFound {
        /// The parent's name.
        parent: String,
    },
    /// The name is taken.
    #[error("snapshot {name:?} already exists")]
    AlreadyExists {
        /// The name.
        name: String,
    },
    /// A new snapshot can only stand on a committed one.
    #[error("parent {parent:?} is not committed")]
    ParentNotCommitted {
        /// The parent's name.
        parent: String,
    },
    /// Only an active snapshot can be committed.
    #[error("snapshot {name:?} is not active")]
    NotActive {
        /// The snapshot's name.
        name: String,
    },
    /// Only an active snapshot or a view has mounts.
    #[error("snapshot {name:?} is committed: it has no mounts of its own")]
    NotMountable {
        /// The snapshot's name.
        name: String,
    },
    /// Others stand on it.
    #[error("snapshot {name:?} has children")]
    HasChildren {
        /// The snapshot's name.
        name: String,
    },
    /// The stack is higher than what is walked.
    #[error("snapshot {name:?} has more than {MAX_ANCESTORS} ancestors")]
    TooDeep {
        /// The snapshot's name.
        name: String,
    },
    /// A name is empty or too long.
    #[error("a snapshot's {what} has {actual_bytes} bytes: it must have 1 to {MAX_NAME_BYTES}")]
    BadName {
        /// Which name of the request.
        what: &'static str,
        /// Its length.
        actual_bytes: usize,
    },
    /// A label is too long.
    #[error("a label of {actual_bytes} bytes (key {key:?}) is longer than {MAX_LABEL_BYTES} bytes")]
    LabelTooLong {
        /// The beginning of its key.
        key: String,
        /// Bytes of key and value.
        actual_bytes: usize,
    },
    /// There are too many labels.
    #[error("{count} labels are more than {MAX_LABELS}")]
    TooManyLabels {
        /// How many there are.
        count: usize,
    },
    /// An update names a field that cannot be changed.
    #[error("field {field:?} of a snapshot cannot be updated: only labels can")]
    BadField {
        /// The beginning of the field's path.
        field: String,
    },
    /// An update says of no snapshot what is to be changed.
    #[error("the request does not say which snapshot is to be updated")]
    NoInfo,
    /// A filter is not written in containerd's grammar.
    #[error("filter {filter:?}: {problem} at byte {at}")]
    BadFilter {
        /// The beginning of the filter.
        filter: String,
        /// What is wrong.
        problem: &'static str,
        /// Where.
        at: usize,
    },
    /// A filter's regular expression is not one, or takes too much memory.
    #[error("filter {filter:?}: bad regular expression")]
    BadRegex {
        /// The beginning of the filter.
        filter: String,
        /// What is wrong.
        source: Box<regex::Error>,
    },
    /// More filters than one List may have.
    #[error("{count} filters are more than {limit}")]
    TooManyFilters {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The commit asks to move the snapshot onto another parent.
    #[error("snapshot {name:?} cannot be moved onto another parent\nhint: do not give this snapshotter the capability \"rebase\"")]
    Rebase {
        /// The snapshot's name.
        name: String,
    },
    /// A label with an ID mapping does not hold one.
    #[error("label {label} is {value:?}, not <container ID>:<host ID>:<length>")]
    BadIdMapping {
        /// The label.
        label: &'static str,
        /// What it holds.
        value: String,
    },
    /// IDs are to be shifted where layers are served.
    #[error(
        "snapshot {name:?} stands on a lazily served layer, whose owners cannot be mapped\nhint: do not give this snapshotter the capability \"remap-ids\", and containerd shifts them itself"
    )]
    IdMappedLayer {
        /// The snapshot's name.
        name: String,
    },
    /// Layers could not be opened or shown.
    #[error(transparent)]
    Layer(#[from] OpenError),
    /// A record is not what was written.
    #[error("the record of snapshot {name:?} is damaged")]
    BadRecord {
        /// The snapshot's name.
        name: String,
        /// What the record's reader says.
        source: serde_json::Error,
    },
    /// The database refused an operation.
    #[error("cannot use the snapshot records in {}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Its answer.
        source: Box<redb::Error>,
    },
    /// The database is not what was written.
    #[error(
        "the snapshot records in {} are damaged\nhint: restore the file, or stop containerd, remove the whole directory {} and pull the images again",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    DamagedDatabase {
        /// The database.
        path: PathBuf,
        /// What its reader says.
        source: Box<redb::Error>,
    },
    /// The records were written by a newer release.
    #[error("the snapshot records in {} have version {found}, this program knows versions up to {supported}\nhint: use a newer snap", path.display())]
    NewerDatabase {
        /// The database.
        path: PathBuf,
        /// The version it has.
        found: u64,
        /// The newest version this program reads.
        supported: u64,
    },
    /// Another process has the database open.
    #[error("the snapshot records in {} are in use\nhint: another snapshotter runs on this directory; stop it first", path.display())]
    DatabaseInUse {
        /// The database.
        path: PathBuf,
    },
    /// A path would be read as something else in a mount option.
    #[error("{:?} contains one of : , \\ or is not UTF-8, which mount options cannot hold\nhint: use another directory", path)]
    AwkwardPath {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// Somebody answers on the socket.
    #[error("another process listens on {}\nhint: stop it, or use another socket", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// What the socket is to replace is no socket.
    #[error("{} exists and is not a socket\nhint: remove it, or use another socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The server broke down.
    #[error("cannot serve on {}", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// A blocking task was not run to its end: it panicked, or the runtime is shutting down.
    #[error("an operation on the snapshots was broken off")]
    BrokenOff {
        /// Why.
        source: tokio::task::JoinError,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
