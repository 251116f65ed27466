//! Index files that nobody wrote: whatever the bytes are, opening gives an error or an index that can be walked to its end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blobs;
mod tar_writer;

use std::io;

use blobs::{gzip, stream, zstd_frames};
use proptest::prelude::*;
use snap_digest::Digest;
use snap_index::{LayerIndex, Target, decode_point};
use tar_writer::{TarWriter, member};

/// Where the file's checksum is: blake3 of the file with this field zero.
const CHECKSUM: std::ops::Range<usize> = 224..256;

/// A layer with an entry of every kind.
fn layer() -> Vec<u8> {
    let mut tar = TarWriter::default();
    tar.add(&member("dir/", b'5'), b"").file("dir/file", &blobs::mixed(1, 9000)).file("empty", b"");
    tar.pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"2")]).file("dir/sub/xattrs", b"x");
    tar.add(&member("hard", b'1').link("dir/file"), b"").add(&member("lower", b'1').link("not/here"), b"");
    tar.add(&member("sym", b'2').link("dir"), b"").add(&member("fifo", b'6'), b"").add(&member("dev", b'4'), b"");
    tar.file(".wh.gone", b"").file("dir/.wh..wh..opq", b"");
    tar.pax(&[("GNU.sparse.map", b"0,100,5000,100"), ("GNU.sparse.size", b"9000")]).file("sparse", &[7; 200]);
    tar.end()
}

fn indexes() -> Vec<(Vec<u8>, Digest)> {
    let tar = layer();
    [gzip(&tar, 6), zstd_frames(&tar, 2000), tar.clone()]
        .iter()
        .map(|blob| (stream(blob, 1500).unwrap().0.index, Digest::of(blob)))
        .collect()
}

fn seal(index: &mut [u8]) {
    index[CHECKSUM].fill(0);
    let checksum = *blake3::hash(index).as_bytes();
    index[CHECKSUM].copy_from_slice(&checksum);
}

/// Asks the index everything that it can be asked.
fn walk(index: &LayerIndex) {
    let mut ahead = vec![LayerIndex::ROOT];
    let mut seen = 0u32;
    while let Some(number) = ahead.pop() {
        seen += 1;
        assert!(seen <= index.inode_count(), "directories form a tree");
        let directory = index.inode(number);
        for entry in index.entries(&directory) {
            assert_eq!(index.lookup(&directory, entry.name), Some(entry.target));
            match entry.target {
                Target::Inode(child) if index.inode(child).mode() & 0o170_000 == 0o040_000 => ahead.push(child),
                Target::LowerLink(path) => assert!(!path.is_empty()),
                Target::Inode(_) | Target::Whiteout => {}
            }
        }
    }
    for number in 0..index.inode_count() {
        let inode = index.inode(number);
        let _ = (inode.kind(), inode.nlink(), inode.mtime(), inode.rdev(), index.symlink_target(&inode).len());
        assert!(index.xattrs(&inode).all(|(name, _)| !name.is_empty()));
        for extent in index.extents(&inode) {
            let covered = index.chunks_in(extent.data_offset..extent.data_offset + extent.bytes);
            assert!(!covered.is_empty());
        }
    }
    for point in 0..index.point_count() {
        let info = index.point(point);
        assert!(info.blob_range().end <= index.blob_bytes());
        let _ = index.window(&info);
        // Wherever the point claims to start, zeros are no chunk of it.
        let mut zeros = io::Read::take(io::repeat(0), 10_000);
        let _ = decode_point(index, point, &mut zeros, &mut |_| Ok(()));
    }
    assert!((0..index.chunk_count()).all(|chunk| index.chunk_range(chunk).end <= index.data_bytes()));
}

#[test]
fn what_was_written_can_be_walked() {
    for (index, layer) in indexes() {
        walk(&LayerIndex::open(Box::new(index), &layer).unwrap());
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (index, layer) = indexes().swap_remove(0);
    for at in 0..index.len() {
        let mut flipped = index.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(LayerIndex::open(Box::new(flipped), &layer).is_err(), "byte {at}");
    }
    for bytes in (0..index.len()).step_by(7) {
        assert!(LayerIndex::open(Box::new(index[..bytes].to_vec()), &layer).is_err(), "{bytes} bytes");
    }
}

#[test]
fn every_changed_byte_under_a_right_checksum_is_refused_or_harmless() {
    for (index, layer) in indexes() {
        for at in 0..index.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = index.clone();
                changed[at] = value;
                seal(&mut changed);
                if let Ok(index) = LayerIndex::open(Box::new(changed), &layer) {
                    walk(&index);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bytes_that_are_no_index_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(LayerIndex::open(Box::new(bytes), &Digest::of(b"")).is_err());
    }

    #[test]
    fn any_bytes_behind_a_right_magic_and_checksum_are_refused_or_harmless(
        header in prop::collection::vec(any::<u8>(), 208), body in prop::collection::vec(any::<u8>(), 0..600), which in 0usize..3,
    ) {
        let (index, layer) = indexes().swap_remove(which);
        let mut bytes = index[..CHECKSUM.end].to_vec();
        bytes[CHECKSUM.start - 128..CHECKSUM.start].copy_from_slice(&header[80..]);
        bytes.extend(body);
        seal(&mut bytes);
        if let Ok(index) = LayerIndex::open(Box::new(bytes), &layer) {
            walk(&index);
        }
    }

    #[test]
    fn changed_numbers_under_a_right_checksum_are_refused_or_harmless(
        which in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u32>(), 0u32..20, Just(u32::MAX)]), 1..4),
    ) {
        let (mut index, layer) = indexes().swap_remove(which);
        for (place, value) in changes {
            let at = place.index(index.len() / 4) * 4;
            index[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        seal(&mut index);
        if let Ok(index) = LayerIndex::open(Box::new(index), &layer) {
            walk(&index);
        }
    }
}
