//! The streaming pass and the decoder when something is wrong: always an error, never a panic, a hang or more memory than allowed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blobs;
mod tar_writer;

use std::io::{self, Read};

use blobs::{Memory, gzip, gzip_members, open, options, stream, tar_of, zstd, zstd_frames};
use snap_digest::Digest;
use snap_index::{
    Builder, Check, Chunk, ChunkPlan, Codec, Compression, DataSink, IndexError, Layer, LayerIndex, PassOptions, Point, decode_chunks,
    decode_point, limits, stream_layer, verify_chunk,
};

fn packings(tar: &[u8]) -> Vec<Vec<u8>> {
    vec![gzip(tar, 0), gzip(tar, 6), gzip_members(tar, 700), zstd(tar), zstd_frames(tar, 700), tar.to_vec()]
}

/// Places all over a blob; all of them in a short one.
fn places(blob: &[u8]) -> impl Iterator<Item = usize> {
    (0..blob.len()).step_by(blob.len() / 500 + 1)
}

/// Streams bytes that claim to be `blob`.
fn stream_as(blob: &[u8], bytes: &[u8]) -> Result<Layer, IndexError> {
    let compression = Compression::detect(blob);
    stream_layer(compression, &Digest::of(blob), blob.len() as u64, &mut &*bytes, &mut Memory::default(), &options(1000))
}

#[test]
fn a_blob_that_is_cut_anywhere_is_refused() {
    let tar = tar_of(1, 3000);
    for blob in packings(&tar) {
        for bytes in places(&blob) {
            let error = stream_as(&blob, &blob[..bytes]).err().unwrap_or_else(|| panic!("{bytes} of {}", blob.len()));
            assert!(
                matches!(error, IndexError::Truncated { .. } | IndexError::BlobBytes { .. } | IndexError::Compressed { at: 0, .. }),
                "{bytes} of {}: {error}",
                blob.len()
            );
        }
    }
}

#[test]
fn a_blob_with_more_bytes_is_refused() {
    let tar = tar_of(2, 3000);
    for blob in packings(&tar) {
        let longer = [&blob[..], &[0]].concat();
        assert!(stream_as(&blob, &longer).is_err());
        // Reading stops soon after the length is passed, however much there is.
        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += buffer.len() as u64;
                buffer.fill(0);
                Ok(buffer.len())
            }
        }
        let mut endless = Endless(0);
        let mut input = (&blob[..]).chain(&mut endless);
        let result =
            stream_layer(Compression::None, &Digest::of(&blob), blob.len() as u64, &mut input, &mut Memory::default(), &options(1000));
        assert!(matches!(result, Err(IndexError::BlobBytes { .. })), "{result:?}");
        assert!(endless.0 <= 2 * limits::PIECE_BYTES as u64);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let tar = tar_of(3, 2500);
    for blob in packings(&tar) {
        for at in places(&blob) {
            let mut flipped = blob.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(stream_as(&blob, &flipped).is_err(), "byte {at} of {}", blob.len());
        }
    }
}

#[test]
fn a_whole_blob_with_another_digest_is_refused_by_name() {
    let (blob, other) = (gzip(&tar_of(4, 3000), 6), Digest::of(b"another"));
    let result = stream_layer(Compression::Gzip, &other, blob.len() as u64, &mut &*blob, &mut Memory::default(), &options(1000));
    assert!(matches!(result, Err(IndexError::Digest { found, wanted, .. }) if found == Digest::of(&blob) && wanted == other));
}

#[test]
fn what_is_neither_compressed_nor_tar_is_called_what_it_should_be() {
    let text = b"<html>404</html>".repeat(100);
    for (declared, format) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        let result = stream_layer(declared, &Digest::of(&text), text.len() as u64, &mut &*text, &mut Memory::default(), &options(1000));
        assert!(matches!(result, Err(IndexError::Compressed { format: named, .. }) if named == format));
    }
    let result =
        stream_layer(Compression::None, &Digest::of(&text), text.len() as u64, &mut &*text, &mut Memory::default(), &options(1000));
    assert!(matches!(result, Err(IndexError::Tar { at: 0, .. })));
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let zeros = vec![0; 60_000_000];
    let data_bytes_max = 1_000_000;
    for blob in [gzip(&zeros, 9), zstd(&zeros)] {
        let mut sink = Memory::default();
        let options = PassOptions { data_bytes_max, ..PassOptions::default() };
        let result = stream_layer(Compression::Gzip, &Digest::of(&blob), blob.len() as u64, &mut &*blob, &mut sink, &options);
        assert!(matches!(result, Err(IndexError::Limit { limit, .. }) if limit == data_bytes_max), "{result:?}");
        assert!(sink.0.len() as u64 <= data_bytes_max + limits::PIECE_BYTES as u64);
    }
}

