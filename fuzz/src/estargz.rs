//! eStargz: ends of blobs, and tables of contents.

use snap_digest::Digest;
use snap_index::{EstargzTail, LayerIndex, decode_point, open_estargz};

use crate::estargz_writer::Estargz;
use crate::walk::walk_index;

/// The first byte says what the rest is: even, a TOC's JSON, which gets a footer and its digest; odd, a blob's end as it is.
pub fn estargz(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let layer = Digest::of(b"");
    match std::str::from_utf8(rest) {
        Ok(toc) if kind % 2 == 0 => {
            let (blob, digest) = members().finish_with(toc);
            open(&layer, &blob, &blob, &digest);
        }
        _ => open(&layer, rest, &rest[rest.len().min(usize::from(kind))..], &Digest::of(b"{}")),
    }
}

/// Two members, so that a TOC can point at something that decodes.
pub(crate) fn members() -> Estargz {
    let mut estargz = Estargz::new(512);
    estargz.file("file", &[7; 600]);
    estargz.pack(&[("a", b"aaa"), ("b", b"b")]);
    estargz
}

fn open(layer: &Digest, blob: &[u8], tail: &[u8], toc_digest: &Digest) {
    match open_estargz(layer, blob.len() as u64, tail, toc_digest) {
        Ok(EstargzTail::Index(file)) => {
            let index = LayerIndex::open(Box::new(file), layer).expect("what was written can be opened");
            walk_index(&index);
            for point in 0..index.point_count() {
                let range = index.point(point).blob_range();
                let mut input = &blob[range.start as usize..range.end as usize];
                let _ = decode_point(&index, point, &mut input, &mut |_| Ok(()));
            }
        }
        Ok(EstargzTail::Need(range)) => {
            assert!(range.end == blob.len() as u64 && range.end - range.start > tail.len() as u64, "only more helps");
        }
        Ok(EstargzTail::Not) | Err(_) => {}
    }
}
