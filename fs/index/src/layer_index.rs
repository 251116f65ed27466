//! A layer's index, opened: inodes, names, extents and chunks by number, straight from the file's bytes.

use std::ops::Range;

use snap_digest::Digest;

use crate::chunks::{Check, Chunk, Codec};
use crate::entry::{Extent, Timestamp};
use crate::error::IndexError;
use crate::format::{self, ChunkRecord, DirentRecord, ExtentRecord, InodeRecord, PointRecord, Section, XattrRecord};
use crate::limits;
use crate::sections::{IndexBytes, Sections};
use crate::validate::validate;
use crate::write::{CHECK_SHA256, CODEC_DEFLATE, CODEC_GZIP, CODEC_STORED, file_type};

/// An index that was checked: every number in it refers to something.
pub struct LayerIndex {
    sections: Sections,
}

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// One inode of a layer, decoded. Cheap to copy; owns nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    record: InodeRecord,
}

impl Inode {
    /// What it is.
    pub fn kind(&self) -> InodeKind {
        match self.record.mode & file_type::MASK {
            file_type::DIRECTORY => InodeKind::Directory,
            file_type::SYMLINK => InodeKind::Symlink,
            file_type::CHARACTER => InodeKind::CharDevice,
            file_type::BLOCK => InodeKind::BlockDevice,
            file_type::FIFO => InodeKind::Fifo,
            _ => InodeKind::File,
        }
    }
    /// File type and permission bits as in `stat(2)`.
    pub fn mode(&self) -> u32 {
        self.record.mode
    }
    /// Owner.
    pub fn uid(&self) -> u32 {
        self.record.uid
    }
    /// Group.
    pub fn gid(&self) -> u32 {
        self.record.gid
    }
    /// Names of the inode in its layer; of a directory 2 and one for each directory in it.
    pub fn nlink(&self) -> u32 {
        self.record.nlink
    }
    /// Bytes of a file or of a symbolic link's target; 0 for the rest.
    pub fn size_bytes(&self) -> u64 {
        self.record.size
    }
    /// Last change of the content.
    pub fn mtime(&self) -> Timestamp {
        Timestamp { seconds: self.record.mtime_seconds, nanoseconds: self.record.mtime_nanoseconds }
    }
    /// Device number in Linux' 32-bit form.
    pub fn rdev(&self) -> u32 {
        self.record.rdev
    }
    /// A directory that hides what lower layers have in it.
    pub fn is_opaque(&self) -> bool {
        self.record.flags & format::FLAG_OPAQUE != 0
    }
    /// A directory that the layer has no entry for: only its name is certain.
    pub fn is_implied(&self) -> bool {
        self.record.flags & format::FLAG_IMPLIED != 0
    }
}

/// What a name in a layer's directory stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// An inode of this layer.
    Inode(u32),
    /// Nothing; and nothing of lower layers.
    Whiteout,
    /// The inode that the lower layers have at this clean path, relative to the root.
    LowerLink(&'a [u8]),
}

/// One name in a layer's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dirent<'a> {
    /// Not empty, no `/`, not `.` or `..`.
    pub name: &'a [u8],
    /// What it stands for.
    pub target: Target<'a>,
}

/// A point without its window. See [`crate::Point`] for the fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PointInfo {
    /// First compressed byte that is needed.
    pub blob_offset: u64,
    /// Compressed bytes that hold everything up to the next point.
    pub blob_bytes: u64,
    /// Decoded bytes up to the next point, at most.
    pub decoded_bytes: u64,
    /// How to decode.
    pub codec: Codec,
    pub(crate) window_at: u32,
    pub(crate) window_bytes: u32,
}

impl PointInfo {
    /// The compressed range to fetch.
    pub fn blob_range(&self) -> Range<u64> {
        self.blob_offset..self.blob_offset + self.blob_bytes
    }
}

impl LayerIndex {
    /// The number of the root directory.
    pub const ROOT: u32 = 0;

