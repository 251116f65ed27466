//! One 512-byte tar header: V7, POSIX ustar, PAX and GNU. Lenient and strict where Go's `archive/tar` is, because that is what
//! unpacks the same layer elsewhere.

/// Headers and data are padded to this.
pub(crate) const BLOCK_BYTES: usize = 512;

/// A header block.
pub(crate) type Block = [u8; BLOCK_BYTES];

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPEFLAG: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;
/// Schilling's star keeps times behind a shorter prefix and signs at the end.
const STAR_PREFIX: std::ops::Range<usize> = 345..476;
const STAR_TRAILER: std::ops::Range<usize> = 508..512;

/// What a header block says, before PAX records and long names change it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) typeflag: u8,
    pub(crate) mode: u32,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) size_bytes: u64,
    pub(crate) mtime_seconds: i64,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    /// The magic is GNU's, without which a sparse map is none.
    pub(crate) is_gnu: bool,
}

impl Header {
    /// `Err` names the rule that the block breaks.
    pub(crate) fn parse(block: &Block) -> Result<Self, &'static str> {
        if !checksum_holds(block) {
            return Err("a header's checksum does not hold");
        }
        let is_ustar = block[MAGIC].starts_with(b"ustar\0");
        let is_gnu = block[MAGIC] == *b"ustar  \0";
        let number = |field: std::ops::Range<usize>| number(&block[field]).ok_or("a header's number is malformed");
        let mut header = Self {
            name: text(&block[NAME]).to_vec(),
            link: text(&block[LINK]).to_vec(),
            typeflag: block[TYPEFLAG],
            mode: (number(MODE)? & 0o7777) as u32,
            uid: number(UID)?,
            gid: number(GID)?,
            size_bytes: u64::try_from(number(SIZE)?).map_err(|_| "a header's size is negative")?,
            mtime_seconds: number(MTIME)?,
            major: 0,
            minor: 0,
            is_gnu,
        };
        if is_ustar || is_gnu {
            (header.major, header.minor) = (number(MAJOR)?, number(MINOR)?);
        }
        if is_ustar {
            let prefix = text(&block[if block[STAR_TRAILER] == *b"tar\0" { STAR_PREFIX } else { PREFIX }]);
            if !prefix.is_empty() {
                header.name = [prefix, b"/", &header.name].concat();
            }
        }
        Ok(header)
    }
}

/// Whether the block's checksum is the sum of its bytes, its own field taken as spaces. Old writers summed signed bytes.
pub(crate) fn checksum_holds(block: &Block) -> bool {
    // Whole sums without a branch, the field taken off again: every file of a layer comes through here.
    let unsigned = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let signed = |bytes: &[u8]| bytes.iter().map(|&byte| i32::from(byte as i8)).sum::<i32>();
    let spaces = CHECKSUM.len() as i64 * i64::from(b' ');
    let field = &block[CHECKSUM];
    let unsigned = i64::from(unsigned(block)) - i64::from(unsigned(field)) + spaces;
    let signed = i64::from(signed(block)) - i64::from(signed(field)) + spaces;
    octal(&block[CHECKSUM]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// A field's bytes up to its first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A field's number: octal digits, or big-endian two's complement where the first bit is set (GNU's base-256).
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    // The bit below the mark is the sign; it is spread over the mark.
    let first = if first & 0x40 != 0 { first } else { first & 0x7f };
    let mut value = i64::from(first as i8);
    for &byte in &field[1..] {
        value = value.checked_mul(256)? | i64::from(byte);
    }
    Some(value)
}

/// Octal digits between spaces and NULs; an empty field is zero.
fn octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !is_blank(byte)) else { return Some(0) };
    let digits = text(&field[start..]).trim_ascii_end();
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\x00\x00644\0\0\0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777777", Some(0o77777777777)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"64 4\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\x80\0\0\x02\0\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x02\0\0\0\0\0\0\0", Some(2 << 56)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\x0c", Some(-500)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn both_sums_are_taken() {
        let mut block = [0u8; BLOCK_BYTES];
        block[0] = 0xff;
        let spaces = 8 * 32;
        block[CHECKSUM].copy_from_slice(format!("{:06o}\0 ", spaces + 255).as_bytes());
        assert!(checksum_holds(&block));
        block[CHECKSUM].copy_from_slice(format!("{:06o}\0 ", spaces - 1).as_bytes());
        assert!(checksum_holds(&block));
        block[CHECKSUM].copy_from_slice(format!("{:06o}\0 ", spaces).as_bytes());
        assert!(!checksum_holds(&block));
    }
}
