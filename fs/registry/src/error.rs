//! What can go wrong, and how a caller tells the cases apart.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use snap_digest::Digest;

use crate::cause::{Cause, Refusal};
use crate::descriptor::Descriptor;
use crate::docker_config::DockerConfigError;
use crate::hosts::HostsError;
use crate::manifest::DocumentError;
use crate::platform::{Platform, PlatformError};
use crate::reference::ReferenceError;

/// An error of this crate. Messages name the thing that failed and end in `hint: …` where a person can act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A text is not an image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A text is not a platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The hosts directory of a registry holds something that cannot be used.
    #[error(transparent)]
    Hosts(#[from] Arc<HostsError>),
    /// The HTTP client could not be set up.
    #[error("cannot set up the connection to {host}: {source}")]
    Setup {
        /// The registry host.
        host: String,
        /// What refused.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A manifest, index or configuration is not what it has to be.
    #[error("{what}: {source}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong with it.
        source: Arc<DocumentError>,
    },
    /// The image has a manifest of docker's first format, which has to be converted: see [`parse_schema1`](crate::parse_schema1).
    #[error(transparent)]
    Schema1(Box<Schema1Found>),
    /// No manifest of the index is for the platform asked for.
    #[error("no image for platform {wanted}; there are: {}", Listed(available))]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What the index has.
        available: Vec<Platform>,
    },
    /// Content whose digest is not the one it was asked by.
    #[error("{what} has digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was read, and where from.
        what: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Content whose size is not what its descriptor says.
    #[error("{what} has {actual_bytes} bytes, not {expected_bytes}")]
    SizeMismatch {
        /// What was read, and where from.
        what: String,
        /// What the descriptor says.
        expected_bytes: u64,
        /// What there is.
        actual_bytes: u64,
    },
    /// Something is larger than this crate reads into memory.
    #[error("{what} has {size_bytes} bytes; at most {limit_bytes} are read")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A range that the blob does not have.
    #[error("bytes {}-{} were asked of {digest}, which has {size_bytes}", range.start, range.end)]
    OutOfBounds {
        /// The blob.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// What was asked for.
        range: Range<u64>,
    },
    /// An OCI layout could not be read.
    #[error("{}: {source}", path.display())]
    LayoutIo {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// An OCI layout has no image of that tag, or several and no tag was given.
    #[error("{}; hint: the layout has {}", LayoutTag(path, tag), Listed(available))]
    LayoutTag {
        /// The layout's directory.
        path: PathBuf,
        /// The tag asked for.
        tag: Option<String>,
        /// The tags there are.
        available: Vec<String>,
    },
    /// Docker's configuration, or a credential helper it names, failed.
    #[error(transparent)]
    DockerConfig(#[from] Arc<DockerConfigError>),
    /// A registry, or the way to it, failed.
    #[error(transparent)]
    Request(#[from] Box<RequestError>),
}

/// A schema 1 manifest where one of today was wanted.
#[derive(Debug, Clone, thiserror::Error)]
#[error("document {}: {}", root.digest, DocumentError::Schema1)]
pub struct Schema1Found {
    /// What was asked for. Of a signed manifest, digest and size are of what is signed, as registries name it.
    pub root: Descriptor,
    /// Its bytes, of a signed manifest without the signatures. Verified.
    pub bytes: Bytes,
}

/// A request that failed in the end: what was asked, how often, for how long, and the last cause.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{url}: {cause} ({}){}", Effort(*attempts, *elapsed), Hint(cause.hint(host)))]
pub struct RequestError {
    /// The registry's host, as a person writes it.
    pub host: String,
    /// What was asked for, without user, query or fragment.
    pub url: String,
    /// How many requests were sent, over all hosts.
    pub attempts: u32,
    /// How long all of them took.
    pub elapsed: Duration,
    /// Why the last one failed.
    #[source]
    pub cause: Cause,
}

/// What kind of thing went wrong, for callers that map errors to something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller's input: a reference, a platform, a range, a configuration file.
    Invalid,
    /// It is not there.
    NotFound,
    /// Credentials are needed, or those sent are refused.
    Unauthorized,
    /// Not allowed.
    Denied,
    /// The registry asks to wait.
    RateLimited,
    /// Nothing came in time, or too little.
    Timeout,
    /// No connection, a broken one, or a server that failed.
    Unreachable,
    /// The server sent other bytes than it was asked for, or cannot serve ranges.
    RangeLied,
    /// Content with another digest or size than it must have.
    DigestMismatch,
    /// Larger than this crate reads.
    TooLarge,
    /// An answer or a document that makes no sense.
    Protocol,
    /// The local disk.
    Io,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference(_) | Self::Platform(_) | Self::Hosts(_) | Self::Setup { .. } | Self::OutOfBounds { .. } => ErrorKind::Invalid,
            Self::Document { .. } | Self::Schema1(_) => ErrorKind::Protocol,
            Self::NoPlatform { .. } | Self::LayoutTag { .. } => ErrorKind::NotFound,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ErrorKind::DigestMismatch,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::LayoutIo { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::LayoutIo { .. } => ErrorKind::Io,
            Self::DockerConfig(error) => error.kind(),
            Self::Request(error) => error.cause.kind(),
        }
    }

    /// Which of the answers that mean "you do not get this" a registry or its token server gave, if it gave one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Request(error) => error.cause.refusal(),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind(), ErrorKind::RateLimited | ErrorKind::Timeout | ErrorKind::Unreachable)
    }
}

struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

struct LayoutTag<'a>(&'a PathBuf, &'a Option<String>);

impl fmt::Display for LayoutTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(tag) => write!(f, "no image {tag:?} in {}", self.0.display()),
            None => write!(f, "a tag is needed to choose an image of {}", self.0.display()),
        }
    }
}

struct Hint(Option<String>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |hint| write!(f, "; hint: {hint}"))
    }
}

struct Effort(u32, Duration);

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} attempt{plural} in {:.1} s", self.0, self.1.as_secs_f32())
    }
}
