//! Opens the layers of an image, fetches what is read of them, and serves the tree they make through FUSE.
//!
//! [`Engine::open`] resolves a reference and takes every layer up the ladder (`ladder`): a local index, a table of contents in the blob,
//! or one streaming pass (`stream_pass`). The layers' indexes merge into one tree, [`ImageFs`] answers about it by node number
//! (`numbers`), and [`mount_image`] puts a thin coat of FUSE around that (`fuse`). A read whose chunks are here is one `pread`; one that
//! misses waits, off the kernel's threads, for a flight (`fetch`) that brings its chunk and its neighbours once for everyone who wants
//! them. Behind the reads, `background` brings the rest and steps aside for each of them (`demand`).

mod background;
mod counters;
mod demand;
mod documents;
mod error;
mod fetch;
mod fuse;
mod fusermount;
mod image;
mod image_fs;
mod inspect;
mod ladder;
mod layer;
pub mod limits;
mod mount;
mod numbers;
mod pieces;
mod progress;
mod status;
mod stream_pass;

pub use background::Completion;
pub use counters::Counters;
pub use error::{FsError, LayerError, MountError, ReadError};
pub use image::{Engine, OpenImage};
pub use image_fs::{DirectoryEntry, ImageFs, ReadPlan, Stat};
pub use inspect::{ImageReport, LayerReport};
pub use layer::Layer;
pub use mount::{MountOptions, Mounted, mount_image, unmount};
pub use numbers::ROOT;
pub use progress::{LayerProgress, Progress, Rung};
pub use status::{ImageStatus, LayerStatus};
