//! Compiles the definitions of the services, without protoc: of the one that is served, and of those of containerd that are called.

use std::error::Error;

/// containerd's own, of which clients alone are made.
const CALLED: [&str; 6] = [
    "proto/content.proto",
    "proto/diff.proto",
    "proto/images.proto",
    "proto/introspection.proto",
    "proto/leases.proto",
    "proto/version.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let served = protox::compile(["proto/snapshots.proto", "proto/descriptor.proto"], ["proto"])?;
    tonic_prost_build::configure().emit_rerun_if_changed(false).btree_map(".").compile_fds(served)?;
    let called = protox::compile(CALLED, ["proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .bytes(".")
        .build_server(false)
        .extern_path(".containerd.types", "crate::api::types")
        .compile_fds(called)?;
    Ok(())
}
