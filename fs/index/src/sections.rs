//! The index file as sections of records: bounds are checked once, on open.

use std::ops::Range;

use snap_digest::Digest;

use crate::error::IndexError;
use crate::format::{self, Section};

/// Bytes that outlive everything that borrows from them: a memory map, or a plain vector.
pub type IndexBytes = Box<dyn AsRef<[u8]> + Send + Sync>;

pub(crate) struct Sections {
    bytes: IndexBytes,
    ranges: [Range<usize>; format::SECTIONS],
    pub(crate) layer: Digest,
    pub(crate) diff_id: Option<Digest>,
    pub(crate) blob_bytes: u64,
    pub(crate) data_bytes: u64,
}

fn damaged(what: &'static str, at: usize) -> IndexError {
    IndexError::Damaged { what, at: at as u64 }
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&file[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&file[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn digest_at(file: &[u8], at: usize) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&file[at..at + 32]);
    Digest::from_bytes(bytes)
}

impl Sections {
    /// Checks the header, the checksum and that the sections tile the file.
    pub(crate) fn open(bytes: IndexBytes) -> Result<Self, IndexError> {
        let file: &[u8] = (*bytes).as_ref();
        if file.len() < format::HEADER_BYTES {
            return Err(damaged("it is shorter than its header", file.len()));
        }
        if file[..8] != format::MAGIC {
            return Err(damaged("the magic bytes are missing", 0));
        }
        let version = u32_at(file, format::AT_VERSION);
        if version != format::VERSION {
            return Err(IndexError::Version { found: version, supported: format::VERSION });
        }
        if checksum(file) != file[format::AT_CHECKSUM..][..32] {
            return Err(damaged("the checksum does not hold", format::AT_CHECKSUM));
        }
        if u32_at(file, format::AT_SECTION_COUNT) as usize != format::SECTIONS {
            return Err(damaged("the number of sections is not this version's", format::AT_SECTION_COUNT));
        }
        let mut ranges: [Range<usize>; format::SECTIONS] = Default::default();
        let mut end = format::HEADER_BYTES;
        for section in Section::ALL {
            let at = format::AT_SECTIONS + section as usize * 16;
            let (start, bytes) = (u64_at(file, at), u64_at(file, at + 8));
            let room = (file.len() as u64).checked_sub(start).ok_or(damaged("a section starts outside of the file", at))?;
            if start != end.next_multiple_of(8) as u64 || bytes > room || bytes % section.record_bytes() as u64 != 0 {
                return Err(damaged("a section's place or length is wrong", at));
            }
            if bytes / section.record_bytes() as u64 > u64::from(u32::MAX) {
                return Err(damaged("a section has too many records", at));
            }
            end = (start + bytes) as usize;
            ranges[section as usize] = start as usize..end;
        }
        if end != file.len() {
            return Err(damaged("there are bytes behind the last section", end));
        }
        let (layer, diff_id) = (digest_at(file, format::AT_LAYER), digest_at(file, format::AT_DIFF_ID));
        let (blob_bytes, data_bytes) = (u64_at(file, format::AT_BLOB_BYTES), u64_at(file, format::AT_DATA_BYTES));
        let diff_id = (diff_id.as_bytes() != &[0; 32]).then_some(diff_id);
        Ok(Self { bytes, ranges, layer, diff_id, blob_bytes, data_bytes })
    }

    pub(crate) fn bytes(&self, section: Section) -> &[u8] {
        &(*self.bytes).as_ref()[self.ranges[section as usize].clone()]
    }

    pub(crate) fn count(&self, section: Section) -> u32 {
        (self.ranges[section as usize].len() / section.record_bytes()) as u32
    }

    /// The record's bytes; empty for a number that `validate` would have refused.
    pub(crate) fn record(&self, section: Section, number: u32) -> &[u8] {
        let size = section.record_bytes();
        let at = number as usize * size;
        self.bytes(section).get(at..at + size).unwrap_or_default()
    }

    /// A string; empty for a range that `validate` would have refused.
    pub(crate) fn string(&self, at: u32, bytes: u32) -> &[u8] {
        let at = at as usize;
        self.bytes(Section::Strings).get(at..at + bytes as usize).unwrap_or_default()
    }

    /// Where in the file a record is, for messages.
    pub(crate) fn place(&self, section: Section, number: u32) -> u64 {
        (self.ranges[section as usize].start + number as usize * section.record_bytes()) as u64
    }
}

fn checksum(file: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..format::AT_CHECKSUM]);
    hasher.update(&[0; 32]);
    hasher.update(&file[format::HEADER_BYTES..]);
    *hasher.finalize().as_bytes()
}
