//! Generated layers, and what unpacking and stacking them gives: written with maps of whole paths, not as the crate does it.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod estargz;
pub(crate) mod layers;
pub(crate) mod model;

use snap_index::{Inode, LayerIndex, decode_point, read_file};

/// All of a layer's data space, decoded from its blob and verified.
pub(crate) fn data_of(index: &LayerIndex, blob: &[u8]) -> Result<Vec<u8>, snap_index::IndexError> {
    let mut data = vec![0; index.data_bytes() as usize];
    for point in 0..index.point_count() {
        let range = index.point(point).blob_range();
        let mut input = &blob[range.start as usize..range.end as usize];
        decode_point(index, point, &mut input, &mut |chunk| {
            let range = index.chunk_range(chunk.number());
            data[range.start as usize..range.end as usize].copy_from_slice(chunk.bytes());
            Ok(())
        })?;
    }
    Ok(data)
}

/// All bytes of a file.
pub(crate) fn content_of(index: &LayerIndex, inode: &Inode, data: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let read_at = |at: u64, buffer: &mut [u8]| {
        buffer.copy_from_slice(&data[at as usize..][..buffer.len()]);
        Ok(())
    };
    read_file(index, inode, read_at, |piece| {
        content.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    content
}
