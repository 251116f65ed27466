//! End to end: the `snap` program, a real registry, real images, a real kernel. `ci/test` makes what they need and says where it is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on has failed.

#[path = "../shared/built.rs"]
mod built;
mod faults;
mod fidelity;
mod harness;
mod hostile;
mod kernel;
mod offline;
mod ordinary_user;
mod round_trips;
mod scan;
mod small;
