//! eStargz: a gzip layer with a table of contents of its own at its end.
//!
//! The end of the blob is read; the footer says where the TOC's gzip member is; the member decodes to a tar entry whose payload is
//! JSON; and the JSON has the digest that the layer's descriptor gives. From there everything is vouched for: the TOC has a digest
//! of each chunk.
//!
//! Source: the eStargz specification, <https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md>.

use std::ops::Range;

use snap_digest::Digest;

use crate::error::{IndexError, TocError};
use crate::estargz_footer::{FOOTER_BYTES, Footer, parse_footer};
use crate::estargz_plan::Plan;
use crate::estargz_toc::read_toc;
use crate::inflate::{Inflate, Stop, Wrap};
use crate::limits;

/// The annotation of a layer's descriptor that holds the digest of its TOC's JSON.
pub const TOC_DIGEST_ANNOTATION: &str = "containerd.io/snapshot/stargz/toc.digest";

/// The tar entry that the TOC is in.
const TOC_NAME: &[u8] = b"stargz.index.json";
const TAR_BLOCK_BYTES: usize = 512;

/// What the end of a blob holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EstargzTail {
    /// The layer's index file.
    Index(Vec<u8>),
    /// The footer is there and the TOC starts further ahead: this range of the blob, up to its end, is needed.
    Need(Range<u64>),
    /// No eStargz footer: the layer is something else.
    Not,
}

/// How much to read from the end of a blob so that footer and TOC usually come at once, in bytes.
///
/// A TOC takes about 50 compressed bytes for each entry: 1.7 % of a layer of small files (2.8 KiB on average), less elsewhere.
pub fn estargz_tail_bytes(blob_bytes: u64) -> u64 {
    (blob_bytes / 48).clamp(limits::TOC_TAIL_BYTES_MIN, limits::TOC_TAIL_BYTES_MAX).min(blob_bytes)
}

/// Makes the index of an eStargz layer. `tail` is the blob's last bytes, as many as there are; `toc_digest` is the value of
/// [`TOC_DIGEST_ANNOTATION`].
///
/// # Errors
/// [`IndexError::Toc`] for what breaks the format or is an older form without chunk digests; [`IndexError::Digest`] for another TOC
/// than the descriptor's; and what [`crate::Builder`] refuses. The layer may still be readable as plain gzip.
pub fn open_estargz(layer: &Digest, blob_bytes: u64, tail: &[u8], toc_digest: &Digest) -> Result<EstargzTail, IndexError> {
    let tail_start = blob_bytes.checked_sub(tail.len() as u64).ok_or(TocError::OutOfBlob { what: "the tail" })?;
    let footer_start = blob_bytes.saturating_sub(FOOTER_BYTES as u64);
    if tail_start > footer_start {
        return Ok(EstargzTail::Need(footer_start..blob_bytes));
    }
    let toc_offset = match parse_footer(tail)? {
        None => return Ok(EstargzTail::Not),
        Some(Footer::Legacy) => return Err(TocError::Rule("it is of the old stargz form, which has no digests of chunks").into()),
        Some(Footer::External) => return Err(TocError::Rule("it is in another image").into()),
        Some(Footer::Toc { offset }) => offset,
    };
    if toc_offset >= footer_start {
        return Err(TocError::OutOfBlob { what: "the TOC" }.into());
    }
    if footer_start - toc_offset > limits::TOC_BLOB_BYTES_MAX {
        return Err(IndexError::limit("compressed bytes of the table of contents", limits::TOC_BLOB_BYTES_MAX));
    }
    if toc_offset < tail_start {
        return Ok(EstargzTail::Need(toc_offset..blob_bytes));
    }
    let member = &tail[(toc_offset - tail_start) as usize..tail.len() - FOOTER_BYTES];
    let json = toc_json(member, toc_offset)?;
    let found = Digest::of(&json);
    if found != *toc_digest {
        return Err(IndexError::Digest { what: "the table of contents", found, wanted: *toc_digest });
    }
    let mut plan = Plan::new(toc_offset);
    read_toc(&json, |entry| plan.take(entry))?;
    Ok(EstargzTail::Index(plan.finish(*layer, blob_bytes)?))
}

/// The payload of the tar entry that the gzip member `member`, at `at` in the blob, starts with.
fn toc_json(member: &[u8], at: u64) -> Result<Vec<u8>, IndexError> {
    let mut decoder = Member { inflate: inflate(at)?, rest: member, at };
    let mut header = [0; TAR_BLOCK_BYTES];
    decoder.fill(&mut header)?;
    let name = header[..100].split(|&byte| byte == 0).next().unwrap_or_default();
    if name != TOC_NAME || !matches!(header[156], b'0' | 0) {
        return Err(TocError::Rule("the footer does not lead to stargz.index.json").into());
    }
    let bytes = octal(&header[124..136]).ok_or(TocError::Rule("its tar header has no size"))?;
    // Deflate cannot make more of a member, so a size beyond is a lie that costs no memory.
    if bytes > limits::TOC_JSON_BYTES_MAX || bytes > member.len() as u64 * limits::DEFLATE_RATIO_MAX {
        return Err(IndexError::limit("bytes of the table of contents", limits::TOC_JSON_BYTES_MAX));
    }
    let mut json = vec![0; bytes as usize];
    decoder.fill(&mut json)?;
    Ok(json)
}

/// A number as tar writes it: octal digits, then spaces and NULs.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.iter().take_while(|byte| !matches!(byte, b' ' | 0)).count();
    if digits == 0 || !field[..digits].iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    Some(field[..digits].iter().fold(0, |number, digit| number * 8 + u64::from(digit - b'0')))
}

/// A gzip member that is decoded piece by piece.
struct Member<'a> {
    inflate: Inflate,
    rest: &'a [u8],
    at: u64,
}

fn inflate(at: u64) -> Result<Inflate, IndexError> {
    Inflate::new(Wrap::Gzip).map_err(|why| IndexError::Compressed { format: "gzip", at, why })
}

impl Member<'_> {
    /// Decodes until `out` is full.
    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), IndexError> {
        while !out.is_empty() {
            let step =
                self.inflate.step(self.rest, out, false).map_err(|why| IndexError::Compressed { format: "gzip", at: self.at, why })?;
            self.rest = &self.rest[step.consumed..];
            self.at += step.consumed as u64;
            out = &mut out[step.produced..];
            let is_over = matches!(step.stop, Stop::End | Stop::Stuck) || (step.consumed, step.produced) == (0, 0);
            if is_over && !out.is_empty() {
                return Err(IndexError::Truncated { format: "gzip", at: self.at });
            }
        }
        Ok(())
    }
}
