//! The streaming pass and decoding from its points, over every kind of blob.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blobs;
mod tar_writer;

use blobs::{check_points, gzip, gzip_members, mixed, open, skippable, stream, tar_of, zstd, zstd_frames};
use proptest::prelude::*;
use snap_digest::Digest;
use snap_index::{Codec, Compression, PassOptions, limits, stream_layer};

/// Streams the blob, checks what it must give and that every point gives it again. Returns the number of points.
fn round_trip(tar: &[u8], blob: &[u8], span_bytes: u64) -> u32 {
    let (layer, data) = stream(blob, span_bytes).unwrap();
    assert!(data == tar, "the data is the tar stream");
    assert_eq!((layer.diff_id, layer.data_bytes), (Digest::of(tar), tar.len() as u64));
    let index = open(&layer, blob);
    assert_eq!((index.diff_id(), index.data_bytes()), (Some(layer.diff_id), layer.data_bytes));
    check_points(&index, blob, tar);
    index.point_count()
}

#[test]
fn every_gzip_level_gives_points_that_decode() {
    let tar = tar_of(1, 1_500_000);
    for level in [0, 1, 6, 9] {
        assert!(round_trip(&tar, &gzip(&tar, level), 100_000) >= 8, "level {level}");
    }
}

#[test]
fn deflate_points_start_within_bytes_and_on_them() {
    let mut seen = [false; 8];
    for seed in 0..20 {
        let tar = tar_of(seed, 1_000_000);
        let blob = gzip(&tar, 6);
        let (layer, _) = stream(&blob, 512).unwrap();
        let index = open(&layer, &blob);
        for point in 0..index.point_count() {
            if let Codec::Deflate { bits } = index.point(point).codec {
                seen[usize::from(bits)] = true;
            }
        }
        check_points(&index, &blob, &tar);
    }
    assert_eq!(seen, [true; 8]);
}

#[test]
fn members_follow_each_other_and_may_be_empty() {
    let tar = tar_of(3, 600_000);
    for member_bytes in [1000, 65_280, 131_072] {
        round_trip(&tar, &gzip_members(&tar, member_bytes), 200_000);
    }
    let half = tar.len() / 2;
    let empty = gzip(b"", 6);
    let blob = [&empty[..], &empty, &gzip(&tar[..half], 6), &empty, &gzip(&tar[half..], 1), &empty].concat();
    for span_bytes in [512, 50_000, 1 << 22] {
        round_trip(&tar, &blob, span_bytes);
    }
}

#[test]
fn headers_may_have_every_field() {
    let tar = tar_of(4, 20_000);
    let plain = gzip(&tar, 6);
    let mut header = vec![0x1f, 0x8b, 8, 0b1_1110, 1, 2, 3, 4, 0, 3];
    header.extend(5u16.to_le_bytes());
    header.extend(b"extraname.tar\0a comment\0");
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    header.extend((crc.sum() as u16).to_le_bytes());
    round_trip(&tar, &[&header, &plain[10..]].concat(), 4096);
    // The header's own checksum counts as well.
    let last = header.len() - 1;
    header[last] ^= 1;
    assert!(stream(&[&header, &plain[10..]].concat(), 4096).is_err());
}

#[test]
fn what_follows_the_last_member_is_hashed_and_ignored() {
    let tar = tar_of(5, 30_000);
    let blob = gzip(&tar, 6);
    for tail in [&[0u8; 1000][..], b"\x1f", b"garbage", &[0; 700_000]] {
        let padded = [&blob[..], tail].concat();
        round_trip(&tar, &padded, 4096);
        let index = open(&stream(&padded, 4096).unwrap().0, &padded);
        let last = index.point(index.point_count() - 1);
        assert_eq!(last.blob_range().end, blob.len() as u64);
    }
    // What starts as a member has to be one.
    assert!(stream(&[&blob[..], b"\x1f\x8b\x08garbage"].concat(), 4096).is_err());
}

#[test]
fn a_member_may_end_wherever_the_readers_blocks_do() {
    let (first, second) = (tar_of(10, 200_000), mixed(10, 100_000));
    let both = [&first[..], &second].concat();
    let plain = gzip(&first, 6);
    for shift in 0..6 {
        // A file name in the header moves the member's end to around the first block's end.
        let name_bytes = limits::PIECE_BYTES - 3 + shift - plain.len();
        let mut member = plain[..10].to_vec();
        member[3] = 8;
        member.resize(10 + name_bytes - 1, b'n');
        member.push(0);
        member.extend_from_slice(&plain[10..]);
        assert_eq!(member.len(), limits::PIECE_BYTES - 3 + shift);
        round_trip(&both, &[&member[..], &gzip(&second, 6)].concat(), 50_000);
        round_trip(&first, &[&member[..], b"\x1fx"].concat(), 50_000);
    }
}

