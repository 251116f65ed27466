//! What a layer says about one entry, before it is an inode.

/// A file system time: seconds since 1970 and nanoseconds below one second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub seconds: i64,
    /// Nanoseconds, under 1,000,000,000.
    pub nanoseconds: u32,
}

/// A run of a file's bytes in data space. Bytes of a file that no extent covers are zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where the run starts in the file.
    pub file_offset: u64,
    /// Where the run starts in data space.
    pub data_offset: u64,
    /// Its length in bytes; not zero.
    pub bytes: u64,
}

/// What kind of thing an entry makes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes.
        size_bytes: u64,
        /// Where its bytes are, ascending in the file.
        extents: Vec<Extent>,
    },
    /// A symbolic link; the target is any bytes but NUL.
    Symlink {
        /// As stored, never cleaned.
        target: Vec<u8>,
    },
    /// Another name of an entry of this layer, or else of a lower one.
    HardLink {
        /// The path of the other name, as stored.
        target: Vec<u8>,
    },
    /// A character device. 0:0 is overlayfs' whiteout.
    CharDevice {
        /// Device number.
        major: u32,
        /// Device number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Device number.
        major: u32,
        /// Device number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// An entry's attributes. They are ignored for a hard link, which has its target's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// Permission, suid, sgid and sticky bits; higher bits are dropped.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Full name (`user.x`) and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Linux' 32-bit form of a device number, the one that FUSE carries: `minor[19:8] major[11:0] minor[7:0]`.
///
/// `None` where major or minor do not fit (12 and 20 bits).
pub fn device_number(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}
