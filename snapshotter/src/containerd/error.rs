//! What can go wrong when containerd is asked for something.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use snap_digest::Digest;
use tonic::{Code, Status};

use crate::limits::{MAX_LEASE_BYTES, MAX_NAMESPACE_BYTES, MAX_REASON_BYTES};

/// Why containerd did not do what it was asked for.
///
/// It is apart from this crate's [`Error`](crate::Error), which says what goes wrong where containerd asks: that one is mapped to gRPC
/// status, this one comes of it.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// Nobody listens.
    #[error("containerd is not there: nothing listens on {}\nhint: is containerd running, and is this its socket?", path.display())]
    NotThere {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The socket is not this user's.
    #[error("{} may not be connected to\nhint: containerd's socket is root's: run this as root", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The socket could not be connected to for another reason.
    #[error("cannot connect to containerd at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody else listens.
    #[error("what listens on {} is not containerd: {reason}\nhint: is this containerd's own socket, and not docker's?", path.display())]
    NotContainerd {
        /// The socket.
        path: PathBuf,
        /// What it answered.
        reason: String,
    },
    /// containerd would refuse the namespace.
    #[error(
        "{namespace:?} is not a namespace of containerd\nhint: it has up to {MAX_NAMESPACE_BYTES} letters and digits, in groups that one of . _ - parts"
    )]
    BadNamespace {
        /// The beginning of its name.
        namespace: String,
    },
    /// The ID of a lease does not fit a header.
    #[error("{lease:?} is not a lease's ID: it must have 1 to {MAX_LEASE_BYTES} visible ASCII characters")]
    BadLease {
        /// The beginning of the ID.
        lease: String,
    },
    /// containerd refused.
    #[error("cannot {doing}: containerd says: {reason}")]
    Call {
        /// What was tried, as a verb and its object.
        doing: String,
        /// The code that containerd answered with.
        code: Code,
        /// Its reason.
        reason: String,
    },
    /// containerd does not reach the snapshotter.
    #[error(
        "cannot {doing}: the snapshotter {snapshotter} is not there: containerd says: {reason}\nhint: does its service run? That of snap is \
         snap serve"
    )]
    NoSnapshotter {
        /// What was tried, as a verb and its object.
        doing: String,
        /// Its name.
        snapshotter: String,
        /// containerd's reason.
        reason: String,
    },
    /// The connection ended, or could not be made again after it had.
    #[error("cannot {doing}: containerd at {} has gone: {reason}\nhint: is containerd running?", path.display())]
    Gone {
        /// What was tried, as a verb and its object.
        doing: String,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// containerd did not answer in time.
    #[error("cannot {doing}: containerd has not answered for {} s", after.as_secs())]
    Timeout {
        /// What was tried, as a verb and its object.
        doing: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// containerd's answer is not what it should be.
    #[error("cannot {doing}: containerd's answer has {problem}")]
    BadAnswer {
        /// What was tried, as a verb and its object.
        doing: String,
        /// What is wrong.
        problem: String,
    },
    /// Another client of containerd is writing the same content.
    #[error("another client of containerd is writing {reference}")]
    Busy {
        /// What containerd calls the write.
        reference: String,
    },
    /// The bytes are not those of the digest.
    #[error("the bytes are not those of {digest}")]
    DigestMismatch {
        /// The digest that was wanted.
        digest: Digest,
    },
    /// The bytes are not as many as the descriptor says.
    #[error("{digest} has {expected_bytes} bytes, not {actual_bytes}")]
    SizeMismatch {
        /// The digest that was wanted.
        digest: Digest,
        /// Its size.
        expected_bytes: u64,
        /// How many bytes there are.
        actual_bytes: u64,
    },
    /// The content is larger than what is wanted of it.
    #[error("{digest} is larger than the {limit_bytes} bytes that are read of it")]
    TooLarge {
        /// The content.
        digest: Digest,
        /// The limit.
        limit_bytes: u64,
    },
}

/// What kind of failure it is, for those who go on after some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContainerdErrorKind {
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists.
    AlreadyExists,
    /// Another client has it in hand; ask again a little later.
    Busy,
    /// The bytes given, or those kept, are not what they should be.
    WrongBytes,
    /// containerd, or a service behind it, is not there or does not answer now.
    Unavailable,
    /// Anything else.
    Other,
}

impl ContainerdError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ContainerdErrorKind {
        match self {
            Self::Call { code: Code::NotFound, .. } => ContainerdErrorKind::NotFound,
            Self::Call { code: Code::AlreadyExists, .. } => ContainerdErrorKind::AlreadyExists,
            Self::Busy { .. } => ContainerdErrorKind::Busy,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ContainerdErrorKind::WrongBytes,
            Self::Call { code: Code::Unavailable, .. }
            | Self::NoSnapshotter { .. }
            | Self::NotThere { .. }
            | Self::Connect { .. }
            | Self::Gone { .. }
            | Self::Timeout { .. } => ContainerdErrorKind::Unavailable,
            Self::Call { .. }
            | Self::Forbidden { .. }
            | Self::NotContainerd { .. }
            | Self::BadNamespace { .. }
            | Self::BadLease { .. }
            | Self::BadAnswer { .. }
            | Self::TooLarge { .. } => ContainerdErrorKind::Other,
        }
    }

    /// The error that `status` is, of a call over the socket at `path` that was to do `doing`.
    pub(super) fn of(doing: String, path: &Path, status: &Status) -> Self {
        // One that containerd has sent has no cause here.
        let Some(mut cause) = status.source() else {
            return Self::Call { doing, code: status.code(), reason: bounded(status.message()) };
        };
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Self::Gone { doing, path: path.to_path_buf(), reason: bounded(&cause.to_string()) }
    }

    pub(super) fn connect(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotThere { path, source },
            io::ErrorKind::PermissionDenied => Self::Forbidden { path, source },
            _ => Self::Connect { path, source },
        }
    }
}

/// None for what does not exist.
pub(super) fn found<T>(result: Result<T, ContainerdError>) -> Result<Option<T>, ContainerdError> {
    match result {
        Err(error) if error.kind() == ContainerdErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn bounded(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON_BYTES)].to_owned()
}
