//! Blobs to stream: data that compresses as layers do, packed in every way that layers come in.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read, Write};

use flate2::write::GzEncoder;
use snap_digest::Digest;
use snap_index::{Compression, DataSink, IndexError, Layer, LayerIndex, PassOptions, decode_point, stream_layer};

/// A generator of numbers whose results never change.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Words, noise and runs in turn, so that deflate makes blocks of every kind.
pub(crate) fn mixed(seed: u64, bytes: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut data = Vec::with_capacity(bytes + 4096);
    while data.len() < bytes {
        let run = numbers.below(3000) as usize + 1;
        match numbers.below(4) {
            0 => data.extend((0..run).map(|_| numbers.next() as u8)),
            1 => data.resize(data.len() + run, numbers.next() as u8),
            _ => (0..run / 6).for_each(|_| data.extend_from_slice(format!("word{} ", numbers.below(400)).as_bytes())),
        }
    }
    data.truncate(bytes);
    data
}

/// A tar of files of `mixed` data, `bytes` long or a little longer.
pub(crate) fn tar_of(seed: u64, bytes: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut tar = crate::tar_writer::TarWriter::default();
    let mut number = 0;
    while tar.bytes.len() < bytes {
        let bits = numbers.below(16);
        let size = numbers.below(1 << bits) as usize;
        tar.file(&format!("dir{}/file{number}", number % 7), &mixed(seed ^ number, size));
        number += 1;
    }
    tar.end()
}

pub(crate) fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Members of `member_bytes` of data each, as pigz and bgzip write them.
pub(crate) fn gzip_members(data: &[u8], member_bytes: usize) -> Vec<u8> {
    data.chunks(member_bytes).flat_map(|part| gzip(part, 6)).collect()
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(data, 3).unwrap()
}

/// Frames of `frame_bytes` of data each, a skippable one after every second.
pub(crate) fn zstd_frames(data: &[u8], frame_bytes: usize) -> Vec<u8> {
    let mut blob = skippable(b"before");
    for (number, part) in data.chunks(frame_bytes).enumerate() {
        blob.extend(zstd(part));
        if number % 2 == 1 {
            blob.extend(skippable(&[number as u8; 300]));
        }
    }
    blob.extend(skippable(b"after"));
    blob
}

pub(crate) fn skippable(payload: &[u8]) -> Vec<u8> {
    [&[0x53, 0x2a, 0x4d, 0x18][..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}

/// Gives what it has in pieces of the sizes that a generator picks.
pub(crate) struct Trickle<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) numbers: Numbers,
    pub(crate) piece_max: u64,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = (self.numbers.below(self.piece_max) + 1) as usize;
        let (head, tail) = self.bytes.split_at(size.min(self.bytes.len()).min(buffer.len()));
        buffer[..head.len()].copy_from_slice(head);
        self.bytes = tail;
        Ok(head.len())
    }
}

/// A layer's data in memory.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl DataSink for Memory {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(offset, self.0.len() as u64, "every byte once, in order");
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

pub(crate) fn options(span_bytes: u64) -> PassOptions {
    PassOptions { span_bytes, ..PassOptions::default() }
}

/// Streams a blob by its right name.
pub(crate) fn stream(blob: &[u8], span_bytes: u64) -> Result<(Layer, Vec<u8>), IndexError> {
    let mut sink = Memory::default();
    let layer =
        stream_layer(Compression::detect(blob), &Digest::of(blob), blob.len() as u64, &mut &*blob, &mut sink, &options(span_bytes))?;
    Ok((layer, sink.0))
}

pub(crate) fn open(layer: &Layer, blob: &[u8]) -> LayerIndex {
    LayerIndex::open(Box::new(layer.index.clone()), &Digest::of(blob)).unwrap()
}

/// Decodes every point from nothing but its own range and requires that the chunks are all of `data`.
pub(crate) fn check_points(index: &LayerIndex, blob: &[u8], data: &[u8]) {
    let mut at = 0;
    for point in 0..index.point_count() {
        let range = index.point(point).blob_range();
        let mut numbers = index.chunks_of_point(point);
        let mut input = &blob[range.start as usize..range.end as usize];
        decode_point(index, point, &mut input, &mut |chunk| {
            assert_eq!(Some(chunk.number()), numbers.next());
            let range = index.chunk_range(chunk.number());
            assert_eq!(range.start as usize, at, "chunks tile data space");
            at = range.end as usize;
            assert!(chunk.bytes() == &data[range.start as usize..at], "chunk {} differs", chunk.number());
            Ok(())
        })
        .unwrap_or_else(|error| panic!("point {point}, {:?}: {error}", index.point(point)));
        assert_eq!(numbers.next(), None);
    }
    assert_eq!(at, data.len());
}
