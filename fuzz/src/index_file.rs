//! Index files, changed at will.

use std::sync::Arc;

use snap_digest::Digest;
use snap_index::LayerIndex;

use crate::walk::{walk_index, walk_trees};

/// Where the format has the layer's digest and its own checksum; both are made right, so that the fuzzer gets past them.
const AT_LAYER: usize = 16;
const AT_CHECKSUM: usize = 224;
const HEADER_BYTES: usize = 256;
const FILES_MAX: usize = 4;

/// Opens a file whose checksum was put right.
pub(crate) fn open(file: &[u8]) -> Option<LayerIndex> {
    let mut file = file.to_vec();
    let mut layer = [0; 32];
    layer.copy_from_slice(file.get(AT_LAYER..AT_LAYER + 32)?);
    file.get_mut(AT_CHECKSUM..HEADER_BYTES)?.fill(0);
    let checksum = blake3::hash(&file);
    file[AT_CHECKSUM..HEADER_BYTES].copy_from_slice(checksum.as_bytes());
    LayerIndex::open(Box::new(file), &Digest::from_bytes(layer)).ok()
}

/// An index file is refused, or answers everything.
pub fn index_file(input: &[u8]) {
    let _ = LayerIndex::open(Box::new(input.to_vec()), &Digest::of(b""));
    if let Some(index) = open(input) {
        walk_index(&index);
    }
}

/// Index files one after another, each behind its length (16 bits, little-endian): they merge into a sound tree, or not at all.
pub fn tree_indexes(mut input: &[u8]) {
    let mut layers = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (file, rest) = rest.split_at(length);
        layers.extend(open(file).map(Arc::new));
        input = rest;
        if layers.len() == FILES_MAX {
            break;
        }
    }
    walk_trees(&layers);
}
