//! Layers as lists of entries, and a strategy that makes awkward ones.

use proptest::prelude::*;
use snap_digest::Digest;
use snap_index::{Attributes, Builder, ChunkPlan, EntryKind, IndexError, LayerIndex, Timestamp};

pub(crate) type Path = Vec<String>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Directory,
    File(u64),
    Symlink(String),
    HardLink(Path),
    Fifo,
    Device,
    Whiteout,
    Opaque,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) path: Path,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    /// Tells inodes apart; every entry of a test has its own.
    pub(crate) uid: u32,
    pub(crate) xattr: Option<String>,
}

/// Names whose order as bytes differs from their order as components of joined paths (`a.b` sorts before `a/b`).
const NAMES: [&str; 7] = ["a", "b", "a.b", "a-", "Z", "é", "wh"];

fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1..5)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => Just(Kind::Directory),
        6 => (0..5000u64).prop_map(Kind::File),
        2 => path().prop_map(|path| Kind::Symlink(path.join("/"))),
        4 => path().prop_map(Kind::HardLink),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Device),
        4 => Just(Kind::Whiteout),
        2 => Just(Kind::Opaque),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let mode = prop::sample::select(&[0o755, 0o4711, 0o1777, 0o600][..]);
    let xattr = prop::option::weighted(0.2, "[a-z]{1,5}");
    (path(), kind(), mode, xattr).prop_map(|(path, kind, mode, xattr)| Entry { path, kind, mode, uid: 0, xattr })
}

/// Up to five layers, the bottom one first.
pub(crate) fn layers() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    prop::collection::vec(prop::collection::vec(entry(), 0..16), 0..6).prop_map(|mut layers| {
        for (number, entry) in layers.iter_mut().flatten().enumerate() {
            entry.uid = number as u32 + 1;
        }
        layers
    })
}

pub(crate) fn mtime(uid: u32) -> Timestamp {
    Timestamp { seconds: 1_000_000_000 + i64::from(uid), nanoseconds: uid * 1000 }
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: 7,
        mtime: mtime(entry.uid),
        xattrs: entry.xattr.iter().map(|value| (b"user.x".to_vec(), value.clone().into_bytes())).collect(),
    }
}

/// The index of a layer with these entries.
pub(crate) fn index(entries: &[Entry]) -> Result<LayerIndex, IndexError> {
    let layer = Digest::of(b"layer");
    let mut builder = Builder::new(layer, 0);
    for entry in entries {
        let mut path = entry.path.join("/");
        let kind = match &entry.kind {
            Kind::Directory => EntryKind::Directory,
            Kind::File(size_bytes) => EntryKind::File { size_bytes: *size_bytes, extents: Vec::new() },
            Kind::Symlink(target) => EntryKind::Symlink { target: target.clone().into_bytes() },
            Kind::HardLink(target) => EntryKind::HardLink { target: target.join("/").into_bytes() },
            Kind::Fifo => EntryKind::Fifo,
            Kind::Device => EntryKind::CharDevice { major: 1, minor: 3 },
            Kind::Whiteout => {
                let (name, parents) = entry.path.split_last().unwrap();
                path = parents.iter().cloned().chain([format!(".wh.{name}")]).collect::<Vec<_>>().join("/");
                EntryKind::File { size_bytes: 0, extents: Vec::new() }
            }
            Kind::Opaque => {
                path.push_str("/.wh..wh..opq");
                EntryKind::File { size_bytes: 0, extents: Vec::new() }
            }
        };
        builder.add(path.as_bytes(), kind, attributes(entry))?;
    }
    let file = builder.finish(ChunkPlan::default(), None)?;
    LayerIndex::open(Box::new(file), &layer)
}
