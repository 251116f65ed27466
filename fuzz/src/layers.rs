//! Layers spelled out by the input's bytes, through the builder.

use std::sync::Arc;

use snap_digest::Digest;
use snap_index::{Attributes, Builder, ChunkPlan, EntryKind, LayerIndex};

use crate::walk::{walk_index, walk_trees};

const LAYERS_MAX: usize = 6;
/// Components that paths are spelled with. Few, so that entries meet.
const WORDS: [&[u8]; 16] = [
    b"a",
    b"b",
    b"a.b",
    b"..",
    b".",
    b"",
    b".wh.a",
    b".wh.b",
    b".wh..wh..opq",
    b".wh..wh.plnk",
    b".wh.",
    b"c",
    b"a-",
    b"\xff",
    b"lib",
    b"usr",
];

struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Words up to one with its high bit set.
    fn path(&mut self) -> Option<Vec<u8>> {
        let mut path = Vec::new();
        loop {
            let byte = self.byte()?;
            path.extend_from_slice(WORDS[usize::from(byte & 15)]);
            if byte & 0x80 != 0 {
                return Some(path);
            }
            path.push(b'/');
        }
    }

    fn entry(&mut self, kind: u8) -> Option<(Vec<u8>, EntryKind)> {
        let path = self.path()?;
        let kind = match kind & 7 {
            0 | 1 => EntryKind::Directory,
            2 => EntryKind::Symlink { target: self.path()? },
            3 | 4 => EntryKind::HardLink { target: self.path()? },
            5 => EntryKind::CharDevice { major: u32::from(kind >> 4), minor: u32::from(kind >> 6) },
            6 => EntryKind::Fifo,
            _ => EntryKind::File { size_bytes: u64::from(kind), extents: Vec::new() },
        };
        Some((path, kind))
    }
}

/// Entries make layers that open, and those a sound tree; or they are refused.
pub fn tree(input: &[u8]) {
    let layer = Digest::of(b"");
    let mut words = Words(input);
    let mut layers = Vec::new();
    let mut builder = Some(Builder::new(layer, 0));
    while layers.len() < LAYERS_MAX {
        let entry = match words.byte() {
            Some(kind) if kind != 0xff => words.entry(kind).map(|entry| (kind, entry)),
            // The end of a layer.
            Some(_) => {
                let finished = builder.replace(Builder::new(layer, 0)).map(|builder| builder.finish(ChunkPlan::default(), None));
                if let Some(Ok(file)) = finished {
                    let index = LayerIndex::open(Box::new(file), &layer).expect("what was written can be opened");
                    walk_index(&index);
                    layers.push(Arc::new(index));
                }
                continue;
            }
            None => None,
        };
        let (Some((kind, (path, entry))), Some(builder)) = (entry, &mut builder) else { break };
        let attributes = Attributes { mode: u32::from(kind), ..Attributes::default() };
        // A refused entry leaves the layer as it was.
        let _ = builder.add(&path, entry, attributes);
    }
    walk_trees(&layers);
}
