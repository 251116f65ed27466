//! Compiles the service's definition, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let definitions = protox::compile(["proto/snapshots.proto"], ["proto"])?;
    tonic_prost_build::configure().emit_rerun_if_changed(false).btree_map(".").compile_fds(definitions)?;
    Ok(())
}
