//! The messages, the service and its client, generated from `proto/`.

pub use containerd::services::snapshots::v1 as snapshots;
pub(crate) use containerd::services::{
    content::v1 as content, diff::v1 as diff, images::v1 as images, introspection::v1 as introspection, leases::v1 as leases,
    version::v1 as version,
};
pub use containerd::types;

/// The packages as their names nest, which the generated code relies on.
#[allow(missing_docs, unused_qualifications, unreachable_pub, dead_code, clippy::all, clippy::unwrap_used, clippy::expect_used)]
mod containerd {
    pub mod types {
        tonic::include_proto!("containerd.types");
    }
    pub mod services {
        pub mod content {
            pub mod v1 {
                tonic::include_proto!("containerd.services.content.v1");
            }
        }
        pub mod diff {
            pub mod v1 {
                tonic::include_proto!("containerd.services.diff.v1");
            }
        }
        pub mod images {
            pub mod v1 {
                tonic::include_proto!("containerd.services.images.v1");
            }
        }
        pub mod introspection {
            pub mod v1 {
                tonic::include_proto!("containerd.services.introspection.v1");
            }
        }
        pub mod leases {
            pub mod v1 {
                tonic::include_proto!("containerd.services.leases.v1");
            }
        }
        pub mod snapshots {
            pub mod v1 {
                tonic::include_proto!("containerd.services.snapshots.v1");
            }
        }
        pub mod version {
            pub mod v1 {
                tonic::include_proto!("containerd.services.version.v1");
            }
        }
    }
}
