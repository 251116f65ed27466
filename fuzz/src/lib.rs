//! Fuzz targets: what an attacker may hand to the crates that parse, and what must hold whatever it is.
//!
//! Each target is a plain function of bytes, so that the fuzzer drives it (`ci/fuzz`) and the tests replay its seeds
//! (`testdata/fuzz/<target>/`) without a fuzzer. A target fails by panicking; what it calls may refuse anything.

mod decode;
mod documents;
mod estargz;
#[path = "../../fs/index/tests/support/estargz.rs"]
mod estargz_writer;
mod index_file;
mod layers;
mod pass;
pub mod seeds;
mod walk;

pub use decode::decode_point;
pub use documents::documents;
pub use estargz::estargz;
pub use index_file::{index_file, tree_indexes};
pub use layers::tree;
pub use pass::{gzip_pass, tar_pass, zstd_pass};

/// What a target is: it takes any bytes and panics if something is wrong.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its folder of seeds.
pub const TARGETS: [(&str, Target); 9] = [
    ("tar_pass", tar_pass),
    ("gzip_pass", gzip_pass),
    ("zstd_pass", zstd_pass),
    ("estargz", estargz),
    ("index_file", index_file),
    ("tree", tree),
    ("tree_indexes", tree_indexes),
    ("decode_point", decode_point),
    ("documents", documents),
];
