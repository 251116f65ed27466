//! The index file, byte for byte. All integers are little-endian.
//!
//! ```text
//! header   256 bytes, below
//! sections in the order of `Section`, each aligned to 8 bytes, zero bytes between them
//! ```
//!
//! | header offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `SNAPIDX\n` |
//! | 8 | 4 | format version |
//! | 12 | 4 | number of sections |
//! | 16 | 32 | digest of the layer's blob |
//! | 48 | 32 | diff ID (zero: not known) |
//! | 80 | 8 | size of the blob |
//! | 88 | 8 | length of data space |
//! | 96 | 8 x 16 | per section: offset, length, in bytes |
//! | 224 | 32 | blake3 of the file with this field zero |
//!
//! Invariants, all checked on open (`validate`): inode 0 is the root directory; every number refers to something that exists; a
//! directory is an entry of exactly one directory and is reached from the root; names in a directory ascend, are unique and are no
//! path; extents of a file ascend and lie in data space; chunks ascend in data space and do not overlap; every extent is covered by
//! chunks; points ascend in the blob and lie in it; chunk to point never descends.

pub(crate) const MAGIC: [u8; 8] = *b"SNAPIDX\n";
pub(crate) const VERSION: u32 = 1;

pub(crate) const HEADER_BYTES: usize = 256;
pub(crate) const AT_VERSION: usize = 8;
pub(crate) const AT_SECTION_COUNT: usize = AT_VERSION + 4;
pub(crate) const AT_LAYER: usize = AT_SECTION_COUNT + 4;
pub(crate) const AT_DIFF_ID: usize = AT_LAYER + 32;
pub(crate) const AT_BLOB_BYTES: usize = AT_DIFF_ID + 32;
pub(crate) const AT_DATA_BYTES: usize = AT_BLOB_BYTES + 8;
pub(crate) const AT_SECTIONS: usize = AT_DATA_BYTES + 8;
pub(crate) const AT_CHECKSUM: usize = AT_SECTIONS + SECTIONS * 16;
const _: () = assert!(AT_CHECKSUM + 32 == HEADER_BYTES);

pub(crate) const SECTIONS: usize = 8;

/// The file's sections, in file order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Section {
    Inodes,
    Dirents,
    Extents,
    Xattrs,
    Chunks,
    Points,
    Strings,
    Windows,
}

impl Section {
    pub(crate) const ALL: [Self; SECTIONS] =
        [Self::Inodes, Self::Dirents, Self::Extents, Self::Xattrs, Self::Chunks, Self::Points, Self::Strings, Self::Windows];

    /// Bytes of one record; 1 for the sections that hold plain bytes.
    pub(crate) const fn record_bytes(self) -> usize {
        match self {
            Self::Inodes => InodeRecord::BYTES,
            Self::Dirents => DirentRecord::BYTES,
            Self::Extents => ExtentRecord::BYTES,
            Self::Xattrs => XattrRecord::BYTES,
            Self::Chunks => ChunkRecord::BYTES,
            Self::Points => PointRecord::BYTES,
            Self::Strings | Self::Windows => 1,
        }
    }
}

/// Takes little-endian integers from a record whose length was checked.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        if let Some((head, tail)) = self.0.split_at_checked(N) {
            field.copy_from_slice(head);
            self.0 = tail;
        }
        field
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Declares a record: its fields in file order, its size, and both directions.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $bytes:literal { $($(#[$field_doc:meta])* $field:ident : $int:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub(crate) struct $name { $($(#[$field_doc])* pub(crate) $field: $int),* }

        impl $name {
            pub(crate) const BYTES: usize = $bytes;

            pub(crate) fn read(bytes: &[u8]) -> Self {
                let mut fields = Fields(bytes);
                Self { $($field: record!(@read fields $int)),* }
            }

            pub(crate) fn write(&self, out: &mut Vec<u8>) {
                $(out.extend_from_slice(&record!(@write self.$field, $int));)*
            }
        }

        const _: () = assert!($bytes == 0 $(+ size_of::<$int>())*);
    };
    (@read $fields:ident u32) => { $fields.u32() };
    (@read $fields:ident u64) => { $fields.u64() };
    (@read $fields:ident i64) => { $fields.u64() as i64 };
    (@read $fields:ident Bytes32) => { $fields.take::<32>() };
    (@write $value:expr, Bytes32) => { $value };
    (@write $value:expr, $int:ident) => { $value.to_le_bytes() };
}

type Bytes32 = [u8; 32];

record! {
    /// One inode. `first` and `count` speak of extents (regular file), entries (directory) or string bytes (symbolic link).
    InodeRecord, 64 {
        mode: u32, uid: u32, gid: u32, nlink: u32,
        size: u64, mtime_seconds: i64,
        mtime_nanoseconds: u32,
        /// Linux' 32-bit encoding, see [`crate::device_number`].
        rdev: u32,
        first: u32, count: u32,
        xattr_first: u32, xattr_count: u32,
        /// Of a directory: the directory that it is in.
        parent: u32,
        flags: u32,
    }
}

/// [`InodeRecord::flags`]: the directory hides what lower layers have in it.
pub(crate) const FLAG_OPAQUE: u32 = 1;
/// [`InodeRecord::flags`]: the layer has no entry for this directory, only for things in it.
pub(crate) const FLAG_IMPLIED: u32 = 2;

record! {
    /// One name in a directory.
    DirentRecord, 16 { name_at: u32, name_bytes: u32, kind: u32, target: u32 }
}

/// [`DirentRecord::kind`]: `target` is an inode.
pub(crate) const DIRENT_INODE: u32 = 0;
/// [`DirentRecord::kind`]: the name is absent, and hides what lower layers have under it.
pub(crate) const DIRENT_WHITEOUT: u32 = 1;
/// [`DirentRecord::kind`]: a hard link to a path of a lower layer; `target` is where its string starts: u32 length, then the bytes.
pub(crate) const DIRENT_LOWER_LINK: u32 = 2;

record! {
    /// A run of a file's bytes. What no extent covers is zeros.
    ExtentRecord, 24 { file_offset: u64, data_offset: u64, bytes: u64 }
}

record! {
    /// One extended attribute.
    XattrRecord, 16 { name_at: u32, name_bytes: u32, value_at: u32, value_bytes: u32 }
}

record! {
    /// One chunk: a range of data space that is fetched, verified and stored as one.
    ChunkRecord, 64 {
        data_offset: u64,
        bytes: u32,
        point: u32,
        /// Decoded bytes between the point and the chunk's start.
        skip: u64,
        check: u32,
        reserved: u32,
        digest: Bytes32,
    }
}

record! {
    /// A place in the blob where decoding can start.
    PointRecord, 40 {
        blob_offset: u64,
        /// Compressed bytes that hold everything up to the next point.
        blob_bytes: u64,
        /// Decoded bytes of those.
        decoded_bytes: u64,
        codec: u32,
        /// Deflate bits of the byte at `blob_offset` that belong to this point (0: starts on a byte).
        bits: u32,
        window_at: u32,
        /// zstd-compressed length of the 32 KiB window; 0: no window is needed.
        window_bytes: u32,
    }
}
