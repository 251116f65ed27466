//! Writes the index file. The same entries and chunks always give the same bytes.

use std::collections::VecDeque;

use snap_digest::Digest;

use crate::builder::{Child, Node, NodeKind, ROOT};
use crate::chunks::{Check, ChunkPlan, Codec};
use crate::error::IndexError;
use crate::format::{self, ChunkRecord, DirentRecord, ExtentRecord, InodeRecord, PointRecord, Section, XattrRecord};
use crate::limits;

pub(crate) const CODEC_STORED: u32 = 0;
pub(crate) const CODEC_GZIP: u32 = 1;
pub(crate) const CODEC_DEFLATE: u32 = 2;
pub(crate) const CODEC_ZSTD: u32 = 3;
pub(crate) const CHECK_SHA256: u32 = 1;
pub(crate) const CHECK_BLAKE3: u32 = 2;

const UNNUMBERED: u32 = u32::MAX;

#[derive(Default)]
struct Tables {
    inodes: Vec<InodeRecord>,
    dirents: Vec<DirentRecord>,
    extents: Vec<ExtentRecord>,
    xattrs: Vec<XattrRecord>,
    strings: Vec<u8>,
}

impl Tables {
    /// Appends to the strings; gives where.
    fn string(&mut self, bytes: &[u8]) -> Result<u32, IndexError> {
        let at = self.strings.len();
        if at + bytes.len() > limits::STRINGS_BYTES_MAX {
            return Err(IndexError::limit("bytes of names, link targets and extended attributes", limits::STRINGS_BYTES_MAX as u64));
        }
        self.strings.extend_from_slice(bytes);
        Ok(at as u32)
    }

    fn inode(&mut self, node: &Node, parent: u32) -> Result<InodeRecord, IndexError> {
        let attributes = &node.attributes;
        let mut xattrs: Vec<_> = attributes.xattrs.iter().collect();
        // The last of a repeated name wins, as with setxattr.
        xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        xattrs.reverse();
        xattrs.dedup_by(|later, kept| later.0 == kept.0);
        xattrs.reverse();
        let mut inode = InodeRecord {
            mode: attributes.mode & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime_seconds: attributes.mtime.seconds,
            mtime_nanoseconds: attributes.mtime.nanoseconds,
            xattr_first: self.xattrs.len() as u32,
            xattr_count: xattrs.len() as u32,
            parent,
            ..InodeRecord::default()
        };
        for (name, value) in xattrs {
            let (name_at, value_at) = (self.string(name)?, self.string(value)?);
            self.xattrs.push(XattrRecord { name_at, name_bytes: name.len() as u32, value_at, value_bytes: value.len() as u32 });
        }
        match &node.kind {
            NodeKind::Directory { opaque, implied, .. } => {
                inode.mode |= file_type::DIRECTORY;
                inode.nlink = 2;
                inode.flags = if *opaque { format::FLAG_OPAQUE } else { 0 } | if *implied { format::FLAG_IMPLIED } else { 0 };
            }
            NodeKind::File { size_bytes, extents } => {
                inode.mode |= file_type::REGULAR;
                inode.size = *size_bytes;
                (inode.first, inode.count) = (self.extents.len() as u32, extents.len() as u32);
                self.extents.extend(extents.iter().map(|extent| ExtentRecord {
                    file_offset: extent.file_offset,
                    data_offset: extent.data_offset,
                    bytes: extent.bytes,
                }));
            }
            NodeKind::Symlink { target } => {
                inode.mode = file_type::SYMLINK | 0o777;
                inode.size = target.len() as u64;
                (inode.first, inode.count) = (self.string(target)?, target.len() as u32);
            }
            NodeKind::CharDevice { rdev } => (inode.mode, inode.rdev) = (inode.mode | file_type::CHARACTER, *rdev),
            NodeKind::BlockDevice { rdev } => (inode.mode, inode.rdev) = (inode.mode | file_type::BLOCK, *rdev),
            NodeKind::Fifo => inode.mode |= file_type::FIFO,
        }
        Ok(inode)
    }
}

/// The file type bits of a mode, as in `stat(2)`.
pub(crate) mod file_type {
    pub(crate) const MASK: u32 = 0o170_000;
    pub(crate) const FIFO: u32 = 0o010_000;
    pub(crate) const CHARACTER: u32 = 0o020_000;
    pub(crate) const DIRECTORY: u32 = 0o040_000;
    pub(crate) const BLOCK: u32 = 0o060_000;
    pub(crate) const REGULAR: u32 = 0o100_000;
    pub(crate) const SYMLINK: u32 = 0o120_000;
}

