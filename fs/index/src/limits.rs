//! Every bound that this crate puts on what it reads, in one place.

/// Entries (inodes) in one layer. Also what fits beside the layer's part of a node number.
pub const ENTRIES_MAX: usize = (1 << 24) - 1;
/// One component of a path, as every Linux file system has it.
pub const NAME_BYTES_MAX: usize = 255;
/// A whole path or a symbolic link's target in a layer.
pub const PATH_BYTES_MAX: usize = 64 * 1024;
/// Components of one path.
pub const PATH_COMPONENTS_MAX: usize = 2048;
/// Symbolic links followed while the parent directories of one entry are found (as the kernel's `MAXSYMLINKS`).
pub const SYMLINKS_FOLLOWED_MAX: usize = 40;
/// Names, link targets and extended attributes of one layer together.
pub const STRINGS_BYTES_MAX: usize = 1 << 30;
/// Extended attributes of one entry (the kernel's list limit is 64 KiB of names).
pub const XATTRS_PER_ENTRY_MAX: usize = 4096;
/// Extended attributes of one layer.
pub const XATTRS_MAX: usize = 1 << 24;
/// One extended attribute's value (the kernel's `XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// One extended attribute's name (the kernel's `XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Hard links that name one another before the one that names a file.
pub const LINK_CHAIN_MAX: usize = 40;
/// Data and sparse extents of one layer together.
pub const EXTENTS_MAX: usize = 1 << 26;
/// Chunks of one layer.
pub const CHUNKS_MAX: usize = 1 << 24;
/// One chunk's decoded bytes. What a read may have to hold in memory.
pub const CHUNK_BYTES_MAX: u64 = 64 << 20;
/// Decoded bytes of one layer: 1 TiB.
pub const DATA_BYTES_MAX: u64 = 1 << 40;
/// Seek windows of one layer together, compressed.
pub const WINDOWS_BYTES_MAX: usize = 1 << 30;
/// The deflate window.
pub const WINDOW_BYTES: usize = 32 * 1024;
/// Layers of one image.
pub const LAYERS_MAX: usize = 1024;
/// Names in one image tree: a 1 GiB table.
pub const TREE_NAMES_MAX: usize = 1 << 26;
/// Directories looked into to find what hard links from a layer to a lower one name, in one image: seconds. A link of a usual image
/// takes a handful; a made-up one can take a million, through every layer and down the longest path.
pub const LOWER_LINK_LOOKUPS_MAX: u32 = 1 << 26;
/// A table of contents as it is in the blob. (The TOC of a layer of 50,000 files takes 3 MiB.)
pub const TOC_BLOB_BYTES_MAX: u64 = 64 << 20;
/// A table of contents as JSON.
pub const TOC_JSON_BYTES_MAX: u64 = 512 << 20;
/// The least that is read from the end of a blob in the hope for a table of contents.
pub const TOC_TAIL_BYTES_MIN: u64 = 128 << 10;
/// The most that is read from the end of a blob in the hope for a table of contents.
pub const TOC_TAIL_BYTES_MAX: u64 = 4 << 20;
/// Decoded bytes that one byte of deflate can stand for at most: 258 for two bits, rounded up.
pub const DEFLATE_RATIO_MAX: u64 = 1032;
/// What is held of a file while all of it is read.
pub const READ_BUFFER_BYTES: usize = 128 << 10;
/// Payload of one PAX header or long name in a tar stream, as Go's `archive/tar` has it.
pub const TAR_METADATA_BYTES_MAX: usize = 1 << 20;
/// Data parts of one sparse file in a tar stream.
pub const SPARSE_PARTS_MAX: usize = 1 << 20;
/// Decoded bytes between two seek points, unless told otherwise. 4 MiB: seek points add 1 % to a layer, a random read costs milliseconds.
pub const SPAN_BYTES: u64 = 4 << 20;
/// The window of a zstd frame, as a power of two: 128 MiB, what the zstd programs accept as well.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Buffers between the stages of the streaming pass, compressed and decoded. With 256 KiB, handing them on cost 8 % of the pass.
pub const PIECE_BYTES: usize = 1024 * 1024;
/// Decoded buffers on their way; bounds the pass' memory, and how far its stages may drift apart. With 8 the pass took 6 % longer.
pub const PIECES_IN_FLIGHT: usize = 24;
/// Compressed bytes that decoding from a point reads ahead at most, and decoded ones that it throws away at once.
pub const DECODE_BUFFER_BYTES: usize = 256 * 1024;
/// Compressed buffers on their way.
pub const BLOCKS_IN_FLIGHT: usize = 4;
