//! Maps of files with holes, in GNU tar's four spellings: the old header with its extension blocks, and PAX 0.0, 0.1 and 1.0.

use crate::entry::Extent;
use crate::limits;
use crate::tar_header::{self, BLOCK_BYTES, Block};

const TOO_MANY: &str = "a sparse file has too many parts";

/// Where a file's data lies between holes: offset in the file and length, in the order of the data in the stream.
pub(crate) type SparseMap = Vec<(u64, u64)>;

/// Entries of the old map in a file's own header, and in each block that continues it.
const OLD_ENTRIES_AT: usize = 386;
const OLD_ENTRIES: usize = 4;
const OLD_IS_EXTENDED_AT: usize = 482;
const OLD_REAL_SIZE: std::ops::Range<usize> = 483..495;
const EXTENSION_ENTRIES: usize = 21;
const EXTENSION_IS_EXTENDED_AT: usize = 504;
const OLD_ENTRY_BYTES: usize = 24;

/// The map's part in an old sparse file's header, the file's real size, and whether another block continues the map.
pub(crate) fn old_header(block: &Block) -> Result<(SparseMap, u64, bool), &'static str> {
    let mut map = SparseMap::new();
    let size = field(&block[OLD_REAL_SIZE])?;
    old_entries(&block[OLD_ENTRIES_AT..][..OLD_ENTRIES * OLD_ENTRY_BYTES], &mut map)?;
    Ok((map, size, block[OLD_IS_EXTENDED_AT] != 0))
}

/// Adds what a continuing block says; whether another one follows.
pub(crate) fn old_extension(block: &Block, map: &mut SparseMap) -> Result<bool, &'static str> {
    old_entries(&block[..EXTENSION_ENTRIES * OLD_ENTRY_BYTES], map)?;
    Ok(block[EXTENSION_IS_EXTENDED_AT] != 0)
}

fn old_entries(entries: &[u8], map: &mut SparseMap) -> Result<(), &'static str> {
    for entry in entries.chunks_exact(OLD_ENTRY_BYTES) {
        // An unused entry starts with a NUL, and so do all that follow it.
        if entry[0] == 0 {
            break;
        }
        push(map, field(&entry[..12])?, field(&entry[12..])?)?;
    }
    Ok(())
}

fn field(field: &[u8]) -> Result<u64, &'static str> {
    tar_header::number(field).and_then(|number| u64::try_from(number).ok()).ok_or("a sparse file's number is malformed")
}

fn push(map: &mut SparseMap, offset: u64, bytes: u64) -> Result<(), &'static str> {
    if map.len() >= limits::SPARSE_PARTS_MAX {
        return Err(TOO_MANY);
    }
    map.push((offset, bytes));
    Ok(())
}

/// The map of PAX 0.0 and 0.1, whose numbers come in one list.
pub(crate) fn from_list(numbers: &[u64]) -> Result<SparseMap, &'static str> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a sparse file's map has an offset without a length");
    }
    let mut map = SparseMap::new();
    pairs.iter().try_for_each(|&[offset, bytes]| push(&mut map, offset, bytes))?;
    Ok(map)
}

/// The map of PAX 1.0: text in the first blocks of the file's data. Decimal numbers, each ended by a newline: the count of parts, then
/// offset and length of each; the rest of the last block is padding.
#[derive(Default)]
pub(crate) struct MapReader {
    /// The digits of a number that a block's end has cut.
    digits: Vec<u8>,
    parts: Option<u64>,
    offset: Option<u64>,
    map: SparseMap,
}

impl MapReader {
    /// Reads the next block; the map, when this was its last.
    pub(crate) fn block(&mut self, block: &Block) -> Result<Option<SparseMap>, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                if self.digits.len() >= 20 {
                    return Err("a number in a sparse file's map is too long");
                }
                self.digits.push(byte);
                continue;
            }
            let number = crate::pax::decimal(&self.digits)?;
            self.digits.clear();
            match (self.parts, self.offset.take()) {
                (None, _) if number > limits::SPARSE_PARTS_MAX as u64 => return Err(TOO_MANY),
                (None, _) => self.parts = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => push(&mut self.map, offset, number)?,
            }
            if self.parts == Some(self.map.len() as u64) {
                return Ok(Some(std::mem::take(&mut self.map)));
            }
        }
        Ok(None)
    }
}

