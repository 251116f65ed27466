//! Node numbers: a function of what they stand for, never of when they were asked for.
//!
//! | bits | a file | a directory, or a file whose link count is the tree's own |
//! | --- | --- | --- |
//! | 63..62 | 00 | 10, 11 |
//! | 61..24 | first 38 bits of the layer's digest | first 38 bits of the digest over the tree's layers |
//! | 23..0 | inode in the layer | position in the tree |
//!
//! So a daemon that comes back answers for every number the kernel still holds, and a file that two images share is one inode. The root
//! of the mount is 1, as FUSE demands: the one tree's root, or the directory that holds all trees. Every whiteout that is shown to
//! overlayfs is the same inode, 2.

use std::fmt;

use snap_digest::{Digest, Hasher};

use crate::remote::Below;

const NUMBER_BITS: u32 = 24;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
const PREFIX_MASK: u64 = (1 << 38) - 1;
const KIND_SHIFT: u32 = 62;
const KIND_FILE: u64 = 0b00;
const KIND_DIRECTORY: u64 = 0b10;
const KIND_RELINKED: u64 = 0b11;

/// The root directory of the mount.
pub const ROOT: u64 = 1;
/// What every shown whiteout is: a character device 0:0.
pub(crate) const WHITEOUT: u64 = 2;

/// 38 bits that stand for a layer or a tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Prefix(u64);

impl Prefix {
    /// Of a layer.
    pub(crate) fn of_layer(layer: &Digest) -> Self {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&layer.as_bytes()[..8]);
        Self(u64::from_be_bytes(bytes) >> (64 - 38))
    }

    /// Of the tree that these layers make, bottom first.
    pub(crate) fn of_tree<'a>(layers: impl Iterator<Item = &'a Digest>, below: Below) -> Self {
        let mut hasher = Hasher::new();
        if below == Below::Layers {
            hasher.update(b"with whiteouts");
        }
        layers.for_each(|layer| hasher.update(layer.as_bytes()));
        Self::of_layer(&hasher.finish())
    }
}

impl Prefix {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(name).ok().filter(|name| name.len() == 10)?;
        let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let value = u64::from_str_radix(digits, 16).ok().filter(|value| is_hex && *value <= PREFIX_MASK)?;
        Some(Self(value))
    }
}

/// As ten hex digits: the name of a tree's directory.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010x}", self.0)
    }
}

/// A number taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Number {
    Root,
    Whiteout,
    File { layer: Prefix, inode: u32 },
    Directory { tree: Prefix, position: u32 },
    Relinked { tree: Prefix, position: u32 },
}

impl Number {
    pub(crate) fn pack(self) -> u64 {
        let (kind, prefix, number) = match self {
            Self::Root => return ROOT,
            Self::Whiteout => return WHITEOUT,
            Self::File { layer, inode } => (KIND_FILE, layer, inode),
            Self::Directory { tree, position } => (KIND_DIRECTORY, tree, position),
            Self::Relinked { tree, position } => (KIND_RELINKED, tree, position),
        };
        kind << KIND_SHIFT | (prefix.0 & PREFIX_MASK) << NUMBER_BITS | u64::from(number) & NUMBER_MASK
    }

    pub(crate) fn unpack(number: u64) -> Option<Self> {
        match number {
            ROOT => return Some(Self::Root),
            WHITEOUT => return Some(Self::Whiteout),
            _ => {}
        }
        let prefix = Prefix(number >> NUMBER_BITS & PREFIX_MASK);
        let low = (number & NUMBER_MASK) as u32;
        match number >> KIND_SHIFT {
            KIND_FILE => Some(Self::File { layer: prefix, inode: low }),
            KIND_DIRECTORY => Some(Self::Directory { tree: prefix, position: low }),
            KIND_RELINKED => Some(Self::Relinked { tree: prefix, position: low }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(seed: [u8; 4], low in 1u32..1 << 24, kind in 0..3) {
            let prefix = Prefix::of_layer(&Digest::of(&seed));
            let number = match kind {
                0 => Number::File { layer: prefix, inode: low },
                1 => Number::Directory { tree: prefix, position: low },
                _ => Number::Relinked { tree: prefix, position: low },
            };
            prop_assert_eq!(Number::unpack(number.pack()), Some(number));
            prop_assert_eq!(Prefix::parse(prefix.to_string().as_bytes()), Some(prefix));
        }
    }

    #[test]
    fn numbers_depend_on_nothing_but_the_content() {
        let layer: Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap();
        let file = Number::File { layer: Prefix::of_layer(&layer), inode: 7 };
        assert_eq!(file.pack(), 0x38ec_3110_a600_0007, "a change here breaks every mount that lives through an upgrade");
        let tree = Prefix::of_tree([layer].iter(), Below::Nothing);
        assert_eq!(Number::Directory { tree, position: 7 }.pack(), 0x977d_b838_9d00_0007);
        assert_ne!(tree, Prefix::of_tree([layer].iter(), Below::Layers), "the trees differ, so must their directories");
        assert_eq!(tree.to_string().len(), 10);
    }

    #[test]
    fn only_names_of_trees_are_read() {
        for name in ["", "012345678", "0123456789a", "012345678G", "012345678A", "+123456789", "ffffffffff", "..", "01234\u{e9}789"] {
            assert_eq!(Prefix::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_unused_kind_is_no_number() {
        assert_eq!(Number::unpack(0b01 << 62), None);
    }
}
