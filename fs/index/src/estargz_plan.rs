//! From the entries of an eStargz TOC to a layer index: where each file's chunks are in the blob, and where they go in data space.
//!
//! Data space holds the files' payloads in the order they have in the blob, each in one piece that starts on 512 bytes. A payload
//! that two entries share is there once.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use snap_digest::Digest;

use crate::builder::{Builder, ESTARGZ_PARTS};
use crate::chunks::{Check, Chunk, ChunkPlan, Codec, Point};
use crate::entry::{Attributes, EntryKind, Extent};
use crate::error::{IndexError, TocError, shown};
use crate::estargz_toc::{TocEntry, Xattrs};
use crate::limits;
use crate::path::components;
use crate::rfc3339;

/// What a payload's place in data space is a multiple of.
const PAYLOAD_ALIGNMENT_BYTES: u64 = 512;

/// What the entries seen so far come to.
pub(crate) struct Plan {
    /// Where the payloads' members end.
    toc_offset: u64,
    entries: Vec<Entry>,
    payloads: Vec<Payload>,
    chunks: Vec<TocChunk>,
    open: Option<OpenFile>,
}

struct Entry {
    path: Vec<u8>,
    kind: EntryKind,
    attributes: Attributes,
}

/// The bytes of a regular file that is not empty.
struct Payload {
    entry: usize,
    chunks: Range<usize>,
    bytes: u64,
}

#[derive(PartialEq, Eq)]
struct TocChunk {
    member: u64,
    skip: u64,
    bytes: u64,
    digest: Digest,
}

/// A regular file whose chunks may still come.
struct OpenFile {
    entry: usize,
    size: u64,
    /// Up to where chunks cover it.
    covered: u64,
    first_chunk: usize,
}

fn wrong(name: &[u8], why: &'static str) -> IndexError {
    TocError::Entry { name: shown(name), why }.into()
}

impl Plan {
    pub(crate) fn new(toc_offset: u64) -> Self {
        Self { toc_offset, entries: Vec::new(), payloads: Vec::new(), chunks: Vec::new(), open: None }
    }

    /// Takes the next entry of the TOC.
    pub(crate) fn take(&mut self, entry: TocEntry<'_>) -> Result<(), IndexError> {
        if entry.kind == "chunk" {
            return self.chunk(&entry);
        }
        self.close()?;
        let path = entry.name.as_bytes();
        if let [name] = components(path)?[..]
            && ESTARGZ_PARTS.contains(&name)
        {
            return Ok(());
        }
        if self.entries.len() >= limits::ENTRIES_MAX {
            return Err(IndexError::limit("entries", limits::ENTRIES_MAX as u64));
        }
        let kind = match &*entry.kind {
            "dir" => EntryKind::Directory,
            "reg" => EntryKind::File { size_bytes: entry.size, extents: Vec::new() },
            "symlink" => EntryKind::Symlink { target: entry.link_name.as_bytes().to_vec() },
            "hardlink" => EntryKind::HardLink { target: entry.link_name.as_bytes().to_vec() },
            "char" => EntryKind::CharDevice { major: entry.dev_major, minor: entry.dev_minor },
            "block" => EntryKind::BlockDevice { major: entry.dev_major, minor: entry.dev_minor },
            "fifo" => EntryKind::Fifo,
            _ => return Err(wrong(path, "its type is none that the format has")),
        };
        let mtime = match &*entry.mtime {
            "" => Default::default(),
            text => rfc3339::parse(text).ok_or_else(|| wrong(path, "its time is not RFC 3339"))?,
        };
        let xattrs = decoded(path, &entry.xattrs)?;
        let attributes = Attributes { mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid, mtime, xattrs };
        let number = self.entries.len();
        self.entries.push(Entry { path: path.to_vec(), kind, attributes });
        if entry.kind == "reg" && entry.size > 0 {
            self.open = Some(OpenFile { entry: number, size: entry.size, covered: 0, first_chunk: self.chunks.len() });
            self.chunk(&entry)?;
        }
        Ok(())
    }

    /// Adds the chunk that an entry describes to the open file. The entry of a file describes its first.
    fn chunk(&mut self, entry: &TocEntry<'_>) -> Result<(), IndexError> {
        let Some(file) = &mut self.open else {
            // Chunks of what is hidden are, too; those of anything else have no place to go.
            let is_hidden = matches!(components(entry.name.as_bytes())?[..], [name] if ESTARGZ_PARTS.contains(&name));
            return if is_hidden { Ok(()) } else { Err(wrong(entry.name.as_bytes(), "it is a chunk and follows no file with bytes")) };
        };
        let path = &self.entries[file.entry].path;
        if entry.chunk_offset != file.covered {
            return Err(wrong(path, "its chunks overlap, leave a gap, or are out of order"));
        }
        let left = file.size - file.covered;
        let bytes = if entry.chunk_size == 0 { left } else { entry.chunk_size };
        if bytes == 0 || bytes > left {
            return Err(wrong(path, "a chunk goes beyond its end"));
        }
        if bytes > limits::CHUNK_BYTES_MAX {
            return Err(wrong(path, "a chunk is over 64 MiB long"));
        }
        if entry.offset >= self.toc_offset || entry.inner_offset > limits::DATA_BYTES_MAX - bytes {
            return Err(wrong(path, "a chunk lies outside of the blob's members"));
        }
        let digest = match &*entry.chunk_digest {
            "" if bytes == file.size => &*entry.digest,
            digest => digest,
        };
        let digest = digest.parse().map_err(|_| wrong(path, "a chunk has no digest, or one that is not sha256"))?;
        if self.chunks.len() >= limits::CHUNKS_MAX {
            return Err(IndexError::limit("chunks", limits::CHUNKS_MAX as u64));
        }
        self.chunks.push(TocChunk { member: entry.offset, skip: entry.inner_offset, bytes, digest });
        file.covered += bytes;
        Ok(())
    }

