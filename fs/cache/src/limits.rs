//! Every limit of this crate.

/// The largest document that is stored or read back, in bytes. Registries refuse manifests above 4 MiB; a configuration
/// with a long history stays far below this.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// The largest reference file that is read back, in bytes: a reference and a descriptor with its annotations.
pub const MAX_REFERENCE_BYTES: u64 = 256 << 10;

/// The largest `version` file that is looked at, in bytes.
pub const MAX_VERSION_BYTES: u64 = 64;

/// The most chunks a layer may have; its presence map takes one byte for each.
pub const MAX_CHUNKS: u32 = 1 << 26;

/// How long opening or discarding a layer's files waits for another process that is changing them, in milliseconds.
/// Such changes take a few milliseconds; only a build holds the lock longer, and then this index is gone anyway.
pub const CHANGE_WAIT_MS: u64 = 10_000;

/// How often a lock or a staged file is tried again because another process removed it at the same moment.
pub const MAX_RACE_ATTEMPTS: u32 = 1_000;
