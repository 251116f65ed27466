//! A point's compressed bytes under an index that describes them at will.

use snap_digest::Digest;
use snap_index::{Builder, Check, Chunk, ChunkPlan, Codec, LayerIndex, Point, decode_chunks};

/// The index that the first bytes describe: codec and bits, then (16 bits each) skip, a chunk's length, and the window's length. The
/// window and the compressed bytes follow.
pub fn decode_point(input: &[u8]) {
    let Some((&[codec, s0, s1, b0, b1, w0, w1], rest)) = input.split_first_chunk::<7>() else { return };
    let (skip, bytes) = (u16::from_le_bytes([s0, s1]), u16::from_le_bytes([b0, b1]));
    let (window, blob) = rest.split_at(usize::from(u16::from_le_bytes([w0, w1])).min(rest.len()));
    let bytes = u32::from(bytes).max(1);
    let codec = match codec & 3 {
        0 => Codec::Stored,
        1 => Codec::Gzip,
        2 => Codec::Deflate { bits: codec >> 2 & 7 },
        _ => Codec::Zstd,
    };
    let chunk = |number: u64| Chunk {
        data_offset: number * u64::from(bytes),
        bytes,
        point: 0,
        skip: u64::from(skip) + number * u64::from(bytes),
        check: Check::Sha256(Digest::of(b"")),
    };
    let decoded_bytes = u64::from(skip) + 2 * u64::from(bytes);
    let point = Point { blob_offset: 0, blob_bytes: blob.len() as u64, decoded_bytes, codec, window: window.to_vec() };
    let plan = ChunkPlan { data_bytes: 2 * u64::from(bytes), chunks: vec![chunk(0), chunk(1)], points: vec![point] };
    let layer = Digest::of(b"");
    let file = Builder::new(layer, blob.len() as u64).finish(plan, None).expect("the plan is within the limits");
    let index = LayerIndex::open(Box::new(file), &layer).expect("the plan keeps the rules");
    for chunks in [0..2, 1..2] {
        let decoded = decode_chunks(&index, 0, chunks, &mut &blob[..], &mut |_| Ok(()));
        assert!(decoded.is_err(), "no bytes have the digest of none");
    }
}
