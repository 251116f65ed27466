//! A tar stream, pushed in pieces of any size, becomes entries of a [`Builder`]. Data space is the stream itself: the extents of a file
//! point at its payload.
//!
//! What containers' other unpackers do is the rule wherever tar's many dialects disagree: links, directories and devices have no data
//! whatever their size field says, global PAX headers are checked and change nothing, and the stream may end without its two zero blocks.

use crate::builder::Builder;
use crate::entry::{Attributes, EntryKind, Extent, Timestamp};
use crate::error::{IndexError, shown};
use crate::limits;
use crate::pax::Records;
use crate::sparse::{self, MapReader, SparseMap};
use crate::tar_header::{BLOCK_BYTES, Block, Header, text};

const ZERO_BLOCK: Block = [0; BLOCK_BYTES];

/// What the next block is.
enum Expect {
    Header,
    /// After one zero block.
    SecondZeroBlock,
    /// The payload of a PAX header or of a long name.
    Metadata {
        kind: Metadata,
        payload: Vec<u8>,
        bytes: usize,
    },
    /// A block that continues an old sparse file's map.
    SparseExtension {
        entry: Box<Entry>,
        map: SparseMap,
    },
    /// A block of a PAX 1.0 sparse map.
    SparseMap {
        entry: Box<Entry>,
        reader: MapReader,
    },
    /// Nothing: the archive is over, whatever follows.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Metadata {
    Pax,
    GlobalPax,
    LongName,
    LongLink,
}

/// An entry whose extents are not known yet.
struct Entry {
    name: Vec<u8>,
    attributes: Attributes,
    size_bytes: u64,
    /// Bytes in the stream, which for a sparse file are fewer than its size; a map among them is taken off as it is read.
    stored_bytes: u64,
}

/// What the headers before an entry's own say about it.
#[derive(Default)]
struct Pending {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// The parser. Feed it the stream, then [`TarParser::finish`] it.
pub(crate) struct TarParser {
    builder: Builder,
    /// Offset in the stream of the next byte.
    at: u64,
    /// Payload and padding that pass unread.
    skip_bytes: u64,
    /// How many of those are padding at the end, which a stream may lack.
    padding_bytes: u64,
    block: Block,
    block_bytes: usize,
    expect: Expect,
    pending: Pending,
}

impl TarParser {
    pub(crate) fn new(builder: Builder) -> Self {
        Self {
            builder,
            at: 0,
            skip_bytes: 0,
            padding_bytes: 0,
            block: ZERO_BLOCK,
            block_bytes: 0,
            expect: Expect::Header,
            pending: Pending::default(),
        }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), IndexError> {
        while !bytes.is_empty() && !matches!(self.expect, Expect::Nothing) {
            let taken;
            if self.skip_bytes > 0 {
                taken = usize::try_from(self.skip_bytes).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                self.skip_bytes -= taken as u64;
            } else {
                taken = bytes.len().min(BLOCK_BYTES - self.block_bytes);
                self.block[self.block_bytes..][..taken].copy_from_slice(&bytes[..taken]);
                self.block_bytes += taken;
            }
            bytes = &bytes[taken..];
            self.at += taken as u64;
            if self.block_bytes == BLOCK_BYTES {
                self.block_bytes = 0;
                self.take_block()?;
            }
        }
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`IndexError::Truncated`] unless it ends after an entry.
    pub(crate) fn finish(self) -> Result<Builder, IndexError> {
        let is_whole = match self.expect {
            Expect::Nothing => true,
            Expect::Header | Expect::SecondZeroBlock => self.block_bytes == 0 && self.skip_bytes <= self.padding_bytes,
            Expect::Metadata { .. } | Expect::SparseExtension { .. } | Expect::SparseMap { .. } => false,
        };
        if is_whole { Ok(self.builder) } else { Err(IndexError::Truncated { format: "tar", at: self.at }) }
    }

    /// An error about the block that was just read.
    fn wrong(&self, why: &'static str) -> IndexError {
        IndexError::Tar { at: self.at - BLOCK_BYTES as u64, why }
    }

