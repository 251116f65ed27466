//! Pulls an image through containerd, as docker does, and made lazy wherever the snapshotter can serve a layer.

mod event;

pub use event::{Event, OpenedBy, Outcome, Step};
