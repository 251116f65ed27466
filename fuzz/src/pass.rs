//! The streaming pass over blobs in each compression.

use snap_digest::Digest;
use snap_index::{Compression, DataSink, LayerIndex, PassOptions, decode_point, stream_layer};

use crate::walk::walk_index;

/// More than any format's blocks, and little enough to be quick.
const DATA_BYTES_MAX: u64 = 4 << 20;
/// Short, so that small inputs have several points.
const SPAN_BYTES: u64 = 4 << 10;
const TAR_BLOCK_BYTES: usize = 512;

struct Data(Vec<u8>);

impl DataSink for Data {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        assert_eq!(offset, self.0.len() as u64, "every byte comes once and in order");
        self.0.extend_from_slice(bytes);
        assert!(self.0.len() as u64 <= DATA_BYTES_MAX);
        Ok(())
    }
}

/// The pass refuses a blob, or makes an index that opens and whose points decode to the same data again.
fn pass(declared: Compression, blob: &[u8]) {
    let layer = Digest::of(blob);
    let options = PassOptions { span_bytes: SPAN_BYTES, data_bytes_max: DATA_BYTES_MAX, ..PassOptions::default() };
    let mut data = Data(Vec::new());
    let Ok(passed) = stream_layer(declared, &layer, blob.len() as u64, &mut &blob[..], &mut data, &options) else { return };
    assert_eq!(passed.data_bytes, data.0.len() as u64);
    assert_eq!(passed.diff_id, Digest::of(&data.0));
    let index = LayerIndex::open(Box::new(passed.index), &layer).expect("what was written can be opened");
    walk_index(&index);
    for point in 0..index.point_count() {
        let range = index.point(point).blob_range();
        let mut input = &blob[range.start as usize..range.end as usize];
        let decoded = decode_point(&index, point, &mut input, &mut |chunk| {
            let range = index.chunk_range(chunk.number());
            assert_eq!(chunk.bytes(), &data.0[range.start as usize..range.end as usize]);
            Ok(())
        });
        decoded.expect("what the pass decoded decodes again");
    }
}

/// A tar stream whose headers' checksums are put right.
pub fn tar_pass(input: &[u8]) {
    let mut blob = input.to_vec();
    for block in blob.chunks_exact_mut(TAR_BLOCK_BYTES) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    pass(Compression::None, &blob);
}

/// Anything declared to be gzip.
pub fn gzip_pass(input: &[u8]) {
    pass(Compression::Gzip, input);
}

/// Anything declared to be zstd.
pub fn zstd_pass(input: &[u8]) {
    pass(Compression::Zstd, input);
}