/// The extents of a file whose data, `stored_bytes` long, starts at `data_offset`. Parts that touch become one.
pub(crate) fn extents(map: &[(u64, u64)], size_bytes: u64, data_offset: u64, stored_bytes: u64) -> Result<Vec<Extent>, &'static str> {
    let mut extents: Vec<Extent> = Vec::new();
    let (mut file_end, mut stored) = (0u64, 0u64);
    for &(offset, bytes) in map {
        let end = offset.checked_add(bytes).filter(|&end| end <= size_bytes && offset >= file_end);
        file_end = end.ok_or("the parts of a sparse file overlap or lie outside of it")?;
        let next = Extent { file_offset: offset, data_offset: data_offset + stored, bytes };
        stored =
            stored.checked_add(bytes).filter(|&stored| stored <= stored_bytes).ok_or("a sparse file's data is shorter than its map")?;
        match extents.last_mut() {
            _ if bytes == 0 => {}
            Some(last) if last.file_offset + last.bytes == offset => last.bytes += bytes,
            _ => extents.push(next),
        }
    }
    if stored != stored_bytes {
        return Err("a sparse file's data is longer than its map");
    }
    Ok(extents)
}

const _: () = assert!(OLD_ENTRIES_AT + OLD_ENTRIES * OLD_ENTRY_BYTES == OLD_IS_EXTENDED_AT);
const _: () = assert!(EXTENSION_ENTRIES * OLD_ENTRY_BYTES == EXTENSION_IS_EXTENDED_AT && EXTENSION_IS_EXTENDED_AT < BLOCK_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_in_the_data_may_cross_blocks() {
        let mut text = b"90\n".to_vec();
        for part in 0..90u64 {
            text.extend_from_slice(format!("{}\n7\n", part * 4096).as_bytes());
        }
        text.resize(text.len().next_multiple_of(BLOCK_BYTES), 0);
        let (blocks, _) = text.as_chunks::<BLOCK_BYTES>();
        assert_eq!(blocks.len(), 2);
        let mut reader = MapReader::default();
        assert_eq!(reader.block(&blocks[0]), Ok(None));
        let map = reader.block(&blocks[1]).unwrap().unwrap();
        assert_eq!((map.len(), map[89]), (90, (89 * 4096, 7)));
    }

    #[test]
    fn broken_maps_are_refused() {
        for text in ["x\n", "\n", "1\n5\n-1\n", "99999999999\n", "000000000000000000000000001\n"] {
            let mut block = [0; BLOCK_BYTES];
            block[..text.len()].copy_from_slice(text.as_bytes());
            assert!(MapReader::default().block(&block).is_err(), "{text:?}");
        }
        assert!(from_list(&[0, 5, 9]).is_err());
    }

    #[test]
    fn parts_are_checked_and_joined() {
        let map = [(0, 512), (512, 88), (4096, 100), (9000, 0)];
        let joined = extents(&map, 9000, 2048, 700).unwrap();
        assert_eq!(
            joined,
            [Extent { file_offset: 0, data_offset: 2048, bytes: 600 }, Extent { file_offset: 4096, data_offset: 2648, bytes: 100 }]
        );
        assert!(extents(&map, 8999, 2048, 700).is_err(), "outside of the file");
        assert!(extents(&map, 9000, 2048, 699).is_err(), "too little data");
        assert!(extents(&map, 9000, 2048, 701).is_err(), "too much data");
        assert!(extents(&[(5, 5), (9, 1)], 10, 0, 6).is_err(), "overlap");
        assert!(extents(&[(u64::MAX, 2)], u64::MAX, 0, 2).is_err(), "overflow");
        assert_eq!(extents(&[], 1 << 40, 0, 0).unwrap(), []);
    }
}
