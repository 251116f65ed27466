//! One process on one cache.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fixture/mod.rs"]
mod fixture;

mod claim;
mod damage;
mod documents;
mod eviction;
mod layer;

/// Chunks per layer in these tests.
const COUNT: u32 = 4;