    /// Ends the file that chunks could still come for.
    fn close(&mut self) -> Result<(), IndexError> {
        let Some(file) = self.open.take() else { return Ok(()) };
        if file.covered != file.size {
            return Err(wrong(&self.entries[file.entry].path, "its chunks do not cover all of it"));
        }
        self.payloads.push(Payload { entry: file.entry, chunks: file.first_chunk..self.chunks.len(), bytes: file.size });
        Ok(())
    }

    /// Ends the TOC: lays out data space and writes the index.
    pub(crate) fn finish(mut self, layer: Digest, blob_bytes: u64) -> Result<Vec<u8>, IndexError> {
        self.close()?;
        let chunks = self.lay_out()?;
        let mut builder = Builder::new(layer, blob_bytes);
        for Entry { path, kind, attributes } in self.entries {
            builder.add(&path, kind, attributes)?;
        }
        builder.finish(chunks, None)
    }

    /// Gives every payload its place, in the order of the blob, and its file the extent.
    fn lay_out(&mut self) -> Result<ChunkPlan, IndexError> {
        let place = |payload: &Payload| {
            let first = &self.chunks[payload.chunks.start];
            (first.member, first.skip)
        };
        self.payloads.sort_by_key(place);
        let mut plan = ChunkPlan::default();
        let mut before: Option<(&Payload, u64)> = None;
        for payload in &self.payloads {
            let chunks = &self.chunks[payload.chunks.clone()];
            let data_offset = match before {
                Some((other, data_offset)) if self.chunks[other.chunks.clone()] == *chunks => data_offset,
                _ => {
                    let start = plan.data_bytes.next_multiple_of(PAYLOAD_ALIGNMENT_BYTES);
                    if payload.bytes > limits::DATA_BYTES_MAX - start.min(limits::DATA_BYTES_MAX) {
                        return Err(IndexError::limit("bytes of files", limits::DATA_BYTES_MAX));
                    }
                    plan.data_bytes = start;
                    for chunk in chunks {
                        place_chunk(&mut plan, chunk).map_err(|why| wrong(&self.entries[payload.entry].path, why))?;
                    }
                    start
                }
            };
            before = Some((payload, data_offset));
            if let EntryKind::File { extents, .. } = &mut self.entries[payload.entry].kind {
                extents.push(Extent { file_offset: 0, data_offset, bytes: payload.bytes });
            }
        }
        if let Some(last) = plan.points.last_mut() {
            last.blob_bytes = self.toc_offset - last.blob_offset;
        }
        Ok(plan)
    }
}

/// Adds a chunk at the end of data space, and its member where it is a new one.
fn place_chunk(plan: &mut ChunkPlan, chunk: &TocChunk) -> Result<(), &'static str> {
    let is_new = plan.points.last().is_none_or(|point| point.blob_offset != chunk.member);
    if is_new {
        if let Some(before) = plan.points.last_mut() {
            if before.blob_offset > chunk.member {
                return Err("its chunks are out of order in the blob, or between those of another file");
            }
            // The compressed length is not written down: a member ends where the next one starts.
            before.blob_bytes = chunk.member - before.blob_offset;
        }
        plan.points.push(Point { blob_offset: chunk.member, blob_bytes: 0, decoded_bytes: 0, codec: Codec::Gzip, window: Vec::new() });
    }
    let number = plan.points.len() as u32 - 1;
    if let Some(point) = plan.points.last_mut() {
        if chunk.skip < point.decoded_bytes {
            return Err("a chunk overlaps another one in the blob");
        }
        // A member goes on with padding and the next header; nobody needs those.
        point.decoded_bytes = chunk.skip + chunk.bytes;
    }
    plan.chunks.push(Chunk {
        data_offset: plan.data_bytes,
        bytes: chunk.bytes as u32,
        point: number,
        skip: chunk.skip,
        check: Check::Sha256(chunk.digest),
    });
    plan.data_bytes += chunk.bytes;
    Ok(())
}

/// As [`Attributes::xattrs`].
type XattrPairs = Vec<(Vec<u8>, Vec<u8>)>;

fn decoded(path: &[u8], xattrs: &Xattrs<'_>) -> Result<XattrPairs, IndexError> {
    let mut pairs = Vec::with_capacity(xattrs.0.len());
    for (name, text) in &xattrs.0 {
        let value = STANDARD.decode(text.as_bytes()).map_err(|_| wrong(path, "an extended attribute is not base64"))?;
        pairs.push((name.as_bytes().to_vec(), value));
    }
    Ok(pairs)
}
