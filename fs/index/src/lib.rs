//! Every layer format in, one [`LayerIndex`] out; and the layers of an image merged into one tree.
//!
//! A parser of a foreign format is a plain function from bytes to a [`Builder`]; [`Builder::finish`] writes the index file, and
//! [`LayerIndex::open`] checks one and answers from its bytes as they are, without a parse and without a heap per entry. There is no
//! network here, no async and no FUSE, so that all of it can be fuzzed alone.

#![deny(unsafe_code)]
#![forbid(unsafe_op_in_unsafe_fn)]

mod builder;
#[cfg(test)]
mod builder_tests;
mod chunks;
mod compression;
mod decode;
mod dump;
mod entry;
mod error;
mod estargz;
mod estargz_footer;
mod estargz_plan;
mod estargz_toc;
mod format;
mod gzip_pass;
mod inflate;
mod layer_index;
pub mod limits;
mod pass;
mod path;
mod pax;
mod pieces;
mod planner;
mod rfc3339;
mod sections;
mod sparse;
mod stored_pass;
mod tar;
mod tar_header;
#[cfg(test)]
mod tar_tests;
mod tree;
mod tree_links;
mod tree_merge;
mod validate;
mod write;
mod zstd_frames;
mod zstd_pass;

pub use builder::Builder;
pub use chunks::{Check, Chunk, ChunkPlan, Codec, Point};
pub use compression::Compression;
pub use decode::{VerifiedChunk, decode_chunks, decode_point, verify_chunk};
pub use dump::{DumpLine, dump, read_file};
pub use entry::{Attributes, EntryKind, Extent, Timestamp, device_number};
pub use error::{IndexError, TocError};
pub use estargz::{EstargzTail, TOC_DIGEST_ANNOTATION, estargz_tail_bytes, open_estargz};
pub use layer_index::{Dirent, Inode, InodeKind, LayerIndex, PointInfo, Target};
pub use pass::{DataSink, Layer, PassOptions, stream_layer};
pub use sections::IndexBytes;
pub use tree::{DIRECTORY_SIZE_BYTES, DirectoryId, FileId, ImageTree, Node, NodeAttributes, Whiteouts};