    /// Opens an index file that must be the one of `layer`. Everything in it is checked here, so nothing below can fail.
    ///
    /// # Errors
    /// [`IndexError::Damaged`], [`IndexError::Version`], [`IndexError::OtherLayer`].
    pub fn open(bytes: IndexBytes, layer: &Digest) -> Result<Self, IndexError> {
        let sections = Sections::open(bytes)?;
        if sections.layer != *layer {
            return Err(IndexError::OtherLayer { found: sections.layer, wanted: *layer });
        }
        let index = Self { sections };
        validate(&index)?;
        Ok(index)
    }

    pub(crate) fn sections(&self) -> &Sections {
        &self.sections
    }

    /// Digest of the layer's blob.
    pub fn layer(&self) -> Digest {
        self.sections.layer
    }
    /// Digest of the tar stream, where a pass over all of it has told.
    pub fn diff_id(&self) -> Option<Digest> {
        self.sections.diff_id
    }
    /// Size of the layer's blob.
    pub fn blob_bytes(&self) -> u64 {
        self.sections.blob_bytes
    }
    /// Length of data space.
    pub fn data_bytes(&self) -> u64 {
        self.sections.data_bytes
    }
    /// Number of inodes; they are `0..count`.
    pub fn inode_count(&self) -> u32 {
        self.sections.count(Section::Inodes)
    }
    /// Number of chunks; they are `0..count`.
    pub fn chunk_count(&self) -> u32 {
        self.sections.count(Section::Chunks)
    }
    /// Number of points; they are `0..count`.
    pub fn point_count(&self) -> u32 {
        self.sections.count(Section::Points)
    }
    /// Whether no inode of the layer has an extended attribute.
    pub fn is_without_xattrs(&self) -> bool {
        self.sections.count(Section::Xattrs) == 0
    }

    /// An inode by its number.
    pub fn inode(&self, number: u32) -> Inode {
        Inode { record: self.inode_record(number) }
    }

    pub(crate) fn inode_record(&self, number: u32) -> InodeRecord {
        InodeRecord::read(self.sections.record(Section::Inodes, number))
    }

    pub(crate) fn dirent_record(&self, number: u32) -> DirentRecord {
        DirentRecord::read(self.sections.record(Section::Dirents, number))
    }

