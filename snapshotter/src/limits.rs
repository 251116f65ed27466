//! Every limit of this crate.

/// The longest name of a snapshot, in bytes. containerd's own are `<namespace>/<number>/<key>`, a few hundred bytes at most.
pub const MAX_NAME_BYTES: usize = 4 << 10;

/// The most bytes of one label, key and value together: containerd's own limit.
pub const MAX_LABEL_BYTES: usize = 4 << 10;

/// The most labels of one snapshot.
pub const MAX_LABELS: usize = 256;

/// The most filters of one List; containerd sends one or two.
pub const MAX_FILTERS: usize = 64;

/// The longest filter, in bytes: room for a longest label and a longest name.
pub const MAX_FILTER_BYTES: usize = 16 << 10;

/// The most memory that one compiled regular expression of a filter takes, in bytes.
pub const MAX_REGEX_BYTES: usize = 1 << 20;

/// The most layers whose digests are taken from one label; longer lists are cut.
pub const MAX_OTHER_LAYERS: usize = 512;

/// The most ancestors of a snapshot. The kernel stacks at most 500 lower directories.
pub const MAX_ANCESTORS: usize = 1_000;

/// The largest request that is read, in bytes: a longest name and the most labels fit.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// How many snapshots one message of a List holds at most.
pub const LIST_BATCH: usize = 100;

/// How large one message of a List grows before the next is begun, in bytes. Clients accept 4 MiB at least.
pub const LIST_BATCH_BYTES: usize = 1 << 20;

/// The longest message of a gRPC status, in bytes: it travels in a header.
pub const MAX_STATUS_BYTES: usize = 4 << 10;

/// How many calls a connection may have in flight.
pub const MAX_CALLS_PER_CONNECTION: u32 = 1_000;

/// How long calls in flight may go on after a shutdown was asked for, in milliseconds.
pub const SHUTDOWN_GRACE_MS: u64 = 5_000;

/// How many answers "not this layer" are remembered for people.
pub const MAX_REFUSALS: usize = 64;

/// The most memory that the database keeps of its file, in bytes.
pub const DATABASE_CACHE_BYTES: usize = 16 << 20;

/// For how many images a credential that came with a pull is kept; the least recently used goes first.
pub const MAX_CRI_CREDENTIALS: usize = 512;

/// The longest credential that is kept, in bytes, name and password together.
pub const MAX_CRI_CREDENTIAL_BYTES: usize = 16 << 10;

/// The largest file of credentials that is read, in bytes: the most and longest, each byte escaped in six, with their names.
pub const MAX_CRI_CREDENTIALS_FILE_BYTES: u64 = (MAX_CRI_CREDENTIALS * (6 * MAX_CRI_CREDENTIAL_BYTES + 1024)) as u64;

/// The largest request to pull an image that is read, in bytes.
pub const MAX_CRI_PULL_BYTES: usize = 1 << 20;

/// The most bytes of headers that are taken from containerd's answer: an error's whole message is one.
pub const MAX_CRI_HEADERS_BYTES: u32 = 1 << 20;

/// How long connecting to containerd's CRI may take, in milliseconds.
pub const CRI_CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Longest time between two passes that let go of layers which no snapshot names.
pub const RETENTION_PERIOD_MS: u64 = 10 * 60_000;

/// The longest name of a namespace of containerd, in bytes: containerd's own limit.
pub const MAX_NAMESPACE_BYTES: usize = 76;

/// The longest ID of a lease, in bytes: it travels in a header with every call.
pub const MAX_LEASE_BYTES: usize = 1 << 10;

/// The longest time that a lease is asked for, in milliseconds: a year.
pub const MAX_LEASE_MS: u64 = 365 * 24 * 60 * 60_000;

/// The largest message that is read of containerd, in bytes: what containerd itself sends at most, unless it is told otherwise.
pub const MAX_CONTAINERD_MESSAGE_BYTES: usize = 16 << 20;

/// How many bytes of one answer containerd may send ahead of what is read of it: a few messages of its content store.
pub const CONTAINERD_STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same for all answers of a connection.
pub const CONTAINERD_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The most snapshots that are taken of one list of containerd.
pub const MAX_LISTED_SNAPSHOTS: usize = 1 << 20;

/// The longest reason of a failure that is kept of containerd, in bytes.
pub const MAX_REASON_BYTES: usize = 4 << 10;

/// The most bytes of content that are sent to containerd in one message.
pub const WRITE_PIECE_BYTES: usize = 1 << 20;

/// The most bytes of content that are sent to containerd ahead of its word that it has written them.
pub const WRITE_AHEAD_BYTES: u64 = 4 << 20;

/// The most messages that are sent ahead in the same way.
pub const WRITE_AHEAD_PIECES: usize = 64;

/// How often a record of an image is created and updated in turn, when others delete and create it all the while.
pub const PUT_IMAGE_TRIES: u32 = 8;

/// How long it may take to connect to containerd, and to be told its version, in milliseconds.
pub const CONTAINERD_CONNECT_TIMEOUT_MS: u64 = 10_000;

/// How long containerd may take for one call of those that only read or write its records, in milliseconds. While it collects
/// garbage they wait.
pub const CONTAINERD_CALL_TIMEOUT_MS: u64 = 60_000;

/// How long containerd may take for a call that answers only after garbage was collected, in milliseconds.
pub const CONTAINERD_COLLECT_TIMEOUT_MS: u64 = 10 * 60_000;

/// How long containerd may take to write one message of content, in milliseconds.
pub const CONTENT_WRITE_TIMEOUT_MS: u64 = 2 * 60_000;

/// How long containerd may take to begin and to commit content, in milliseconds: it hashes again what is there of it already, and
/// syncs the whole of it.
pub const CONTENT_COMMIT_TIMEOUT_MS: u64 = 15 * 60_000;

/// How long containerd may take to prepare a snapshot, in milliseconds: the snapshotter may read the whole layer for it.
pub const SNAPSHOT_PREPARE_TIMEOUT_MS: u64 = 60 * 60_000;

/// How long a snapshotter is waited for that containerd does not reach, in milliseconds. It may be restarting, and containerd tries to
/// connect no more often than every 3 to 4 seconds.
pub const SNAPSHOTTER_AWAY_MS: u64 = 10_000;

/// Pause between two calls to a snapshotter that is away, in milliseconds.
pub const SNAPSHOTTER_AWAY_POLL_MS: u64 = 250;

/// How long containerd may take to unpack one layer, in milliseconds.
pub const LAYER_APPLY_TIMEOUT_MS: u64 = 60 * 60_000;

/// The size of the ranges in which a pull fetches a blob, in bytes.
pub const PULL_RANGE_BYTES: u64 = 2 << 20;

/// The most ranges of a pull that are under way or not written yet: with the size of a range, its memory.
pub const PULL_RANGES_MAX: usize = 8;

/// How long a pull waits for another client that works on the same layer, in milliseconds.
pub const PULL_BUSY_MS: u64 = 30 * 60_000;

/// Pause between two looks at whether it is done, in milliseconds.
pub const PULL_BUSY_POLL_MS: u64 = 200;

/// How often a snapshotter that answers neither with a layer nor with a place for it is asked.
pub const PULL_PREPARE_TRIES: u32 = 3;

/// Pause between two looks at what a snapshotter reads, in milliseconds.
pub const PULL_WATCH_MS: u64 = 300;

/// How long what an interrupted pull has brought is kept for the next, in seconds.
pub const PULL_LEASE_S: u64 = 24 * 3600;
