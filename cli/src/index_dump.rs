//! `snap index dump`: a layer's blob in, a line of JSON for each entry out.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail};
use snap_digest::{Digest, Hasher};
use snap_index::{
    Compression, DataSink, EstargzTail, Inode, InodeKind, LayerIndex, PassOptions, TOC_DIGEST_ANNOTATION, decode_point, dump as lines,
    estargz_tail_bytes, open_estargz, read_file, stream_layer,
};

use crate::args::DumpArgs;
use crate::limits;

/// Where a layer's data space goes while its files are hashed: a file without a name, or nowhere.
enum Space {
    File(File),
    None,
}

impl DataSink for Space {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, offset),
            Self::None => Ok(()),
        }
    }
}

pub(crate) fn dump(args: &DumpArgs) -> anyhow::Result<()> {
    let shown = args.file.display();
    let mut blob = File::open(&args.file).with_context(|| format!("cannot open {shown}"))?;
    let blob_bytes = blob.metadata().with_context(|| format!("cannot look at {shown}"))?.len();
    let mut space = if args.hash { Space::File(tempfile::tempfile().context("cannot make a temporary file")?) } else { Space::None };
    let layer = digest_of(&mut blob).with_context(|| format!("cannot read {shown}"))?;
    let toc_digest = args.annotation.iter().find(|(key, _)| key == TOC_DIGEST_ANNOTATION).map(|(_, value)| value.parse::<Digest>());
    let toc_digest = toc_digest.transpose().context("the annotation of the table of contents is no digest")?;
    let mut make_index = || -> anyhow::Result<Vec<u8>> {
        if let Some(toc_digest) = toc_digest {
            if let Some(index) = estargz_index(&mut blob, blob_bytes, &layer, &toc_digest, &mut space)? {
                return Ok(index);
            }
            // As a mount does: zstd:chunked layers have the annotation as well.
            tracing::warn!("{shown} has no eStargz footer; it is streamed instead");
        }
        streamed_index(&mut blob, blob_bytes, &layer, args.media_type.as_deref(), &mut space)
    };
    let index = make_index();
    let index = LayerIndex::open(Box::new(index.with_context(|| format!("cannot index {shown}"))?), &layer)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for (mut line, inode) in lines(&index) {
        if let (Space::File(data), Some(inode)) = (&space, inode)
            // Of a hard link, the name it links to has it.
            && line.kind == "reg"
        {
            line.sha256 = Some(hash(&index, &inode, data).with_context(|| format!("cannot read {:?} of the layer", line.name))?);
        }
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn digest_of(blob: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; limits::HASH_BUFFER_BYTES];
    loop {
        match blob.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => hasher.update(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    blob.rewind()?;
    Ok(hasher.finish())
}

fn streamed_index(
    blob: &mut File,
    blob_bytes: u64,
    layer: &Digest,
    media_type: Option<&str>,
    space: &mut Space,
) -> anyhow::Result<Vec<u8>> {
    let declared = match media_type {
        // The first bytes decide.
        None => Compression::None,
        Some(media_type) => {
            let known = Compression::of_media_type(media_type);
            known.with_context(|| format!("{media_type:?} is no media type of a layer\nhint: leave --media-type out"))?
        }
    };
    Ok(stream_layer(declared, layer, blob_bytes, blob, space, &PassOptions::default())?.index)
}

/// The index by the table of contents, if there is one; with a space to fill, all chunks are decoded and verified as well.
fn estargz_index(
    blob: &mut File,
    blob_bytes: u64,
    layer: &Digest,
    toc_digest: &Digest,
    space: &mut Space,
) -> anyhow::Result<Option<Vec<u8>>> {
    let mut tail = blob_bytes.saturating_sub(estargz_tail_bytes(blob_bytes))..blob_bytes;
    // The first tail usually has all; where it does not, its footer says what the second must have.
    for _ in 0..2 {
        let mut bytes = vec![0; usize::try_from(tail.end - tail.start)?];
        blob.read_exact_at(&mut bytes, tail.start)?;
        match open_estargz(layer, blob_bytes, &bytes, toc_digest)? {
            EstargzTail::Index(bytes) => {
                if let Space::File(_) = space {
                    let index = LayerIndex::open(Box::new(bytes.clone()), layer)?;
                    (0..index.point_count()).try_for_each(|point| decode_into(&index, point, blob, space))?;
                }
                return Ok(Some(bytes));
            }
            EstargzTail::Not => break,
            EstargzTail::Need(range) => tail = range,
        }
    }
    Ok(None)
}

fn decode_into(index: &LayerIndex, point: u32, blob: &mut File, space: &mut Space) -> anyhow::Result<()> {
    let range = index.point(point).blob_range();
    blob.seek(SeekFrom::Start(range.start))?;
    let mut input = blob.take(range.end - range.start);
    decode_point(index, point, &mut input, &mut |chunk| Ok(space.write_at(index.chunk(chunk.number()).data_offset, chunk.bytes())?))?;
    Ok(())
}

/// Hex digest of a regular file's bytes.
fn hash(index: &LayerIndex, inode: &Inode, data: &File) -> anyhow::Result<String> {
    if inode.kind() != InodeKind::File {
        bail!("it is no regular file");
    }
    if inode.size_bytes() > limits::HASHED_FILE_BYTES_MAX {
        bail!("a file of {} bytes is not hashed; at most {} are", inode.size_bytes(), limits::HASHED_FILE_BYTES_MAX);
    }
    let mut hasher = Hasher::new();
    let read_at = |offset, buffer: &mut [u8]| data.read_exact_at(buffer, offset);
    read_file(index, inode, read_at, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish().hex())
}
