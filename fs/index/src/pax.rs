//! PAX extended headers (POSIX.1-2001, `pax` interchange format): records `"%d %s=%s\n"`, length, keyword, value.

use base64::Engine as _;

use crate::entry::Timestamp;
use crate::limits;

const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";

/// What the records of one header say about the entry that follows. An empty value leaves what the entry's own header says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) mtime: Option<Timestamp>,
    /// Full names and values; libarchive's spelling first, so that star's, which is exact, wins.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: SparseRecords,
}

/// GNU's records about a file with holes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SparseRecords {
    pub(crate) major: Option<Vec<u8>>,
    pub(crate) minor: Option<Vec<u8>>,
    pub(crate) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` (0.0, 0.1) or `GNU.sparse.realsize` (1.0).
    pub(crate) size_bytes: Option<u64>,
    /// Offsets and lengths in turn: `GNU.sparse.map` (0.1), or the repeated `offset` and `numbytes` (0.0).
    pub(crate) map: Option<Vec<u64>>,
}

impl Records {
    /// `Err` names the rule that the records break.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut records = Self::default();
        let mut pairs = Vec::new();
        let mut libarchive = Vec::new();
        while !bytes.is_empty() {
            let (keyword, value) = take_record(&mut bytes)?;
            if let Some(name) = keyword.strip_prefix(SCHILY_XATTR) {
                records.xattrs.push((name.to_vec(), value.to_vec()));
            } else if let Some(name) = keyword.strip_prefix(LIBARCHIVE_XATTR) {
                libarchive.push((percent_decoded(name), base64_decoded(value)?));
            } else if let b"GNU.sparse.offset" | b"GNU.sparse.numbytes" = keyword {
                let is_offset = keyword.ends_with(b"offset");
                if is_offset != pairs.len().is_multiple_of(2) {
                    return Err("offsets and lengths of a sparse file do not alternate");
                }
                pairs.push(decimal(value)?);
            } else {
                records.set(keyword, (!value.is_empty()).then_some(value))?;
            }
        }
        if !pairs.is_empty() {
            records.sparse.map = Some(pairs);
        }
        libarchive.append(&mut records.xattrs);
        records.xattrs = libarchive;
        Ok(records)
    }

    fn set(&mut self, keyword: &[u8], value: Option<&[u8]>) -> Result<(), &'static str> {
        let bytes = || value.map(<[u8]>::to_vec);
        match keyword {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size_bytes = value.map(decimal).transpose()?,
            b"uid" => self.uid = value.map(signed).transpose()?,
            b"gid" => self.gid = value.map(signed).transpose()?,
            b"mtime" => self.mtime = value.map(timestamp).transpose()?,
            b"GNU.sparse.major" => self.sparse.major = bytes(),
            b"GNU.sparse.minor" => self.sparse.minor = bytes(),
            b"GNU.sparse.name" => self.sparse.name = bytes(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size_bytes = value.map(decimal).transpose()?,
            b"GNU.sparse.map" => {
                let numbers = |list: &[u8]| list.split(|&byte| byte == b',').map(decimal).collect::<Result<Vec<_>, _>>();
                self.sparse.map = value.map(numbers).transpose()?;
            }
            // atime, ctime, uname, gname, comments, what vendors add: nothing that a mount shows.
            _ => {}
        }
        Ok(())
    }
}

/// Takes the first record off; its keyword and value.
fn take_record<'a>(bytes: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), &'static str> {
    const BROKEN: &str = "a PAX record's length does not fit";
    // "5 a=\n" is the shortest there is; twenty digits are more than any length has.
    let space = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or(BROKEN)?;
    let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| BROKEN)?;
    if length < 5 || length <= space + 1 {
        return Err(BROKEN);
    }
    let (record, rest) = bytes.split_at_checked(length).ok_or(BROKEN)?;
    let record = record[space + 1..].strip_suffix(b"\n").ok_or("a PAX record does not end in a newline")?;
    let equals = record.iter().position(|&byte| byte == b'=').ok_or("a PAX record has no =")?;
    let (keyword, value) = (&record[..equals], &record[equals + 1..]);
    let is_text = matches!(keyword, b"path" | b"linkpath" | b"uname" | b"gname");
    if keyword.is_empty() || keyword.contains(&0) || is_text && value.contains(&0) {
        return Err("a PAX record's keyword or text is empty or has a NUL byte");
    }
    *bytes = rest;
    Ok((keyword, value))
}

/// Decimal digits, no sign, up to `i64::MAX`.
pub(crate) fn decimal(digits: &[u8]) -> Result<u64, &'static str> {
    const BROKEN: &str = "a decimal number is malformed";
    if digits.is_empty() {
        return Err(BROKEN);
    }
    let value = digits.iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    });
    value.filter(|&value| value <= i64::MAX as u64).ok_or(BROKEN)
}

fn signed(digits: &[u8]) -> Result<i64, &'static str> {
    match digits.strip_prefix(b"-") {
        // `decimal` gives at most `i64::MAX`.
        Some(digits) => Ok(-(decimal(digits)? as i64)),
        None => Ok(decimal(digits)? as i64),
    }
}

/// Seconds with a fraction of any length, of which nanoseconds are kept, cut towards zero.
fn timestamp(text: &[u8]) -> Result<Timestamp, &'static str> {
    let dot = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = signed(&text[..dot])?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("a time's fraction is malformed");
    }
    let nanoseconds = (0..9).fold(0, |value, at| value * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    if text.starts_with(b"-") && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).ok_or("a time is impossible")?;
        return Ok(Timestamp { seconds, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Ok(Timestamp { seconds, nanoseconds })
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let digit = |at: usize| name.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

fn base64_decoded(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    // libarchive writes no padding; others do.
    let end = value.iter().rposition(|&byte| byte != b'=').map_or(0, |at| at + 1);
    if end > limits::XATTR_VALUE_BYTES_MAX / 3 * 4 + 4 {
        return Err("an extended attribute's value is too long");
    }
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(&value[..end]).map_err(|_| "an extended attribute's value is no base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
        let body = keyword.len() + value.len() + 3;
        let length = (1..).map(|digits| body + digits).find(|length| length.to_string().len() + body == *length).unwrap();
        [format!("{length} {keyword}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn times_keep_nanoseconds_on_both_sides_of_zero() {
        for (text, seconds, nanoseconds) in [
            ("1700000000", 1_700_000_000, 0),
            ("1.5", 1, 500_000_000),
            ("1.123456789999", 1, 123_456_789),
            ("1.", 1, 0),
            ("-1", -1, 0),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
            ("0.000000001", 0, 1),
        ] {
            assert_eq!(timestamp(text.as_bytes()), Ok(Timestamp { seconds, nanoseconds }), "{text}");
        }
        for text in ["", ".", ".5", "-", "1.x", "1.5.5", "+1", "99999999999999999999"] {
            assert!(timestamp(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn values_hold_any_bytes() {
        let value = b"a=b\nc\0\xff";
        let bytes = [record("SCHILY.xattr.user.x", value), record("path", b"\xff\n=x"), record("SCHILY.xattr.user.empty", b"")].concat();
        let records = Records::parse(&bytes).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"\xff\n=x"[..]));
        assert_eq!(records.xattrs, [(b"user.x".to_vec(), value.to_vec()), (b"user.empty".to_vec(), vec![])]);
    }

    #[test]
    fn libarchive_xattrs_are_decoded_and_yield_to_star() {
        let bytes = [
            record("SCHILY.xattr.user.a", b"star"),
            record("LIBARCHIVE.xattr.user.a", b"bGliYXJjaGl2ZQ"),
            record("LIBARCHIVE.xattr.user.%3Db%", b"AP8="),
        ]
        .concat();
        let xattrs = Records::parse(&bytes).unwrap().xattrs;
        assert_eq!(xattrs[1], (b"user.=b%".to_vec(), vec![0, 0xff]));
        assert_eq!(xattrs.iter().rfind(|(name, _)| name == b"user.a").unwrap().1, b"star");
        assert!(Records::parse(&record("LIBARCHIVE.xattr.user.a", b"!")).is_err());
    }

    #[test]
    fn an_empty_value_leaves_the_header_and_the_last_record_wins() {
        let bytes = [record("path", b"a"), record("size", b"12"), record("size", b""), record("path", b"b")].concat();
        let records = Records::parse(&bytes).unwrap();
        assert_eq!((records.path.as_deref(), records.size_bytes), (Some(&b"b"[..]), None));
    }

    #[test]
    fn both_sparse_spellings_give_one_map() {
        let map = Some(vec![0, 5, 1024, 7]);
        let one = [("offset", "0"), ("numbytes", "5"), ("offset", "1024"), ("numbytes", "7")];
        let bytes: Vec<u8> = one.iter().flat_map(|(key, value)| record(&format!("GNU.sparse.{key}"), value.as_bytes())).collect();
        assert_eq!(Records::parse(&bytes).unwrap().sparse.map, map);
        assert_eq!(Records::parse(&record("GNU.sparse.map", b"0,5,1024,7")).unwrap().sparse.map, map);
        assert!(Records::parse(&record("GNU.sparse.numbytes", b"5")).is_err());
        assert!(Records::parse(&record("GNU.sparse.map", b"0,,5")).is_err());
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"10 path=ab\n"[..],
            b"12 path=ab\n",
            b"11 path=abx",
            b"11 pathxab\n",
            b"4 =\n",
            b"5 =a\n",
            b"0 \n",
            b"x path=ab\n",
            b"-11 path=ab\n",
            b"99999999999999999999999 path=ab\n",
            b"11 path=a\0\n",
            b"11 size=-1\n",
            b"10 size=x\n",
            b"11",
            b" ",
        ] {
            assert!(Records::parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(Records::parse(b"11 path=ab\n").unwrap().path.as_deref(), Some(&b"ab"[..]));
    }
}
