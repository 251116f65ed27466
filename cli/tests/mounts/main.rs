//! The program and the kernel: mounting, unmounting, and what is left when either end of a mount goes away. Needs root and /dev/fuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod ending;
mod fixture;
mod mounting;
mod refusals;
mod starting;
mod store;
mod writable;
