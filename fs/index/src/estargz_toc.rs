//! The JSON of an eStargz TOC, entry by entry: what the fields mean is decided by who takes the entries.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{IndexError, TocError};

/// The only version of the format.
const VERSION: u64 = 1;

/// One entry as it is written. Absent fields are zero or empty.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TocEntry<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    pub(crate) size: u64,
    #[serde(borrow, rename = "modtime")]
    pub(crate) mtime: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) link_name: Cow<'a, str>,
    /// A tar header's mode; old writers put the file type into the higher bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    #[serde(borrow)]
    pub(crate) xattrs: Xattrs<'a>,
    /// Of the whole file.
    #[serde(borrow)]
    pub(crate) digest: Cow<'a, str>,
    /// Of the compressed member in the blob.
    pub(crate) offset: u64,
    /// Of the payload in the decoded member.
    pub(crate) inner_offset: u64,
    /// Of the chunk in its file.
    pub(crate) chunk_offset: u64,
    /// 0: up to the file's end.
    pub(crate) chunk_size: u64,
    #[serde(borrow)]
    pub(crate) chunk_digest: Cow<'a, str>,
}

/// Names and base64 values, in the order they are written.
#[derive(Default, Debug)]
pub(crate) struct Xattrs<'a>(pub(crate) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Xattrs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Xattrs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of extended attributes")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Xattrs<'de>, A::Error> {
                let mut pairs = Vec::new();
                // An empty value may be written as null.
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, Option<Text<'de>>>()? {
                    pairs.push((name, value.unwrap_or_default().0));
                }
                Ok(Xattrs(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A string that borrows where it has no escapes. (A bare `Cow` would always be copied.)
#[derive(Deserialize, Default)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a TOC and gives its entries to `take`, in order.
///
/// # Errors
/// [`TocError::Json`], [`TocError::Rule`] for another version, and whatever `take` gives.
pub(crate) fn read_toc<'a>(json: &'a [u8], take: impl FnMut(TocEntry<'a>) -> Result<(), IndexError>) -> Result<(), IndexError> {
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let toc = Toc { take, refused: &mut refused };
    let read = toc.deserialize(&mut deserializer).and_then(|version| deserializer.end().map(|()| version));
    match (refused, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(TocError::Json(error).into()),
        (None, Ok(VERSION)) => Ok(()),
        (None, Ok(_)) => Err(TocError::Rule("its version is not 1").into()),
    }
}

struct Toc<'r, F> {
    take: F,
    /// What `take` gave, because a deserialiser's errors are of one type.
    refused: &'r mut Option<IndexError>,
}

impl<'de, F: FnMut(TocEntry<'de>) -> Result<(), IndexError>> DeserializeSeed<'de> for Toc<'_, F> {
    type Value = u64;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(TocEntry<'de>) -> Result<(), IndexError>> Visitor<'de> for Toc<'_, F> {
    /// The version.
    type Value = u64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<u64, A::Error> {
        let (mut version, mut has_entries) = (None, false);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "version" => version = Some(map.next_value()?),
                "entries" if has_entries => return Err(A::Error::duplicate_field("entries")),
                "entries" => {
                    has_entries = true;
                    map.next_value_seed(Entries { take: &mut self.take, refused: &mut *self.refused })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match version {
            Some(version) if has_entries => Ok(version),
            Some(_) => Err(A::Error::missing_field("entries")),
            None => Err(A::Error::missing_field("version")),
        }
    }
}

struct Entries<'r, F> {
    take: &'r mut F,
    refused: &'r mut Option<IndexError>,
}

impl<'de, F: FnMut(TocEntry<'de>) -> Result<(), IndexError>> DeserializeSeed<'de> for Entries<'_, F> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(TocEntry<'de>) -> Result<(), IndexError>> Visitor<'de> for Entries<'_, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element()? {
            if let Err(error) = (self.take)(entry) {
                *self.refused = Some(error);
                return Err(A::Error::custom("an entry is refused"));
            }
        }
        Ok(())
    }
}
