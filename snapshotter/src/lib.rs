//! containerd's remote snapshotter: the gRPC service that containerd asks for snapshots, the records it keeps, and the mounts it
//! answers with.
//!
//! # The data path
//! containerd connects to a [`Server`]'s unix socket and calls the ten methods of `containerd.services.snapshots.v1.Snapshots`
//! ([`routes`]). A [`Snapshotter`] answers them from its [`Records`], one small database of names, parents and labels.
//!
//! A `Prepare` that carries the label `containerd.io/snapshot.ref` asks whether a layer is here already. If the labels say which
//! image it belongs to, [`Layers::open`] makes it servable, a committed record is made under the layer's chain ID, and the answer
//! is ALREADY_EXISTS: containerd then downloads nothing. Where that is not to be had, the snapshot is an ordinary one: a directory
//! that containerd unpacks into. Either way the snapshot's labels tell clients what happened ([`OPENED_BY_LABEL`],
//! [`DECLINED_LABEL`]).
//!
//! `Mounts` walks a snapshot's ancestors. Consecutive layers that are served become one lower directory ([`Layers::lower`]), an
//! ordinary snapshot is a lower directory of its own, and the rest is what containerd's overlayfs snapshotter would answer.
//!
//! # Start
//! [`Records::open`], then whatever implements [`Layers`] is brought up with [`Records::in_use`], then [`Snapshotter::start`],
//! [`Server::bind`] and [`Server::serve`].
//!
//! # Asking containerd
//! The other way round, [`containerd`] is a client of containerd's own services, for what pulls an image through it.
//!
//! # Credentials
//! No call of containerd brings one. Where a kubelet has the same socket as its image service endpoint, [`CriProxy::add_to`] takes
//! those calls besides, passes them to containerd's CRI as they are, and keeps the credentials of pulls in [`CriCredentials`].

pub mod api;
mod blocking;
pub mod containerd;
mod cri_credentials;
mod cri_credentials_file;
mod cri_proxy;
mod cri_pull;
mod cri_upstream;
mod directories;
mod disk_usage;
mod error;
mod filter;
mod grpc_status;
mod id_mapping;
mod labels;
mod layers;
pub mod limits;
mod mounts;
mod prepare;
pub mod pull;
mod record;
mod records;
mod refusals;
mod retention;
mod served_layers;
mod server;
mod service;
mod snapshotter;
mod turns;

pub use cri_credentials::CriCredentials;
pub use cri_proxy::CriProxy;
pub use error::Error;
pub use labels::{DECLINED_LABEL, LAYER_DIGEST_LABEL, OPENED_BY_LABEL};
pub use layers::{InUse, LayerUsage, Layers, LowerDirectory, OpenError, Opened, Run};
pub use records::Records;
pub use refusals::Refusal;
pub use server::{Server, ServerOptions};
pub use service::routes;
pub use snapshotter::{Snapshotter, Status};