#[test]
fn one_giant_block_is_several_chunks_of_one_point() {
    // Zeros compress so well that a block holds megabytes.
    let mut tar = tar_writer::TarWriter::default();
    let tar = tar.file("zeros", &vec![0; 5_000_000]).end();
    let blob = gzip(&tar, 9);
    let (layer, _) = stream(&blob, 10_000).unwrap();
    let index = open(&layer, &blob);
    assert!((0..index.point_count()).any(|point| index.chunks_of_point(point).len() > 1));
    assert!((0..index.chunk_count()).all(|chunk| index.chunk(chunk).bytes <= 20_000));
    check_points(&index, &blob, &tar);
}

#[test]
fn frames_are_gathered_and_split() {
    let tar = tar_of(6, 900_000);
    assert_eq!(round_trip(&tar, &zstd(&tar), 100_000), 1, "one frame is one point");
    let frames = zstd_frames(&tar, 30_000);
    let points = round_trip(&tar, &frames, 100_000);
    assert_eq!(points, (tar.len() as u32).div_ceil(120_000), "four frames each");
    assert!(round_trip(&tar, &zstd_frames(&tar, 200_000), 50_000) > 4);
    // Nothing of a skippable frame at the end is fetched.
    let tail = skippable(&vec![7; 50_000]);
    let blob = [frames, tail.clone()].concat();
    let index = open(&stream(&blob, 100_000).unwrap().0, &blob);
    assert!(index.point(index.point_count() - 1).blob_range().end <= (blob.len() - tail.len()) as u64);
}

#[test]
fn a_plain_tar_is_cut_evenly() {
    let tar = tar_of(7, 600_000);
    assert_eq!(round_trip(&tar, &tar, 100_000), (tar.len() as u32).div_ceil(100_000));
    round_trip(&tar, &tar, 1 << 22);
}

#[test]
fn a_layer_may_be_empty() {
    let zeros = [0; 1024];
    for (tar, blob) in [
        (&b""[..], vec![]),
        (b"", gzip(b"", 6)),
        (b"", zstd(b"")),
        (b"", skippable(b"")),
        (&zeros, zeros.to_vec()),
        (&zeros, gzip(&zeros, 6)),
        (&zeros, zstd(&zeros)),
    ] {
        let points = round_trip(tar, &blob, 4096);
        assert_eq!(points, u32::from(!tar.is_empty()));
    }
}

#[test]
fn bytes_behind_the_end_of_the_archive_are_data_too() {
    let tar = [tar_of(8, 10_000), mixed(1, 50_000)].concat();
    round_trip(&tar, &gzip(&tar, 6), 4096);
}

#[test]
fn the_magic_bytes_decide_over_the_media_type() {
    let tar = tar_of(9, 5000);
    for (blob, compression) in [(gzip(&tar, 6), Compression::Gzip), (zstd(&tar), Compression::Zstd), (tar.clone(), Compression::None)] {
        for declared in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut sink = blobs::Memory::default();
            let options = PassOptions::default();
            let layer = stream_layer(declared, &Digest::of(&blob), blob.len() as u64, &mut &*blob, &mut sink, &options).unwrap();
            assert_eq!((layer.compression, layer.diff_id), (compression, Digest::of(&tar)), "{declared:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Packing {
    Gzip(u32),
    Members(usize),
    Frame,
    Frames(usize),
    Plain,
}

fn packing() -> impl Strategy<Value = Packing> {
    prop_oneof![
        3 => (0u32..10).prop_map(Packing::Gzip),
        2 => (500usize..200_000).prop_map(Packing::Members),
        1 => Just(Packing::Frame),
        2 => (500usize..200_000).prop_map(Packing::Frames),
        1 => Just(Packing::Plain),
    ]
}

fn packed(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Gzip(level) => gzip(tar, level),
        Packing::Members(bytes) => gzip_members(tar, bytes),
        Packing::Frame => zstd(tar),
        Packing::Frames(bytes) => zstd_frames(tar, bytes),
        Packing::Plain => tar.to_vec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_blob_decodes_from_its_points(seed: u64, bytes in 0usize..600_000, packing in packing(), span_bits in 8u32..20) {
        let tar = tar_of(seed, bytes);
        round_trip(&tar, &packed(&tar, packing), 1 << span_bits);
    }

    #[test]
    fn how_a_blob_arrives_changes_nothing(seed: u64, bytes in 0usize..900_000, packing in packing(), span_bits in 8u32..20, piece_bits in 0u32..20) {
        let tar = tar_of(seed, bytes);
        let blob = packed(&tar, packing);
        let (at_once, data) = stream(&blob, 1 << span_bits).unwrap();
        let mut sink = blobs::Memory::default();
        let mut input = blobs::Trickle { bytes: &blob, numbers: blobs::Numbers::new(seed), piece_max: 1 << piece_bits };
        let options = blobs::options(1 << span_bits);
        let trickled = stream_layer(at_once.compression, &Digest::of(&blob), blob.len() as u64, &mut input, &mut sink, &options).unwrap();
        prop_assert!(trickled == at_once && sink.0 == data);
    }
}
