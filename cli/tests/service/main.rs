//! `snap serve` end to end: real containerds, dockerd, the clients that talk to them, runc, and a registry. `ci/test` makes what they
//! need and says where it is.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on has failed.

mod authority;
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
mod fetch;
mod hosts_dir;
mod http;
mod images;
mod interruptions;
mod k3s;
mod lazy;
mod machine;
mod plain;
mod process;
mod pull;
mod pull_bench;
mod pull_beside_ctr;
mod pull_beside_docker;
mod pull_documented;
mod pull_events;
mod pull_faults;
mod pull_garbage;
mod pull_interrupted;
mod pull_lazily;
mod pull_odd;
mod pull_private;
mod pull_references;
mod pull_together;
mod reboot;
mod recipe;
mod registry;
mod repository;
mod scenes;
mod serve;
mod stage;
mod strangers;
mod survival;
mod token_server;
mod transcript;
