//! Index files with one number changed and the checksum made right again.

use snap_digest::Digest;

use crate::builder::Builder;
use crate::chunks::{Check, Chunk, ChunkPlan, Codec, Point};
use crate::entry::{Attributes, EntryKind, Extent};
use crate::format::{self, Section};
use crate::layer_index::LayerIndex;

/// Offsets of fields in their records.
const INODE_NLINK: usize = 12;
const INODE_RDEV: usize = 36;
const INODE_FIRST: usize = 40;
const INODE_COUNT: usize = 44;
const INODE_XATTR_COUNT: usize = 52;
const INODE_FLAGS: usize = 60;
const DIRENT_TARGET: usize = 12;
const EXTENT_DATA_OFFSET: usize = 8;
const CHUNK_BYTES: usize = 8;

/// The root (0), directories a (1) and b (2), files a/f (3) and b/f (4) with an extent each, a device b/z (5).
fn file() -> Vec<u8> {
    let layer = Digest::of(b"");
    let mut builder = Builder::new(layer, 100);
    let file = |data_offset| EntryKind::File { size_bytes: 10, extents: vec![Extent { file_offset: 0, data_offset, bytes: 10 }] };
    let attributes = Attributes { xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())], ..Attributes::default() };
    for (path, kind) in [("a/f", file(0)), ("b/f", file(10)), ("b/z", EntryKind::CharDevice { major: 1, minor: 3 })] {
        builder.add(path.as_bytes(), kind, attributes.clone()).unwrap();
    }
    let chunk = |number: u64| Chunk { data_offset: number * 10, bytes: 10, point: 0, skip: number * 10, check: Check::Sha256(layer) };
    let point = Point { blob_offset: 0, blob_bytes: 50, decoded_bytes: 20, codec: Codec::Gzip, window: Vec::new() };
    builder.finish(ChunkPlan { data_bytes: 20, chunks: vec![chunk(0), chunk(1)], points: vec![point] }, None).unwrap()
}

/// What opening says after a number was set.
fn refusal(section: Section, record: usize, field: usize, value: u32) -> String {
    let mut file = file();
    let at = format::AT_SECTIONS + section as usize * 16;
    let start = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    file[start + record * section.record_bytes() + field..][..4].copy_from_slice(&value.to_le_bytes());
    match LayerIndex::open(Box::new(with_checksum(file)), &Digest::of(b"")) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// An empty rule is for a change that keeps all of them.
fn check(message: &str, rule: &str) {
    assert!(message.contains(rule) && message.is_empty() == rule.is_empty(), "{message:?} should say {rule:?}");
}

fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    file[format::AT_CHECKSUM..][..32].fill(0);
    let checksum = blake3::hash(&file);
    file[format::AT_CHECKSUM..][..32].copy_from_slice(checksum.as_bytes());
    file
}

#[test]
fn an_unchanged_file_opens() {
    assert_eq!(refusal(Section::Inodes, 0, INODE_NLINK, 4), "");
}

#[test]
fn records_that_two_ranges_share_are_refused() {
    for (message, rule) in [
        (refusal(Section::Inodes, 4, INODE_FIRST, 0), ""),
        (refusal(Section::Inodes, 4, INODE_COUNT, 2), "extents are missing"),
        (refusal(Section::Inodes, 2, INODE_COUNT, u32::MAX), "entries are missing"),
        (refusal(Section::Inodes, 5, INODE_XATTR_COUNT, u32::MAX), "too many extended attributes"),
        (refusal(Section::Inodes, 2, INODE_FIRST, 0), "two parents"),
        // Both directories claim the entries of a and one more.
        (refusal(Section::Inodes, 1, INODE_COUNT, 3), "directories share entries"),
    ] {
        check(&message, rule);
    }
}

#[test]
fn what_a_tree_relies_on_is_checked() {
    for (message, rule) in [
        (refusal(Section::Inodes, 5, INODE_RDEV, 0), "overlayfs' whiteout"),
        (refusal(Section::Inodes, 3, INODE_NLINK, 2), "link count"),
        (refusal(Section::Inodes, 1, INODE_NLINK, 3), "link count"),
        (refusal(Section::Inodes, 3, INODE_FLAGS, format::FLAG_OPAQUE), "unknown flags"),
        (refusal(Section::Inodes, 1, INODE_FLAGS, 8), "unknown flags"),
        (refusal(Section::Dirents, 0, DIRENT_TARGET, 0), "two parents"),
        (refusal(Section::Dirents, 0, DIRENT_TARGET, 2), "two parents"),
        (refusal(Section::Dirents, 0, DIRENT_TARGET, 6), "leads to no inode"),
    ] {
        check(&message, rule);
    }
}

#[test]
fn every_byte_of_a_file_is_in_a_chunk() {
    for (message, rule) in [
        (refusal(Section::Extents, 1, EXTENT_DATA_OFFSET, 5), ""),
        (refusal(Section::Extents, 1, EXTENT_DATA_OFFSET, 11), "outside of data space"),
        (refusal(Section::Chunks, 0, CHUNK_BYTES, 9), "in no chunk"),
        (refusal(Section::Chunks, 1, CHUNK_BYTES, 9), "in no chunk"),
        (refusal(Section::Chunks, 0, CHUNK_BYTES, 11), "out of order"),
    ] {
        check(&message, rule);
    }
}

#[test]
fn any_change_that_opens_can_be_walked() {
    let original = file();
    for at in format::HEADER_BYTES..original.len() {
        for value in [0, 1, 2, 0x7f, 0xff] {
            let mut file = original.clone();
            file[at] = value;
            let Ok(index) = LayerIndex::open(Box::new(with_checksum(file)), &Digest::of(b"")) else { continue };
            for inode in (0..index.inode_count()).map(|number| index.inode(number)) {
                assert!(index.entries(&inode).count() + index.extents(&inode).count() + index.xattrs(&inode).count() < 40);
                for dirent in index.entries(&inode) {
                    assert_eq!(index.lookup(&inode, dirent.name), Some(dirent.target));
                }
            }
            assert!(crate::dump::dump(&index).count() < 40);
        }
    }
}