#[test]
fn a_frame_with_a_huge_window_is_refused() {
    // A frame header with no content size and a window of 2^(10 + 18) bytes, then one raw block, the last, of one byte.
    let blob = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 0x09, 0x00, 0x00, b'x'];
    let error = stream(&blob, 1000).err().unwrap();
    assert!(error.to_string().contains("window over 128 MiB"), "{error}");
    let accepted = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x01, 0x00, 0x00];
    assert_eq!(stream(&accepted, 1000).unwrap().0.data_bytes, 0);
}

/// Fails or dies once it has got so many bytes.
struct Breaking {
    after: u64,
    dies: bool,
}

impl DataSink for Breaking {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match offset + bytes.len() as u64 > self.after {
            true if self.dies => panic!("the sink dies"),
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

#[test]
fn a_sink_that_fails_or_dies_ends_the_pass() {
    let tar = tar_of(5, 8_000_000);
    for blob in [gzip(&tar, 1), zstd(&tar), tar.clone()] {
        for after in [0, 4_000_000, tar.len() as u64 - 1] {
            let stream = |dies| {
                let mut sink = Breaking { after, dies };
                stream_layer(Compression::None, &Digest::of(&blob), blob.len() as u64, &mut &*blob, &mut sink, &PassOptions::default())
            };
            assert!(matches!(stream(false), Err(IndexError::Io(error)) if error.kind() == io::ErrorKind::StorageFull));
            assert!(matches!(stream(true), Err(IndexError::Panicked { stage: "storing stage" })));
        }
    }
}

#[test]
fn an_input_that_fails_ends_the_pass_with_its_error() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let blob = gzip(&tar_of(6, 4_000_000), 1);
    for bytes in [0, 10, blob.len() / 2, blob.len()] {
        let mut input = (&blob[..bytes]).chain(Failing);
        let result = stream_layer(
            Compression::Gzip,
            &Digest::of(&blob),
            blob.len() as u64,
            &mut input,
            &mut Memory::default(),
            &PassOptions::default(),
        );
        assert!(matches!(&result, Err(IndexError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset), "{result:?}");
    }
}

/// Decodes every point from what `input` gives for it.
fn decode_all(index: &LayerIndex, mut input: impl FnMut(u32) -> Vec<u8>) -> Result<(), IndexError> {
    (0..index.point_count()).try_for_each(|point| decode_point(index, point, &mut &*input(point), &mut |_| Ok(())))
}

#[test]
fn a_point_that_is_cut_or_flipped_is_refused() {
    let tar = tar_of(7, 4000);
    for blob in packings(&tar) {
        let index = open(&stream(&blob, 900).unwrap().0, &blob);
        for point in 0..index.point_count() {
            let range = index.point(point).blob_range();
            let range = &blob[range.start as usize..range.end as usize];
            let decode = |bytes: &[u8]| {
                let mut chunks = 0;
                let result = decode_point(&index, point, &mut &*bytes, &mut |_| {
                    chunks += 1;
                    Ok(())
                });
                (result, chunks)
            };
            let chunks = index.chunks_of_point(point).len();
            for bytes in 0..range.len() {
                match decode(&range[..bytes]) {
                    // What is cut off may be a trailer, or the beginning of what the next point repeats.
                    (Ok(()), given) => assert_eq!(given, chunks),
                    (Err(error), _) => assert!(matches!(error, IndexError::Truncated { .. }), "{bytes} of {}: {error}", range.len()),
                }
            }
            for at in 0..range.len() {
                let mut flipped = range.to_vec();
                flipped[at] ^= 1 << (at % 8);
                // Every chunk that is given out has been checked; so either all is right, or there is an error.
                let (result, given) = decode(&flipped);
                assert!(result.is_err() || given == chunks);
            }
        }
        assert!(decode_all(&index, |_| Vec::new()).is_err());
    }
}

/// An index that claims that `blob` is one point with one chunk, `skip` bytes in.
fn claim(blob: &[u8], codec: Codec, skip: u64, chunk: &[u8]) -> LayerIndex {
    let layer = Digest::of(blob);
    let check = Check::Sha256(Digest::of(chunk));
    let bytes = chunk.len() as u64;
    let plan = ChunkPlan {
        data_bytes: bytes,
        chunks: vec![Chunk { data_offset: 0, bytes: bytes as u32, point: 0, skip, check }],
        points: vec![Point { blob_offset: 0, blob_bytes: blob.len() as u64, decoded_bytes: skip + bytes, codec, window: Vec::new() }],
    };
    let index = Builder::new(layer, blob.len() as u64).finish(plan, None).unwrap();
    LayerIndex::open(Box::new(index), &layer).unwrap()
}

/// Counts what is read.
struct Counted<'a>(&'a [u8], usize);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read(buffer)?;
        self.1 += bytes;
        Ok(bytes)
    }
}

