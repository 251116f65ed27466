//! The CRI proxy over real sockets: in front of a server that says what a test wants, and, with the feature `e2e`, in front of a
//! real containerd with a real registry.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on has failed.

#[cfg(feature = "e2e")]
mod containerd;
mod forwarding;
mod messages;
mod pulls;
mod raw;
mod served;
mod upstream;