    fn take_block(&mut self) -> Result<(), IndexError> {
        match std::mem::replace(&mut self.expect, Expect::Header) {
            Expect::Header if self.block == ZERO_BLOCK => self.expect = Expect::SecondZeroBlock,
            Expect::Header => return self.header(),
            Expect::SecondZeroBlock if self.block == ZERO_BLOCK => self.expect = Expect::Nothing,
            Expect::SecondZeroBlock => return Err(self.wrong("a lone zero block is followed by something else")),
            Expect::Metadata { kind, mut payload, bytes } => {
                let wanted = (bytes - payload.len()).min(BLOCK_BYTES);
                payload.extend_from_slice(&self.block[..wanted]);
                if payload.len() == bytes {
                    return self.metadata(kind, &payload);
                }
                self.expect = Expect::Metadata { kind, payload, bytes };
            }
            Expect::SparseExtension { entry, mut map } => {
                if sparse::old_extension(&self.block, &mut map).map_err(|why| self.wrong(why))? {
                    self.expect = Expect::SparseExtension { entry, map };
                } else {
                    return self.sparse_file(*entry, &map);
                }
            }
            Expect::SparseMap { mut entry, mut reader } => {
                let stored = entry.stored_bytes.checked_sub(BLOCK_BYTES as u64);
                entry.stored_bytes = stored.ok_or_else(|| self.wrong("a sparse file's map is longer than its data"))?;
                match reader.block(&self.block).map_err(|why| self.wrong(why))? {
                    Some(map) => return self.sparse_file(*entry, &map),
                    None => self.expect = Expect::SparseMap { entry, reader },
                }
            }
            Expect::Nothing => self.expect = Expect::Nothing,
        }
        Ok(())
    }

    fn header(&mut self) -> Result<(), IndexError> {
        let header = Header::parse(&self.block).map_err(|why| self.wrong(why))?;
        let kind = match header.typeflag {
            b'x' => Metadata::Pax,
            b'g' => Metadata::GlobalPax,
            b'L' => Metadata::LongName,
            b'K' => Metadata::LongLink,
            _ => return self.entry(header),
        };
        let bytes = usize::try_from(header.size_bytes).ok().filter(|&bytes| bytes <= limits::TAR_METADATA_BYTES_MAX);
        let bytes = bytes.ok_or(IndexError::limit("bytes of one extended tar header", limits::TAR_METADATA_BYTES_MAX as u64))?;
        if bytes == 0 {
            return self.metadata(kind, b"");
        }
        self.expect = Expect::Metadata { kind, payload: Vec::with_capacity(bytes), bytes };
        Ok(())
    }

    fn metadata(&mut self, kind: Metadata, payload: &[u8]) -> Result<(), IndexError> {
        let records = || Records::parse(payload).map_err(|why| self.wrong(why));
        match kind {
            Metadata::Pax => self.pending.records = records()?,
            Metadata::GlobalPax => {
                records()?;
                self.pending = Pending::default();
            }
            Metadata::LongName => self.pending.long_name = Some(text(payload).to_vec()),
            Metadata::LongLink => self.pending.long_link = Some(text(payload).to_vec()),
        }
        Ok(())
    }

