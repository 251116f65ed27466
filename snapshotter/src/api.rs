//! The messages, the service and its client, generated from `proto/`.

pub use containerd::services::snapshots::v1 as snapshots;
pub use containerd::types;

/// The packages as their names nest, which the generated code relies on.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::expect_used)]
mod containerd {
    pub mod types {
        tonic::include_proto!("containerd.types");
    }
    pub mod services {
        pub mod snapshots {
            pub mod v1 {
                tonic::include_proto!("containerd.services.snapshots.v1");
            }
        }
    }
}
