//! `snap serve` end to end: real containerds, dockerd, the clients that talk to them, runc, and a registry. `ci/test` makes what they
//! need and says where it is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on has failed.

#[path = "../shared/built.rs"]
mod built;
mod client;
mod containerd;
mod credentials;
mod cri;
mod crowd;
mod ctr;
mod damage;
mod docker;
mod documents;
mod door;
mod fallback;
mod images;
mod interruptions;
mod k3s;
mod lazy;
mod machine;
mod plain;
mod process;
mod reboot;
mod registry;
mod serve;
mod strangers;
mod survival;
