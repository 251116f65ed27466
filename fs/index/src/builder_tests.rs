//! What entries do to each other, as unpacking them one after the other would.

use snap_digest::Digest;

use crate::{Attributes, Builder, ChunkPlan, EntryKind, IndexError, InodeKind, LayerIndex, Target, Timestamp};

const LAYER: Digest = Digest::from_bytes([7; 32]);

fn file(size_bytes: u64) -> EntryKind {
    // A file of holes needs no chunks.
    EntryKind::File { size_bytes, extents: Vec::new() }
}

fn link(target: &str) -> EntryKind {
    EntryKind::HardLink { target: target.into() }
}

fn symlink(target: &str) -> EntryKind {
    EntryKind::Symlink { target: target.into() }
}

fn owned_by(uid: u32) -> Attributes {
    Attributes { mode: 0o700, uid, ..Attributes::default() }
}

/// Builds the layer; the n-th entry is owned by n, counted from 1.
fn try_build(entries: &[(&str, EntryKind)]) -> Result<LayerIndex, IndexError> {
    let mut builder = Builder::new(LAYER, 0);
    for ((path, kind), uid) in entries.iter().zip(1..) {
        builder.add(path.as_bytes(), kind.clone(), owned_by(uid))?;
    }
    LayerIndex::open(Box::new(builder.finish(ChunkPlan::default(), None)?), &LAYER)
}

fn build(entries: &[(&str, EntryKind)]) -> LayerIndex {
    try_build(entries).unwrap()
}

fn target<'a>(index: &'a LayerIndex, path: &str) -> Option<Target<'a>> {
    path.split('/').try_fold(Target::Inode(LayerIndex::ROOT), |at, name| match at {
        Target::Inode(number) => index.lookup(&index.inode(number), name.as_bytes()),
        Target::Whiteout | Target::LowerLink(_) => None,
    })
}

/// The owner of the path's inode, which tells the entry that made it.
fn owner(index: &LayerIndex, path: &str) -> Option<u32> {
    match target(index, path)? {
        Target::Inode(number) => Some(index.inode(number).uid()),
        Target::Whiteout | Target::LowerLink(_) => None,
    }
}

fn is_opaque(index: &LayerIndex, path: &str) -> bool {
    matches!(target(index, path), Some(Target::Inode(number)) if index.inode(number).is_opaque())
}

fn is_implied(index: &LayerIndex, path: &str) -> bool {
    matches!(target(index, path), Some(Target::Inode(number)) if index.inode(number).is_implied())
}

#[test]
fn missing_parents_are_implied_until_they_come() {
    let index = build(&[("a/b/c", file(1)), ("a/b", EntryKind::Directory)]);
    assert!(is_implied(&index, "a") && !is_implied(&index, "a/b"));
    assert_eq!((owner(&index, "a"), owner(&index, "a/b"), owner(&index, "a/b/c")), (Some(0), Some(2), Some(1)));
    let implied = index.inode(LayerIndex::ROOT);
    assert!(implied.is_implied());
    assert_eq!(implied.mode() & 0o7777, 0o755);
}

#[test]
fn the_root_can_be_described_as_a_directory_only() {
    for name in ["./", "/", "", "a/.."] {
        let index = build(&[(name, EntryKind::Directory)]);
        let root = index.inode(LayerIndex::ROOT);
        assert_eq!((root.uid(), root.mode() & 0o7777, root.is_implied()), (1, 0o700, false), "{name:?}");
    }
    assert!(matches!(try_build(&[("./", file(1))]), Err(IndexError::Entry { .. })));
}

#[test]
fn the_last_entry_of_a_name_stays() {
    let index = build(&[("f", file(1)), ("f", file(2)), ("g", symlink("x")), ("./g", EntryKind::Fifo)]);
    assert_eq!((owner(&index, "f"), owner(&index, "g")), (Some(2), Some(4)));
    assert_eq!(index.inode_count(), 3, "what was replaced is not in the index");
}

#[test]
fn a_directory_over_a_directory_changes_its_attributes_only() {
    let index = build(&[("d", EntryKind::Directory), ("d/f", file(1)), ("d/", EntryKind::Directory)]);
    assert_eq!((owner(&index, "d"), owner(&index, "d/f")), (Some(3), Some(2)));
}

#[test]
fn a_file_takes_a_directorys_place_and_back() {
    let before = [("d", EntryKind::Directory), ("d/f", file(1)), ("d", file(2))];
    let index = build(&before);
    assert_eq!((owner(&index, "d"), target(&index, "d/f")), (Some(3), None));
    let index = build(&[&before[..], &[("d", EntryKind::Directory), ("d/g", file(3))]].concat());
    assert_eq!((owner(&index, "d"), owner(&index, "d/f"), owner(&index, "d/g")), (Some(4), None, Some(5)));
    // The file between them has hidden what lower layers have in the directory.
    assert!(is_opaque(&index, "d"));
}

