//! The merged tree against the kernel's overlayfs: generated layers are unpacked into directories and mounted. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use snap_index::{DirectoryId, ImageTree, InodeKind, LayerIndex, Node, Whiteouts};

use support::layers::{Entry, Kind, Path, index, layers, mtime};
use support::model::{Layer, Unpacked, one_layer, unpack};

const OPAQUE: &str = "trusted.overlay.opaque";

fn at(root: &FsPath, path: &Path) -> PathBuf {
    path.iter().fold(root.to_owned(), |at, name| at.join(name))
}

/// Writes a layer into the empty directory `root`. `lower` holds the layers below, the topmost first.
fn unpack_to(root: &FsPath, layer: &Layer, lower: &[PathBuf]) {
    let mut made: Vec<(&Entry, PathBuf)> = Vec::new();
    for (path, node) in layer {
        let here = at(root, path);
        match node {
            Unpacked::Whiteout => device(&here, 0, 0),
            Unpacked::Directory { .. } => fs::create_dir(&here).unwrap(),
            Unpacked::File(entry) => match made.iter().find(|(other, _)| *other == entry) {
                Some((_, first)) => fs::hard_link(first, &here).unwrap(),
                None => {
                    make(&here, entry);
                    made.push((entry, here));
                }
            },
            Unpacked::LowerLink(_) => unreachable!("no directory can hold it"),
        }
    }
    // Innermost first: making an entry changes the time of its directory.
    for (path, node) in layer.iter().rev() {
        let Unpacked::Directory { entry, opaque } = node else { continue };
        let here = at(root, path);
        match entry {
            Some(entry) => describe(&here, entry),
            None => {
                if let Some(source) = described_below(layer, path, lower) {
                    copy_description(&source, &here);
                } else {
                    set_mtime(&here, 0, 0);
                }
            }
        }
        if *opaque {
            rustix::fs::lsetxattr(&here, OPAQUE, b"y", XattrFlags::empty()).unwrap();
        }
    }
}

/// The lower directory whose attributes an implied directory takes when it is unpacked.
fn described_below(layer: &Layer, path: &Path, lower: &[PathBuf]) -> Option<PathBuf> {
    let ancestors = 1..path.len();
    if ancestors.clone().any(|count| matches!(layer[&path[..count].to_vec()], Unpacked::Directory { opaque: true, .. })) {
        return None;
    }
    for root in lower {
        let mut hides = false;
        for count in 1..=path.len() {
            let here = at(root, &path[..count].to_vec());
            let Ok(found) = fs::symlink_metadata(&here) else { break };
            if !found.is_dir() {
                return None;
            }
            if count == path.len() {
                return Some(here);
            }
            hides |= rustix::fs::lgetxattr(&here, OPAQUE, &mut [0u8; 8][..]).is_ok();
        }
        if hides {
            return None;
        }
    }
    None
}

fn make(here: &FsPath, entry: &Entry) {
    match &entry.kind {
        Kind::File(size) => fs::File::create(here).unwrap().set_len(*size).unwrap(),
        Kind::Symlink(target) => symlink(target, here).unwrap(),
        Kind::Fifo => rustix::fs::mknodat(CWD, here, FileType::Fifo, Mode::empty(), 0).unwrap(),
        Kind::Device => device(here, 1, 3),
        other => unreachable!("{other:?} is no file"),
    }
    describe(here, entry);
}

fn device(here: &FsPath, major: u32, minor: u32) {
    rustix::fs::mknodat(CWD, here, FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(major, minor)).unwrap();
}

fn describe(here: &FsPath, entry: &Entry) {
    lchown(here, Some(entry.uid), Some(7)).unwrap();
    if !matches!(entry.kind, Kind::Symlink(_)) {
        fs::set_permissions(here, fs::Permissions::from_mode(entry.mode)).unwrap();
    }
    if let (Some(value), Kind::Directory | Kind::File(_)) = (&entry.xattr, &entry.kind) {
        rustix::fs::lsetxattr(here, "user.x", value.as_bytes(), XattrFlags::empty()).unwrap();
    }
    let time = mtime(entry.uid);
    set_mtime(here, time.seconds, i64::from(time.nanoseconds));
}

