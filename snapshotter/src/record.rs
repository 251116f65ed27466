//! What is kept of one snapshot.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use snap_fs::RemoteLayer;

use crate::layers::LayerUsage;

/// A snapshot's labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a snapshot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A read-only look at its parent.
    View,
    /// Writable, and may be committed.
    Active,
    /// Immutable, and may have children.
    Committed,
}

impl Kind {
    /// The kind as filters write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// A snapshot's record, without the name that it is filed under. Stored as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Never given twice; names the snapshot's directory. Kept when the snapshot is committed under another name.
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// The parent's name; empty for none.
    pub(crate) parent: String,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
    pub(crate) updated: SystemTime,
    /// What it took when it was committed; zeros for all others.
    pub(crate) usage: LayerUsage,
    /// The layer that stands for it. Always committed, and without a directory.
    pub(crate) remote: Option<RemoteLayer>,
}

/// A record and its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) record: Record,
}
