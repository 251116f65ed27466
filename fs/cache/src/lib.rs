//! The local store of `snap`: what has been fetched and checked once is never fetched again.
//!
//! A [`Cache`] is one directory that any number of processes use at once, any of which may be killed at any moment.
//! A process takes a [`Lease`] on a layer, which keeps it from being evicted. Either the layer's index is there
//! ([`Lease::read_index`]), or exactly one process makes it ([`Lease::begin_build`]) while the others wait. With the index
//! known, [`Lease::open_data`] gives the [`LayerData`]: a sparse file that holds the layer's chunks at their data-space
//! offsets, and a presence map shared by all processes that says which of them are there. Documents (manifests, image
//! indexes, configurations) and the references that name them lie beside the layers, so that an image that was used before
//! opens without a registry. [`Cache::prune`] evicts what was used least recently, and sweeps up after killed processes.
//!
//! # Files
//! ```text
//! version                        "snap-cache 1\n"
//! layers/sha256/<hex>/lock       flock: shared by every lease, exclusive to evict
//! layers/sha256/<hex>/build      flock: exclusive while the *set* of the files below is changed: a build from its first byte
//!                                to its last, and for a moment when data is opened or an index discarded
//! layers/sha256/<hex>/index      the caller's bytes, opaque here; never written after it has this name
//! layers/sha256/<hex>/data       sparse; chunks at their data-space offsets
//! layers/sha256/<hex>/present    the presence map, see below
//! layers/sha256/<hex>/used       its modification time is the start or end of the layer's last use
//! documents/sha256/<hex>         a document, named by its own digest
//! references/sha256/<hex>        JSON {reference, descriptor}, named by the digest of the reference's text
//! staging/<name>                 files on their way to a name above, each under an exclusive flock of its writer
//! removed/<name>                 layers on their way out
//! ```
//! The presence map is a header and one byte per chunk, mapped shared and read as atomics:
//! ```text
//! offset  bytes  field
//!      0      8  magic "SNAPPRES"
//!      8      4  version, little-endian
//!     12      4  chunk count, little-endian
//!     16     16  ID of the boot in which "verified" holds
//!     32  count  state per chunk: 0 absent, 1 stored but not verified in this boot, 2 verified in this boot; others: absent
//! ```
//!
//! # Invariants
//! - A state byte becomes "verified" only after the chunk's bytes were written, so a process killed in between costs a fetch
//!   and never gives wrong bytes.
//! - Index, documents and references are staged, synced and renamed: whoever sees the name sees all bytes. The rename of
//!   `index` commits a build; without it `data` and `present` are leftovers, and the next build starts by removing them.
//! - `data` and `present` are replaced by new files, never truncated or rewritten in place, because other processes may
//!   have them open. Two data files never share one map: `present` goes before `data` does.
//! - What is in `data` is a function of the index and the offset. So two processes that store the same chunk write the same
//!   bytes, and one that holds an older map of the same data file (a damaged map is replaced by an empty one under a new
//!   inode) fetches twice at worst. That the index is the one the caller read is checked by its inode when data is opened;
//!   a lease that holds a discarded index keeps its own, unlinked files.
//! - A layer is evicted under its exclusive lock: the whole directory is renamed away first, so no half of it keeps the name.
//!   Whoever waited for the lock finds another file under its name, and starts over.
//!
//! # What is assumed
//! - Within one boot, the page cache and the disk below it give back what was written. Nothing on the read path is synced:
//!   in another boot (other boot ID in the map) every "verified" becomes "stored", to be verified again on first use. A disk
//!   that fails a delayed write without stopping the file system breaks this assumption until the next boot.
//! - The file system orders changes of names, as ext4, XFS and btrfs do: a synced directory does not lose its own name, nor a
//!   change in it that came before. Otherwise a layer may be absent after a crash of the machine, never wrong.
//! - The directory is on a local file system with working `flock` and is used by one running kernel at a time. Copied or moved
//!   while no process uses it, it stays valid, since a copy on another machine meets another boot ID.
//! - Nobody else writes into the directory while it is in use. A data file that lost its tail is noticed when it is opened; a
//!   map or index that another program truncates *under* a running process ends that process with SIGBUS.
//! - Space for the map is allocated when it is made. On file systems that copy on write, a full disk can still raise SIGBUS
//!   when a state byte is set.

mod boot;
mod build;
mod cache;
mod data;
mod documents;
mod error;
mod eviction;
mod layout;
mod lease;
pub mod limits;
mod lock;
mod presence;
mod staging;
mod usage;
mod version;

pub use boot::BootId;
pub use build::{Build, BuildData, BuildOutcome};
pub use cache::{Cache, CacheOptions};
pub use data::{ChunkLayout, LayerData};
pub use error::Error;
pub use eviction::{Pruned, Removed};
pub use lease::{IndexBytes, Lease};
pub use presence::ChunkState;
pub use usage::LayerUsage;