    fn entry(&mut self, header: Header) -> Result<(), IndexError> {
        let Pending { records, long_name, long_link } = std::mem::take(&mut self.pending);
        let name = long_name.filter(|name| !name.is_empty()).or(records.path).unwrap_or(header.name);
        let link = long_link.filter(|link| !link.is_empty()).or(records.link).unwrap_or(header.link);
        let owner = |id: i64| u32::try_from(id).map_err(|_| IndexError::entry(&name, "its owner or group is no 32-bit number"));
        let attributes = Attributes {
            mode: header.mode,
            uid: owner(records.uid.unwrap_or(header.uid))?,
            gid: owner(records.gid.unwrap_or(header.gid))?,
            mtime: records.mtime.unwrap_or(Timestamp { seconds: header.mtime_seconds, nanoseconds: 0 }),
            xattrs: records.xattrs,
        };
        let device = |number: i64| u32::try_from(number).map_err(|_| IndexError::entry(&name, "its device number is impossible"));
        let kind = match header.typeflag {
            b'0' | b'7' | 0 => {
                let stored_bytes = records.size_bytes.unwrap_or(header.size_bytes);
                return self.file(Entry { name, attributes, size_bytes: stored_bytes, stored_bytes }, records.sparse);
            }
            b'S' if header.is_gnu => {
                let (map, size_bytes, is_extended) = sparse::old_header(&self.block).map_err(|why| self.wrong(why))?;
                let stored_bytes = records.size_bytes.unwrap_or(header.size_bytes);
                let entry = Entry { name, attributes, size_bytes, stored_bytes };
                if is_extended {
                    self.expect = Expect::SparseExtension { entry: Box::new(entry), map };
                    return Ok(());
                }
                return self.sparse_file(entry, &map);
            }
            b'1' => EntryKind::HardLink { target: link },
            b'2' => EntryKind::Symlink { target: link },
            b'3' => EntryKind::CharDevice { major: device(header.major)?, minor: device(header.minor)? },
            b'4' => EntryKind::BlockDevice { major: device(header.major)?, minor: device(header.minor)? },
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            typeflag => return Err(IndexError::EntryType { path: shown(&name), typeflag: char::from(typeflag) }),
        };
        self.builder.add(&name, kind, attributes)
    }

    fn file(&mut self, mut entry: Entry, records: crate::pax::SparseRecords) -> Result<(), IndexError> {
        // V7 had no type for directories; a name that ends in a slash was one.
        if entry.name.ends_with(b"/") {
            if entry.stored_bytes > 0 {
                return Err(IndexError::entry(&entry.name, "it is named as a directory and has data"));
            }
            return self.builder.add(&entry.name, EntryKind::Directory, entry.attributes);
        }
        let version = (records.major.as_deref(), records.minor.as_deref());
        let is_sparse = version != (None, None) || records.map.is_some();
        if !is_sparse {
            let extents = match entry.stored_bytes {
                0 => Vec::new(),
                bytes => vec![Extent { file_offset: 0, data_offset: self.at, bytes }],
            };
            return self.add_file(entry, extents);
        }
        entry.name = records.name.unwrap_or(entry.name);
        entry.size_bytes = records.size_bytes.unwrap_or(entry.size_bytes);
        match (version, records.map) {
            ((Some(b"1"), Some(b"0")), _) => {
                self.expect = Expect::SparseMap { entry: Box::new(entry), reader: MapReader::default() };
                Ok(())
            }
            ((None, None) | (Some(b"0"), Some(b"0" | b"1")), Some(map)) => {
                let map = sparse::from_list(&map).map_err(|why| self.wrong(why))?;
                self.sparse_file(entry, &map)
            }
            _ => Err(IndexError::entry(&entry.name, "it is sparse in a way that is not known")),
        }
    }

    fn sparse_file(&mut self, entry: Entry, map: &[(u64, u64)]) -> Result<(), IndexError> {
        let extents = sparse::extents(map, entry.size_bytes, self.at, entry.stored_bytes).map_err(|why| self.wrong(why))?;
        self.add_file(entry, extents)
    }

    /// Adds the file and lets its data, which comes next, pass.
    fn add_file(&mut self, entry: Entry, extents: Vec<Extent>) -> Result<(), IndexError> {
        if entry.stored_bytes > limits::DATA_BYTES_MAX {
            return Err(IndexError::limit("bytes of data space", limits::DATA_BYTES_MAX));
        }
        let padded = entry.stored_bytes.next_multiple_of(BLOCK_BYTES as u64);
        (self.skip_bytes, self.padding_bytes) = (padded, padded - entry.stored_bytes);
        self.builder.add(&entry.name, EntryKind::File { size_bytes: entry.size_bytes, extents }, entry.attributes)
    }
}
