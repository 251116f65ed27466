//! What a pull tells while it runs.

use snap_digest::Digest;
use snap_fs::Rung;

/// Something a user may want to see, in the order in which it happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The reference has been resolved: its manifest is being read. Comes once, before any layer.
    Resolved {
        /// Docker's short form of the repository: `library/debian`, `127.0.0.1:5000/app`.
        repository: String,
        /// The tag, or the digest where the reference has no tag.
        tag: String,
    },
    /// A layer has come so far. Nothing of layers is told where everything was there already.
    Layer {
        /// The digest of the layer's blob.
        layer: Digest,
        /// How far.
        step: Step,
    },
}

/// How far a layer has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is going to be pulled.
    Queued,
    /// Another pull has it in hand.
    Waiting,
    /// Its blob is being fetched into containerd's content store.
    Downloading {
        /// Bytes that are here.
        current_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// Its blob is in containerd's content store.
    Downloaded,
    /// The snapshotter reads it whole to index it.
    Indexing {
        /// Bytes of the blob that it has read.
        current_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// containerd unpacks it.
    Extracting,
    /// The last step: it is there.
    Done(Outcome),
}

/// How a layer came to be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was there before.
    AlreadyExists,
    /// The snapshotter serves it; what it was opened by, where the snapshotter says so.
    Lazy(Option<Rung>),
    /// Its blob was fetched into containerd's content store.
    Fetched,
    /// It was fetched and unpacked, as with any snapshotter that only stores.
    Unpacked,
    /// The snapshotter declined to serve it, for this reason, so it was fetched and unpacked.
    Declined {
        /// As the snapshotter says it.
        reason: String,
    },
}