#[test]
fn decoding_stops_behind_the_last_chunk() {
    let mut data = vec![b'a'; 1000];
    data.extend(blobs::mixed(1, 30_000_000));
    for (blob, codec) in [(gzip(&data, 1), Codec::Gzip), (zstd(&data), Codec::Zstd), (data.clone(), Codec::Stored)] {
        let index = claim(&blob, codec, 10, &data[10..1000]);
        let mut input = Counted(&blob, 0);
        let mut given = Vec::new();
        decode_point(&index, 0, &mut input, &mut |chunk| {
            given.push((chunk.number(), chunk.bytes().to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(given, [(0, data[10..1000].to_vec())]);
        assert!(input.1 <= limits::DECODE_BUFFER_BYTES, "{codec:?} read {}", input.1);
    }
}

#[test]
fn only_the_chunks_that_are_wanted_are_given() {
    let tar = tar_of(8, 50_000);
    let blob = zstd(&tar);
    let index = open(&stream(&blob, 5000).unwrap().0, &blob);
    assert!(index.chunks_of_point(0).len() > 8);
    let mut given = Vec::new();
    decode_chunks(&index, 0, 3..6, &mut &*blob, &mut |chunk| {
        given.push(chunk.number());
        Ok(())
    })
    .unwrap();
    assert_eq!(given, [3, 4, 5]);
    decode_chunks(&index, 0, 500..600, &mut io::empty(), &mut |_| panic!("there is no such chunk")).unwrap();
}

#[test]
fn an_error_of_the_receiver_ends_decoding() {
    let tar = tar_of(9, 50_000);
    let index = open(&stream(&tar, 5000).unwrap().0, &tar);
    let mut calls = 0;
    let result = decode_point(&index, 0, &mut &*tar, &mut |_| {
        calls += 1;
        Err(io::Error::from(io::ErrorKind::StorageFull).into())
    });
    assert!(matches!(result, Err(IndexError::Io(_))) && calls == 1);
}

#[test]
fn codecs_that_do_not_fit_the_bytes_are_errors() {
    let data = blobs::mixed(3, 5000);
    for blob in [gzip(&data, 6), zstd(&data), data.clone()] {
        for codec in [Codec::Gzip, Codec::Zstd, Codec::Deflate { bits: 0 }, Codec::Deflate { bits: 3 }, Codec::Stored] {
            let fits = match Compression::detect(&blob) {
                Compression::Gzip => Codec::Gzip,
                Compression::Zstd => Codec::Zstd,
                Compression::None => Codec::Stored,
            };
            let result = decode_point(&claim(&blob, codec, 0, &data), 0, &mut &*blob, &mut |_| Ok(()));
            assert_eq!(result.is_ok(), codec == fits, "{codec:?}");
        }
    }
}

#[test]
fn chunks_from_disk_are_verified() {
    let tar = tar_of(10, 30_000);
    let index = open(&stream(&tar, 5000).unwrap().0, &tar);
    let range = index.chunk_range(2);
    let mut bytes = tar[range.start as usize..range.end as usize].to_vec();
    assert_eq!(verify_chunk(&index, 2, &bytes).unwrap().bytes(), bytes);
    assert!(verify_chunk(&index, 1, &bytes).is_err());
    assert!(verify_chunk(&index, 2, &bytes[1..]).is_err());
    assert!(verify_chunk(&index, u32::MAX, &bytes).is_err());
    bytes[7] ^= 4;
    assert!(matches!(verify_chunk(&index, 2, &bytes), Err(IndexError::ChunkDigest { chunk: 2 })));
}
