//! The footer of an eStargz blob: an empty gzip member whose header's extra field says where the TOC is.
//!
//! Source: the eStargz specification. The members are written by Go's gzip writer, whose header bytes and empty deflate block vary,
//! so the footer is parsed and not compared. Each kind has a fixed length, which is how a reader finds its start.

use crate::error::TocError;

/// eStargz: extra field of one subfield `SG`, 22 bytes.
pub(crate) const FOOTER_BYTES: usize = 51;
/// stargz before eStargz: the 22 bytes without a subfield's header.
const LEGACY_FOOTER_BYTES: usize = 47;
/// eStargz with the TOC in another image: subfield `SG`, 17 bytes.
const EXTERNAL_FOOTER_BYTES: usize = 46;

/// Fixed part of a gzip header, and the length of the extra field.
const GZIP_HEADER_BYTES: usize = 12;
const FLAG_EXTRA: u8 = 4;
const SUBFIELD: &[u8] = b"SG";
const MAGIC: &[u8] = b"STARGZ";
const EXTERNAL_MAGIC: &[u8] = b"STARGZEXTERNALTOC";
const OFFSET_DIGITS: usize = 16;

/// What the end of a blob says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Footer {
    /// An eStargz blob whose TOC's gzip member starts here and ends before the footer.
    Toc {
        /// Offset in the blob.
        offset: u64,
    },
    /// stargz, whose TOC has no chunk digests.
    Legacy,
    /// The TOC is a blob of its own.
    External,
}

/// Finds the footer in the last bytes of a blob, as many as there are. `None` where there is none: another kind of layer.
///
/// # Errors
/// [`TocError::NoFooter`] for a footer that has the format's marks and is broken.
pub(crate) fn parse_footer(tail: &[u8]) -> Result<Option<Footer>, TocError> {
    if let Some(extra) = extra_field(tail, FOOTER_BYTES)
        && let Some(field) = subfield(extra)
        && let Some(digits) = field.strip_suffix(MAGIC)
    {
        return Ok(Some(Footer::Toc { offset: offset(digits).ok_or(TocError::NoFooter)? }));
    }
    if let Some(extra) = extra_field(tail, LEGACY_FOOTER_BYTES)
        && extra.strip_suffix(MAGIC).and_then(offset).is_some()
    {
        return Ok(Some(Footer::Legacy));
    }
    if let Some(extra) = extra_field(tail, EXTERNAL_FOOTER_BYTES)
        && subfield(extra) == Some(EXTERNAL_MAGIC)
    {
        return Ok(Some(Footer::External));
    }
    Ok(None)
}

/// The extra field of the gzip header that starts `footer_bytes` before the end.
fn extra_field(tail: &[u8], footer_bytes: usize) -> Option<&[u8]> {
    let footer = &tail[tail.len().checked_sub(footer_bytes)?..];
    let (header, rest) = footer.split_at_checked(GZIP_HEADER_BYTES)?;
    // Time, XFL and OS may be anything; the extra field must be the only optional part.
    if header[..4] != [0x1f, 0x8b, 8, FLAG_EXTRA] {
        return None;
    }
    rest.get(..usize::from(u16::from_le_bytes([header[10], header[11]])))
}

/// The data of the subfield `SG`.
fn subfield(mut extra: &[u8]) -> Option<&[u8]> {
    while let Some((&[first, second, low, high], rest)) = extra.split_first_chunk::<4>() {
        let bytes = usize::from(u16::from_le_bytes([low, high]));
        let (data, after) = rest.split_at_checked(bytes)?;
        if [first, second] == SUBFIELD {
            return Some(data);
        }
        extra = after;
    }
    None
}

fn offset(digits: &[u8]) -> Option<u64> {
    // The parser would also take a sign.
    if digits.len() != OFFSET_DIGITS || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(extra: &[u8]) -> Vec<u8> {
        let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
        footer.extend((extra.len() as u16).to_le_bytes());
        footer.extend(extra);
        footer.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        footer
    }

    #[test]
    fn all_three_kinds_are_told_apart() {
        let estargz = footer(b"SG\x16\x000000000000035c99STARGZ");
        assert_eq!(estargz.len(), FOOTER_BYTES);
        assert_eq!(parse_footer(&estargz).unwrap(), Some(Footer::Toc { offset: 0x35c99 }));
        let legacy = footer(b"0000000000035c99STARGZ");
        assert_eq!(legacy.len(), LEGACY_FOOTER_BYTES);
        assert_eq!(parse_footer(&legacy).unwrap(), Some(Footer::Legacy));
        let external = footer(b"SG\x11\x00STARGZEXTERNALTOC");
        assert_eq!(external.len(), EXTERNAL_FOOTER_BYTES);
        assert_eq!(parse_footer(&external).unwrap(), Some(Footer::External));
    }

    #[test]
    fn other_header_bytes_do_not_matter() {
        let mut footer = footer(b"SG\x16\x000000000000035c99STARGZ");
        footer[4..10].copy_from_slice(&[1, 2, 3, 4, 2, 3]);
        assert_eq!(parse_footer(&footer).unwrap(), Some(Footer::Toc { offset: 0x35c99 }));
    }

    #[test]
    fn what_is_no_footer_is_none_and_what_is_broken_is_refused() {
        assert_eq!(parse_footer(b"").unwrap(), None);
        assert_eq!(parse_footer(&[0; 100]).unwrap(), None);
        assert_eq!(parse_footer(&footer(b"XX\x16\x000000000000035c99STARGZ")).unwrap(), None);
        assert_eq!(parse_footer(&footer(b"SG\x17\x000000000000035c99STARGZ")).unwrap(), None);
        for digits in ["+00000000035c99", "00000000000-5c99", "000000000000 c99", "ffffffffffffffgf"] {
            let extra = format!("SG\x16\0{digits:0>16}STARGZ");
            assert!(parse_footer(&footer(extra.as_bytes())).is_err(), "{digits}");
        }
    }
}