fn copy_description(from: &FsPath, to: &FsPath) {
    let found = fs::symlink_metadata(from).unwrap();
    lchown(to, Some(found.uid()), Some(found.gid())).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777)).unwrap();
    if let Some(value) = user_xattr(from) {
        rustix::fs::lsetxattr(to, "user.x", &value, XattrFlags::empty()).unwrap();
    }
    set_mtime(to, found.mtime(), found.mtime_nsec());
}

fn set_mtime(here: &FsPath, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    rustix::fs::utimensat(CWD, here, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn user_xattr(here: &FsPath) -> Option<Vec<u8>> {
    let mut value = [0u8; 64];
    let bytes = rustix::fs::lgetxattr(here, "user.x", &mut value[..]).ok()?;
    Some(value[..bytes].to_vec())
}

/// What is compared: type, permissions, owner, group, size, time, device, link target, attribute. Directories have no common size.
#[derive(Debug, PartialEq)]
struct Seen {
    kind: InodeKind,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: (i64, i64),
    rdev: u64,
    target: Vec<u8>,
    xattr: Option<Vec<u8>>,
}

impl Seen {
    /// Leaves what it is.
    fn forget_attributes(&mut self) {
        (self.mode, self.owner, self.mtime, self.xattr) = (0, (0, 0), (0, 0), None);
    }
}

fn seen_in_mount(root: &FsPath, path: &Path, into: &mut BTreeMap<Path, Seen>) {
    for entry in fs::read_dir(at(root, path)).unwrap() {
        let entry = entry.unwrap();
        let here = entry.path();
        // Where a directory is one layer's alone the kernel lists its whiteouts, and then does not find them.
        let Ok(found) = fs::symlink_metadata(&here) else { continue };
        let kind = match found.file_type() {
            kind if kind.is_dir() => InodeKind::Directory,
            kind if kind.is_symlink() => InodeKind::Symlink,
            kind if kind.is_fifo() => InodeKind::Fifo,
            kind if kind.is_char_device() => InodeKind::CharDevice,
            _ => InodeKind::File,
        };
        let target = fs::read_link(&here).map(|target| target.as_os_str().as_bytes().to_vec()).unwrap_or_default();
        let mut path = path.clone();
        path.push(entry.file_name().into_string().unwrap());
        if kind == InodeKind::Directory {
            seen_in_mount(root, &path, into);
        }
        let seen = Seen {
            kind,
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            size: if kind == InodeKind::Directory { 0 } else { found.size() },
            mtime: (found.mtime(), found.mtime_nsec()),
            rdev: found.rdev(),
            target,
            xattr: if matches!(kind, InodeKind::Directory | InodeKind::File) { user_xattr(&here) } else { None },
        };
        into.insert(path, seen);
    }
}

fn seen_in_tree(tree: &ImageTree, directory: DirectoryId, path: &Path, into: &mut BTreeMap<Path, Seen>) {
    for (name, node) in tree.entries(directory, 0) {
        let mut path = path.clone();
        path.push(String::from_utf8(name.to_vec()).unwrap());
        if let Node::Directory(inner) = node {
            seen_in_tree(tree, inner, &path, into);
        }
        let found = tree.attributes(node);
        let has_xattr = matches!(found.kind, InodeKind::Directory | InodeKind::File);
        let seen = Seen {
            kind: found.kind,
            mode: found.mode,
            owner: (found.uid, found.gid),
            size: if found.kind == InodeKind::Directory { 0 } else { found.size_bytes },
            mtime: (found.mtime.seconds, i64::from(found.mtime.nanoseconds)),
            rdev: u64::from(found.rdev),
            target: tree.symlink_target(node).to_vec(),
            xattr: tree.xattrs(node).find(|(name, _)| has_xattr && *name == b"user.x").map(|(_, value)| value.to_vec()),
        };
        into.insert(path, seen);
    }
}

/// A mount that goes when the test does.
struct Mounted(PathBuf);

impl Mounted {
    /// `lower`: the topmost first.
    fn overlay(lower: &[PathBuf], target: PathBuf) -> Self {
        let lower: Vec<_> = lower.iter().map(|lower| lower.to_str().unwrap()).collect();
        let options = CString::new(format!("lowerdir={}", lower.join(":"))).unwrap();
        rustix::mount::mount("overlay", &target, "overlay", rustix::mount::MountFlags::RDONLY, Some(options.as_c_str())).unwrap();
        Self(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Layers, and the directories that they are unpacked into.
struct Unpacking {
    folder: tempfile::TempDir,
    /// The bottom one first.
    indexes: Vec<Arc<LayerIndex>>,
    /// The topmost first. The last two are empty: overlayfs wants two lower directories at least.
    lower: Vec<PathBuf>,
}

impl Unpacking {
    fn new(layers: &[Vec<Entry>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lower: Vec<PathBuf> = ["empty-0", "empty-1"].iter().map(|name| folder.path().join(name)).collect();
        lower.iter().for_each(|empty| fs::create_dir(empty).unwrap());
        let mut unpacking = Self { folder, indexes: Vec::new(), lower };
        for entries in layers {
            let (Some(mut layer), mut entries) = unpack(entries) else { continue };
            if layer.values().any(|node| matches!(node, Unpacked::LowerLink(_))) {
                entries.retain(|entry| !matches!(entry.kind, Kind::HardLink(_)));
                (layer, entries) = match unpack(&entries) {
                    (Some(layer), entries) => (layer, entries),
                    (None, _) => unreachable!("there are no hard links left"),
                };
            }
            let root = unpacking.folder(&unpacking.indexes.len().to_string());
            unpack_to(&root, &layer, &unpacking.lower);
            unpacking.indexes.push(Arc::new(index(&entries).unwrap()));
            unpacking.lower.insert(0, root);
        }
        unpacking
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// What overlayfs shows of these directories, the topmost first.
    fn seen(&self, lower: &[PathBuf], name: &str) -> BTreeMap<Path, Seen> {
        let mounted = Mounted::overlay(lower, self.folder(name));
        let mut seen = BTreeMap::new();
        seen_in_mount(&mounted.0, &Path::new(), &mut seen);
        seen
    }
}

fn compare(layers: &[Vec<Entry>]) {
    let unpacking = Unpacking::new(layers);
    let kernel = unpacking.seen(&unpacking.lower, "mount");
    let tree = ImageTree::merge(unpacking.indexes, Whiteouts::Applied).unwrap();
    let mut ours = BTreeMap::new();
    seen_in_tree(&tree, DirectoryId::ROOT, &Path::new(), &mut ours);
    assert_eq!(ours, kernel);
}

/// Compares the layers above the `below` lowest, merged into one directory, with those layers in directories of their own.
fn compare_run(layers: &[Vec<Entry>], below: usize) {
    let unpacking = Unpacking::new(layers);
    let count = unpacking.indexes.len();
    let below = below.min(count);
    let lower = &unpacking.lower[count - below..];
    let tree = ImageTree::merge(unpacking.indexes[below..].to_vec(), Whiteouts::Shown).unwrap();
    let run = one_layer(&tree, layers);
    let root = unpacking.folder("run");
    unpack_to(&root, &run, lower);
    let mut merged = unpacking.seen(&[&[root], lower].concat(), "merged");
    let mut apart = unpacking.seen(&unpacking.lower, "apart");
    for (path, node) in &run {
        // What an implied directory is like is not the run's to say.
        if matches!(node, Unpacked::Directory { entry: None, .. }) {
            merged.get_mut(path).unwrap().forget_attributes();
            apart.get_mut(path).unwrap().forget_attributes();
        }
    }
    assert_eq!(merged, apart);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_what_overlayfs_shows(layers in layers()) {
        assert!(rustix::process::geteuid().is_root(), "this test mounts overlayfs and makes devices; run it as root");
        compare(&layers);
    }

    #[test]
    fn a_tree_with_its_whiteouts_is_to_overlayfs_what_its_layers_are(layers in layers(), below in 1..4usize) {
        assert!(rustix::process::geteuid().is_root(), "this test mounts overlayfs and makes devices; run it as root");
        compare_run(&layers, below);
    }
}
