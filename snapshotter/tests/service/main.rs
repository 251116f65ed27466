//! The service as a gRPC client sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod errors;
mod harness;
mod hostile;
mod lifecycle;
mod model;
mod overlay;
mod remote;
mod restart;
mod socket;