#[test]
fn nothing_can_be_in_what_is_no_directory() {
    for kind in [file(1), EntryKind::Fifo, link("elsewhere")] {
        assert!(matches!(try_build(&[("f", kind), ("f/g", file(1))]), Err(IndexError::Path { .. })));
    }
}

#[test]
fn hard_links_share_the_inode_in_both_orders() {
    for entries in [
        [("a", file(1)), ("b", link("a")), ("c", link("./b"))],
        [("b", link("a")), ("c", link("/a")), ("a", file(1))],
        [("d/b", link("a")), ("a", file(1)), ("c", link("d/../a"))],
    ] {
        let index = build(&entries);
        let numbers: Vec<_> = entries.iter().map(|(path, _)| target(&index, path).unwrap()).collect();
        assert!(numbers.iter().all(|target| matches!(target, Target::Inode(_)) && *target == numbers[0]), "{entries:?}");
        let Target::Inode(number) = numbers[0] else { unreachable!() };
        assert_eq!(index.inode(number).nlink(), 3);
    }
}

#[test]
fn a_hard_link_keeps_what_its_name_is_taken_from() {
    let index = build(&[("a", file(1)), ("b", link("a")), ("a", file(2))]);
    assert_eq!((owner(&index, "a"), owner(&index, "b")), (Some(3), Some(1)));
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_another_name_of_it() {
    let index = build(&[("s", symlink("nowhere")), ("h", link("s"))]);
    assert_eq!(target(&index, "s"), target(&index, "h"));
}

#[test]
fn a_hard_link_without_a_target_is_one_to_a_lower_layer() {
    let index = build(&[("a", link("/usr//bin/../lib/x")), ("b", link("gone")), ("b", file(1))]);
    assert_eq!(target(&index, "a"), Some(Target::LowerLink(b"usr/lib/x")));
    assert_eq!(owner(&index, "b"), Some(3), "a later entry replaces a link that waits");
}

#[test]
fn a_hard_link_finds_its_target_through_symbolic_links() {
    for entries in [
        [("usr/lib/f", file(1)), ("lib", symlink("usr/lib")), ("h", link("lib/f"))],
        [("lib", symlink("/usr/lib")), ("h", link("lib/f")), ("usr/lib/f", file(1))],
    ] {
        let index = build(&entries);
        assert_eq!(target(&index, "h"), target(&index, "usr/lib/f"), "{entries:?}");
    }
}

#[test]
fn hard_links_to_directories_are_refused() {
    assert!(matches!(try_build(&[("d", EntryKind::Directory), ("h", link("d"))]), Err(IndexError::Entry { .. })));
    assert!(matches!(try_build(&[("h", link("d")), ("d", EntryKind::Directory)]), Err(IndexError::Entry { .. })));
    assert!(matches!(try_build(&[("h", link("/"))]), Err(IndexError::Entry { .. })));
}

#[test]
fn parents_that_are_symbolic_links_are_followed_inside_the_root() {
    let index = build(&[
        ("usr/lib", EntryKind::Directory),
        ("lib", symlink("usr/lib")),
        ("lib/a", file(1)),
        ("abs", symlink("/usr")),
        ("abs/lib/b", file(1)),
        ("usr/up", symlink("../../../../usr/lib/.")),
        ("usr/up/c", file(1)),
        ("to-nothing", symlink("made/here")),
        ("to-nothing/d", file(1)),
    ]);
    for (path, uid) in [("usr/lib/a", 3), ("usr/lib/b", 5), ("usr/lib/c", 7), ("made/here/d", 9)] {
        assert_eq!(owner(&index, path), Some(uid), "{path}");
    }
    assert_eq!(index.symlink_target(&inode(&index, "lib")), b"usr/lib", "the link itself stays");
}

fn inode(index: &LayerIndex, path: &str) -> crate::Inode {
    match target(index, path) {
        Some(Target::Inode(number)) => index.inode(number),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn symbolic_links_in_a_circle_are_refused() {
    let circle = [("a", symlink("b")), ("b", symlink("a")), ("a/f", file(1))];
    assert!(matches!(try_build(&circle), Err(IndexError::Path { .. })));
    assert!(matches!(try_build(&[("a", symlink("a/a/a")), ("a/f", file(1))]), Err(IndexError::Path { .. })));
}

#[test]
fn a_symbolic_link_as_the_last_component_is_replaced() {
    let index = build(&[("usr/lib", EntryKind::Directory), ("lib", symlink("usr/lib")), ("lib", EntryKind::Directory)]);
    assert_eq!((inode(&index, "lib").kind(), owner(&index, "lib")), (InodeKind::Directory, Some(3)));
}

#[test]
fn whiteouts_hide_lower_names_and_not_this_layers() {
    let index = build(&[("d/.wh.gone", file(0)), ("f", file(1)), (".wh.f", file(0)), (".wh.g", file(0)), ("g", file(1))]);
    assert_eq!(target(&index, "d/gone"), Some(Target::Whiteout));
    assert_eq!((owner(&index, "f"), owner(&index, "g")), (Some(2), Some(5)));
    assert!(is_implied(&index, "d") && !is_opaque(&index, "d"));
    let device = EntryKind::CharDevice { major: 0, minor: 0 };
    assert_eq!(target(&build(&[("n", device)]), "n"), Some(Target::Whiteout));
}

#[test]
fn a_whiteout_of_a_directory_of_this_layer_makes_it_opaque_in_both_orders() {
    for entries in [
        [(".wh.d", file(0)), ("d", EntryKind::Directory), ("d/f", file(1))],
        [("d", EntryKind::Directory), ("d/f", file(1)), (".wh.d", file(0))],
        [(".wh.d", file(0)), ("d/f", file(1)), ("d", EntryKind::Directory)],
    ] {
        let index = build(&entries);
        assert!(is_opaque(&index, "d") && owner(&index, "d/f").is_some(), "{entries:?}");
    }
}

#[test]
fn opaque_markers_mark_their_directory() {
    let index = build(&[("d/.wh..wh..opq", file(0)), ("d/f", file(1)), (".wh..wh..opq", file(0))]);
    assert!(is_opaque(&index, "d") && owner(&index, "d/f").is_some());
    assert!(index.inode(LayerIndex::ROOT).is_opaque());
    let names: Vec<_> = index.entries(&inode(&index, "d")).map(|entry| entry.name.to_vec()).collect();
    assert_eq!(names, [b"f"]);
}

#[test]
fn what_aufs_kept_for_itself_is_nothing_and_whiteouts_name_something() {
    let index = build(&[(".wh..wh.plnk", EntryKind::Directory), (".wh..wh.aufs", file(0))]);
    assert_eq!(index.entries(&index.inode(LayerIndex::ROOT)).len(), 0);
    for name in [".wh.", "d/.wh..", ".wh..."] {
        assert!(matches!(try_build(&[(name, file(0))]), Err(IndexError::Path { .. })), "{name}");
    }
}

#[test]
fn attributes_and_xattrs_are_kept() {
    let mut builder = Builder::new(LAYER, 0);
    let attributes = Attributes {
        mode: 0o104_755,
        uid: u32::MAX,
        gid: 5,
        mtime: Timestamp { seconds: -3, nanoseconds: 999_999_999 },
        xattrs: vec![(b"user.b".to_vec(), b"1".to_vec()), (b"user.a".to_vec(), vec![0, 255]), (b"user.b".to_vec(), b"2".to_vec())],
    };
    builder.add(b"f", file(9), attributes).unwrap();
    let index = LayerIndex::open(Box::new(builder.finish(ChunkPlan::default(), None).unwrap()), &LAYER).unwrap();
    let file = inode(&index, "f");
    assert_eq!((file.mode(), file.uid(), file.gid(), file.size_bytes()), (0o104_755, u32::MAX, 5, 9));
    assert_eq!(file.mtime(), Timestamp { seconds: -3, nanoseconds: 999_999_999 });
    let xattrs: Vec<_> = index.xattrs(&file).collect();
    assert_eq!(xattrs, [(&b"user.a"[..], &[0, 255][..]), (b"user.b", b"2")], "sorted, and the last of a name");
}

#[test]
fn impossible_entries_are_refused() {
    let mut builder = Builder::new(LAYER, 0);
    let mut add = |path: &[u8], kind: EntryKind, attributes: Attributes| builder.add(path, kind, attributes).is_err();
    let with_xattr = |name: &[u8], bytes| Attributes { xattrs: vec![(name.to_vec(), vec![0; bytes])], ..Attributes::default() };
    assert!(add(b"a\0b", file(0), Attributes::default()));
    assert!(add(&[b'n'; 256], file(0), Attributes::default()));
    assert!(add(b"f", file(u64::MAX), Attributes::default()));
    assert!(add(b"s", symlink(""), Attributes::default()));
    assert!(add(b"s", symlink("a\0b"), Attributes::default()));
    assert!(add(b"c", EntryKind::CharDevice { major: 1 << 12, minor: 0 }, Attributes::default()));
    assert!(add(b"b", EntryKind::BlockDevice { major: 0, minor: 1 << 20 }, Attributes::default()));
    assert!(add(b"f", file(0), with_xattr(b"", 1)));
    assert!(add(b"f", file(0), with_xattr(&[b'n'; 256], 1)));
    assert!(add(b"f", file(0), with_xattr(b"user.x", 65_537)));
    let late = Timestamp { seconds: 0, nanoseconds: 1_000_000_000 };
    assert!(add(b"f", file(0), Attributes { mtime: late, ..Attributes::default() }));
}