/// Numbers what the root reaches, breadth first with names ascending, so that a directory's inodes are neighbours.
fn tables(nodes: &[Node]) -> Result<Tables, IndexError> {
    let mut tables = Tables::default();
    let mut numbers = vec![UNNUMBERED; nodes.len()];
    numbers[ROOT] = 0;
    let root = tables.inode(&nodes[ROOT], 0)?;
    tables.inodes.push(root);
    let mut queue = VecDeque::from([ROOT]);
    while let Some(directory) = queue.pop_front() {
        let NodeKind::Directory { children, .. } = &nodes[directory].kind else { continue };
        let number = numbers[directory];
        let first = tables.dirents.len() as u32;
        for (name, child) in children {
            let name_at = tables.string(name)?;
            let (kind, target) = match child {
                Child::Whiteout => (format::DIRENT_WHITEOUT, 0),
                Child::LowerLink(path) => {
                    let at = tables.string(&(path.len() as u32).to_le_bytes())?;
                    tables.string(path)?;
                    (format::DIRENT_LOWER_LINK, at)
                }
                Child::Node(node) => {
                    if numbers[*node] == UNNUMBERED {
                        numbers[*node] = tables.inodes.len() as u32;
                        let inode = tables.inode(&nodes[*node], number)?;
                        tables.inodes.push(inode);
                    }
                    let target = numbers[*node];
                    if matches!(nodes[*node].kind, NodeKind::Directory { .. }) {
                        tables.inodes[number as usize].nlink += 1;
                        queue.push_back(*node);
                    } else {
                        tables.inodes[target as usize].nlink += 1;
                        // Only a directory has one parent.
                        tables.inodes[target as usize].parent = 0;
                    }
                    (format::DIRENT_INODE, target)
                }
            };
            tables.dirents.push(DirentRecord { name_at, name_bytes: name.len() as u32, kind, target });
        }
        let inode = &mut tables.inodes[number as usize];
        (inode.first, inode.count) = (first, children.len() as u32);
    }
    Ok(tables)
}

pub(crate) fn write_index(
    layer: Digest,
    blob_bytes: u64,
    diff_id: Option<Digest>,
    nodes: &[Node],
    plan: &ChunkPlan,
) -> Result<Vec<u8>, IndexError> {
    let tables = tables(nodes)?;
    let (points, windows) = point_records(plan)?;
    let mut file = vec![0; format::HEADER_BYTES];
    for section in Section::ALL {
        file.resize(file.len().next_multiple_of(8), 0);
        let start = file.len();
        match section {
            Section::Inodes => tables.inodes.iter().for_each(|record| record.write(&mut file)),
            Section::Dirents => tables.dirents.iter().for_each(|record| record.write(&mut file)),
            Section::Extents => tables.extents.iter().for_each(|record| record.write(&mut file)),
            Section::Xattrs => tables.xattrs.iter().for_each(|record| record.write(&mut file)),
            Section::Chunks => plan.chunks.iter().for_each(|chunk| chunk_record(chunk).write(&mut file)),
            Section::Points => points.iter().for_each(|record| record.write(&mut file)),
            Section::Strings => file.extend_from_slice(&tables.strings),
            Section::Windows => file.extend_from_slice(&windows),
        }
        let at = format::AT_SECTIONS + section as usize * 16;
        let bytes = (file.len() - start) as u64;
        file[at..at + 8].copy_from_slice(&(start as u64).to_le_bytes());
        file[at + 8..at + 16].copy_from_slice(&bytes.to_le_bytes());
    }
    file[..8].copy_from_slice(&format::MAGIC);
    file[format::AT_VERSION..][..4].copy_from_slice(&format::VERSION.to_le_bytes());
    file[format::AT_SECTION_COUNT..][..4].copy_from_slice(&(format::SECTIONS as u32).to_le_bytes());
    file[format::AT_LAYER..][..32].copy_from_slice(layer.as_bytes());
    if let Some(diff_id) = diff_id {
        file[format::AT_DIFF_ID..][..32].copy_from_slice(diff_id.as_bytes());
    }
    file[format::AT_BLOB_BYTES..][..8].copy_from_slice(&blob_bytes.to_le_bytes());
    file[format::AT_DATA_BYTES..][..8].copy_from_slice(&plan.data_bytes.to_le_bytes());
    // The checksum is taken while its own field is still zero.
    let checksum = blake3::hash(&file);
    file[format::AT_CHECKSUM..][..32].copy_from_slice(checksum.as_bytes());
    Ok(file)
}

fn chunk_record(chunk: &crate::chunks::Chunk) -> ChunkRecord {
    let (check, digest) = match chunk.check {
        Check::Sha256(digest) => (CHECK_SHA256, *digest.as_bytes()),
        Check::Blake3(hash) => (CHECK_BLAKE3, hash),
    };
    ChunkRecord { data_offset: chunk.data_offset, bytes: chunk.bytes, point: chunk.point, skip: chunk.skip, check, reserved: 0, digest }
}

fn point_records(plan: &ChunkPlan) -> Result<(Vec<PointRecord>, Vec<u8>), IndexError> {
    if plan.chunks.len() > limits::CHUNKS_MAX || plan.points.len() > limits::CHUNKS_MAX {
        return Err(IndexError::limit("chunks", limits::CHUNKS_MAX as u64));
    }
    let mut windows = Vec::new();
    let mut records = Vec::with_capacity(plan.points.len());
    for point in &plan.points {
        let (codec, bits) = match point.codec {
            Codec::Stored => (CODEC_STORED, 0),
            Codec::Gzip => (CODEC_GZIP, 0),
            Codec::Deflate { bits } => (CODEC_DEFLATE, u32::from(bits)),
            Codec::Zstd => (CODEC_ZSTD, 0),
        };
        records.push(PointRecord {
            blob_offset: point.blob_offset,
            blob_bytes: point.blob_bytes,
            decoded_bytes: point.decoded_bytes,
            codec,
            bits,
            window_at: windows.len() as u32,
            window_bytes: point.window.len() as u32,
        });
        windows.extend_from_slice(&point.window);
        if windows.len() > limits::WINDOWS_BYTES_MAX {
            return Err(IndexError::limit("bytes of seek windows", limits::WINDOWS_BYTES_MAX as u64));
        }
    }
    Ok((records, windows))
}
