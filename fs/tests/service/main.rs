//! Layers served to containerd, on a real mount, from a registry that can be told to fail. Needs root and /dev/fuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod completing;
mod scene;
mod serving;
