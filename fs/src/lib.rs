//! Opens the layers of an image, fetches what is read of them, and serves the tree they make through FUSE.
//!
//! [`Engine::open`] resolves a reference and takes every layer up the ladder (`ladder`): a local index, a table of contents in the blob,
//! or one streaming pass (`stream_pass`). The layers' indexes merge into one tree, [`ImageFs`] answers about it by node number
//! (`numbers`), and [`mount_image`] puts a thin coat of FUSE around that (`fuse`). A read whose chunks are here is one `pread`; one that
//! misses waits, off the kernel's threads, for a flight (`fetch`) that brings its chunk and its neighbours once for everyone who wants
//! them. Behind the reads, `background` brings the rest and steps aside for each of them (`demand`).
//!
//! A [`LayerService`] does the same for containerd's snapshots: layers are opened one by one as they are [wanted](WantedLayer)
//! (`open_layers`), and [runs](Run) of them are the trees of one mount (`forest`). That mount's [`Connection`] outlives the process, in
//! the hands of a [`keeper`] or of the service manager ([`fd_store`]).

mod background;
mod blob_sources;
mod completing;
mod connection;
mod counted;
mod counters;
mod demand;
mod device;
mod documents;
mod error;
pub mod fd_store;
mod fetch;
mod forest;
mod fuse;
mod fusermount;
mod handshake;
mod image;
mod image_fs;
mod inspect;
pub mod keeper;
mod ladder;
mod layer;
pub mod limits;
mod mount;
mod mount_point;
mod numbers;
mod open_layers;
mod passing;
mod pieces;
mod progress;
mod remote;
mod service;
mod single_flight;
mod status;
mod stream_pass;
mod wanted;

pub use background::Completion;
pub use completing::{Completing, LayerPresence};
pub use connection::{Connection, Served};
pub use counters::Counters;
pub use error::{ConnectionError, FsError, KeepError, LayerError, MountError, ReadError};
pub use image::{Engine, OpenImage};
pub use image_fs::{DirectoryEntry, ImageFs, ReadPlan, Stat};
pub use inspect::{ImageReport, LayerReport};
pub use layer::Layer;
pub use mount::{MountOptions, Mounted, mount_image, unmount};
pub use numbers::ROOT;
pub use progress::{LayerProgress, Progress, Rung};
pub use remote::{Below, LowerDirectory, Opened, RemoteLayer, Run, WantedLayer};
pub use service::{LayerService, ServiceOptions};
pub use status::{Costs, ImageStatus, LayerStatus, ServiceStatus, StreamStatus, TreeStatus};