    fn dirent(&self, number: u32) -> Dirent<'_> {
        let record = self.dirent_record(number);
        let target = match record.kind {
            format::DIRENT_INODE => Target::Inode(record.target),
            format::DIRENT_LOWER_LINK => Target::LowerLink(self.lower_link(record.target)),
            _ => Target::Whiteout,
        };
        Dirent { name: self.sections.string(record.name_at, record.name_bytes), target }
    }

    pub(crate) fn lower_link(&self, at: u32) -> &[u8] {
        let mut length = [0; 4];
        if let Ok(bytes) = self.sections.string(at, 4).try_into() {
            length = bytes;
        }
        self.sections.string(at.saturating_add(4), u32::from_le_bytes(length))
    }

    /// The names in a directory, ascending by their bytes. Nothing for what is no directory.
    pub fn entries<'a>(&'a self, directory: &Inode) -> impl ExactSizeIterator<Item = Dirent<'a>> + use<'a> {
        let range = match directory.kind() {
            InodeKind::Directory => directory.record.first..directory.record.first + directory.record.count,
            _ => 0..0,
        };
        range.map(move |number| self.dirent(number))
    }

    /// Finds a name in a directory by binary search.
    pub fn lookup(&self, directory: &Inode, name: &[u8]) -> Option<Target<'_>> {
        if directory.kind() != InodeKind::Directory {
            return None;
        }
        let (mut low, mut high) = (directory.record.first, directory.record.first + directory.record.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let dirent = self.dirent(middle);
            match dirent.name.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(dirent.target),
            }
        }
        None
    }

    /// The target of a symbolic link; empty for the rest.
    pub fn symlink_target(&self, inode: &Inode) -> &[u8] {
        match inode.kind() {
            InodeKind::Symlink => self.sections.string(inode.record.first, inode.record.count),
            _ => b"",
        }
    }

    /// The extents of a file, ascending. Nothing for the rest.
    pub fn extents<'a>(&'a self, inode: &Inode) -> impl ExactSizeIterator<Item = Extent> + use<'a> {
        let range = match inode.kind() {
            InodeKind::File => inode.record.first..inode.record.first + inode.record.count,
            _ => 0..0,
        };
        range.map(move |number| self.extent(number))
    }

    pub(crate) fn extent(&self, number: u32) -> Extent {
        let record = ExtentRecord::read(self.sections.record(Section::Extents, number));
        Extent { file_offset: record.file_offset, data_offset: record.data_offset, bytes: record.bytes }
    }

    /// The extended attributes of an inode, ascending by name.
    pub fn xattrs<'a>(&'a self, inode: &Inode) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let record = inode.record;
        (record.xattr_first..record.xattr_first + record.xattr_count).map(move |number| {
            let xattr = self.xattr_record(number);
            (self.sections.string(xattr.name_at, xattr.name_bytes), self.sections.string(xattr.value_at, xattr.value_bytes))
        })
    }

    pub(crate) fn xattr_record(&self, number: u32) -> XattrRecord {
        XattrRecord::read(self.sections.record(Section::Xattrs, number))
    }

    /// A chunk by its number.
    pub fn chunk(&self, number: u32) -> Chunk {
        let record = self.chunk_record(number);
        let check = match record.check {
            CHECK_SHA256 => Check::Sha256(Digest::from_bytes(record.digest)),
            _ => Check::Blake3(record.digest),
        };
        Chunk { data_offset: record.data_offset, bytes: record.bytes, point: record.point, skip: record.skip, check }
    }

    pub(crate) fn chunk_record(&self, number: u32) -> ChunkRecord {
        ChunkRecord::read(self.sections.record(Section::Chunks, number))
    }

    /// The data range of a chunk.
    pub fn chunk_range(&self, number: u32) -> Range<u64> {
        let record = self.chunk_record(number);
        record.data_offset..record.data_offset + u64::from(record.bytes)
    }

    /// The chunks that a range of data space touches.
    pub fn chunks_in(&self, data: Range<u64>) -> Range<u32> {
        let count = self.chunk_count();
        let first = partition_point(count, |chunk| self.chunk_range(chunk).end <= data.start);
        let end = partition_point(count, |chunk| self.chunk_record(chunk).data_offset < data.end);
        first..end.max(first)
    }

    /// The chunks that are decoded from a point.
    pub fn chunks_of_point(&self, point: u32) -> Range<u32> {
        let count = self.chunk_count();
        let first = partition_point(count, |chunk| self.chunk_record(chunk).point < point);
        let end = partition_point(count, |chunk| self.chunk_record(chunk).point <= point);
        first..end
    }

    /// A point by its number.
    pub fn point(&self, number: u32) -> PointInfo {
        let record = self.point_record(number);
        let codec = match record.codec {
            CODEC_STORED => Codec::Stored,
            CODEC_GZIP => Codec::Gzip,
            CODEC_DEFLATE => Codec::Deflate { bits: record.bits as u8 },
            _ => Codec::Zstd,
        };
        PointInfo {
            blob_offset: record.blob_offset,
            blob_bytes: record.blob_bytes,
            decoded_bytes: record.decoded_bytes,
            codec,
            window_at: record.window_at,
            window_bytes: record.window_bytes,
        }
    }

    pub(crate) fn point_record(&self, number: u32) -> PointRecord {
        PointRecord::read(self.sections.record(Section::Points, number))
    }

    /// The decoder's dictionary at a point: 32 KiB, or nothing.
    ///
    /// # Errors
    /// [`IndexError::Compressed`] where the stored window does not unpack to at most 32 KiB.
    pub fn window(&self, point: &PointInfo) -> Result<Vec<u8>, IndexError> {
        if point.window_bytes == 0 {
            return Ok(Vec::new());
        }
        let at = point.window_at as usize;
        let packed = self.sections.bytes(Section::Windows).get(at..at + point.window_bytes as usize).unwrap_or_default();
        zstd::bulk::decompress(packed, limits::WINDOW_BYTES).map_err(|error| IndexError::Compressed {
            format: "zstd",
            at: point.blob_offset,
            why: format!("seek window: {error}"),
        })
    }
}

/// The first number in `0..count` for which `before` is false; `before` must be true up to there.
fn partition_point(count: u32, before: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
