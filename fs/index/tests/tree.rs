//! The merged tree's rules, one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snap_digest::Digest;
use snap_index::{
    Attributes, Builder, ChunkPlan, DirectoryId, EntryKind, FileId, ImageTree, IndexError, InodeKind, LayerIndex, Node, NodeAttributes,
    Timestamp, Whiteouts, limits,
};

/// A layer of `path kind` lines: `d` and the mode, `f` and the size, `l` and a symbolic link's target, `h` and a hard link's.
fn layer(entries: &[&str]) -> Arc<LayerIndex> {
    let layer = Digest::of(b"");
    let mut builder = Builder::new(layer, 0);
    for entry in entries {
        let mut words = entry.split(' ');
        let (path, kind, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        let mut attributes = Attributes { mode: 0o644, ..Attributes::default() };
        let kind = match kind {
            "d" => {
                attributes.mode = u32::from_str_radix(value, 8).unwrap();
                EntryKind::Directory
            }
            "f" => EntryKind::File { size_bytes: value.parse().unwrap_or(0), extents: Vec::new() },
            "l" => EntryKind::Symlink { target: value.into() },
            "h" => EntryKind::HardLink { target: value.into() },
            other => panic!("{other:?} is no kind"),
        };
        builder.add(path.as_bytes(), kind, attributes).unwrap();
    }
    Arc::new(LayerIndex::open(Box::new(builder.finish(ChunkPlan::default(), None).unwrap()), &layer).unwrap())
}

fn tree(layers: &[&[&str]]) -> ImageTree {
    merged(layers, Whiteouts::Applied)
}

fn merged(layers: &[&[&str]], whiteouts: Whiteouts) -> ImageTree {
    ImageTree::merge(layers.iter().map(|entries| layer(entries)).collect(), whiteouts).unwrap()
}

fn is_opaque(tree: &ImageTree, path: &str) -> bool {
    match find(tree, path) {
        Some(Node::Directory(directory)) => tree.is_opaque(directory),
        other => panic!("{path} is {other:?}, no directory"),
    }
}

fn find(tree: &ImageTree, path: &str) -> Option<Node> {
    path.split('/').try_fold(Node::Directory(DirectoryId::ROOT), |node, name| match node {
        Node::Directory(directory) => tree.lookup(directory, name.as_bytes()),
        _ => None,
    })
}

fn attributes(tree: &ImageTree, path: &str) -> NodeAttributes {
    tree.attributes(find(tree, path).unwrap_or_else(|| panic!("{path} is not there")))
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    let tree = tree(&[]);
    let root = Node::Directory(DirectoryId::ROOT);
    assert_eq!((tree.directory_count(), tree.name_count()), (1, 0));
    assert_eq!((tree.attributes(root).mode, tree.attributes(root).nlink), (0o040_755, 2));
    assert!(tree.contains(root) && tree.entries(DirectoryId::ROOT, 0).next().is_none());
}

#[test]
fn an_implied_directory_replaces_a_symbolic_link_and_a_file_below() {
    let tree = tree(&[&["usr/lib/a f 1", "lib l usr/lib", "file f 2"], &["lib/x f 3", "file/x f 4"]]);
    assert_eq!(attributes(&tree, "lib").kind, InodeKind::Directory);
    assert_eq!((attributes(&tree, "lib/x").size_bytes, attributes(&tree, "file/x").size_bytes), (3, 4));
    assert_eq!(find(&tree, "usr/lib/x"), None);
    assert!(find(&tree, "usr/lib/a").is_some());
}

#[test]
fn an_implied_directory_keeps_the_attributes_below_also_where_it_is_opaque() {
    let tree = tree(&[&["a d 700", "a/old f", "b d 711", "b/old f"], &["a/x f", "b/.wh..wh..opq f"]]);
    assert_eq!((attributes(&tree, "a").mode, attributes(&tree, "b").mode), (0o040_700, 0o040_711));
    assert!(find(&tree, "a/old").is_some() && find(&tree, "b/old").is_none());
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    let tree = tree(&[&["a f", "d/x f"], &["b f"], &[".wh..wh..opq f", "c f"], &["d/y f"]]);
    let names: Vec<_> = tree.entries(DirectoryId::ROOT, 0).map(|(name, _)| name.to_vec()).collect();
    assert_eq!(names, [b"c", b"d"]);
    assert_eq!(tree.entries(DirectoryId::ROOT, 1).len(), 1);
    assert_eq!(tree.entries(DirectoryId::ROOT, 9).len(), 0);
    assert_eq!(find(&tree, "d/x"), None);
}

#[test]
fn a_file_between_two_directories_parts_them() {
    let tree = tree(&[&["a/low f", "b/low f"], &["a f", ".wh.b f"], &["a/high f", "b/high f"]]);
    for path in ["a", "b"] {
        assert!(find(&tree, &format!("{path}/high")).is_some());
        assert_eq!(find(&tree, &format!("{path}/low")), None);
    }
}

#[test]
fn a_hard_link_to_a_lower_layer_is_one_more_name() {
    let tree = tree(&[&["d/a f 5"], &["d/b h d/a"], &["c h d/b", ".wh.d f"]]);
    let node = find(&tree, "c").unwrap();
    assert_eq!(node, Node::File(FileId { layer: 0, inode: tree.file(node).unwrap().inode }), "one name there, one name here");
    let tree = self::tree(&[&["d/a f 5"], &["d/b h d/a"], &["c h d/b"]]);
    let node = find(&tree, "c").unwrap();
    assert_eq!(node, Node::Relinked(0));
    assert_eq!((find(&tree, "d/a"), find(&tree, "d/b")), (Some(node), Some(node)));
    assert_eq!((tree.attributes(node).nlink, tree.attributes(node).size_bytes, tree.relinked_count()), (3, 5, 1));
}

#[test]
fn an_inode_that_lost_a_name_says_so() {
    let tree = tree(&[&["a f 5", "b h a", "c h a"], &[".wh.b f"]]);
    assert_eq!(find(&tree, "a"), Some(Node::Relinked(0)));
    assert_eq!((attributes(&tree, "c").nlink, find(&tree, "b")), (2, None));
}

#[test]
fn a_hard_link_to_nothing_or_a_directory_is_refused_by_name() {
    let refusal = |lower: &[&str]| match ImageTree::merge(vec![layer(lower), layer(&["x h some/where"])], Whiteouts::Shown) {
        Err(IndexError::Entry { path, why }) => (path, why),
        other => panic!("{:?}", other.map(|_| ())),
    };
    for (lower, why) in [
        (&["other f"][..], "no lower layer has it"),
        (&["some f"], "no lower layer has it"),
        (&["some/.wh.where f"], "no lower layer has it"),
        (&["some/where h x"], "no lower layer has it"),
        (&["some/where d 755"], "a directory"),
    ] {
        let (path, refused) = refusal(lower);
        assert!((path.as_str(), refused.contains(why)) == ("some/where", true), "{path}: {refused}");
    }
}

#[test]
fn overlayfs_own_attributes_are_not_shown() {
    let digest = Digest::of(b"");
    let mut builder = Builder::new(digest, 0);
    let names = ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "user.overlay", "user.x"];
    let xattrs = names.map(|name| (name.as_bytes().to_vec(), b"y".to_vec())).to_vec();
    builder.add(b"a", EntryKind::Directory, Attributes { xattrs, ..Attributes::default() }).unwrap();
    let index = LayerIndex::open(Box::new(builder.finish(ChunkPlan::default(), None).unwrap()), &digest).unwrap();
    let tree = ImageTree::merge(vec![Arc::new(index)], Whiteouts::Applied).unwrap();
    let shown: Vec<_> = tree.xattrs(find(&tree, "a").unwrap()).map(|(name, _)| name).collect();
    assert_eq!(shown, [&b"user.overlay"[..], b"user.x"]);
    assert!(!tree.is_without_xattrs());
}

#[test]
fn a_whiteout_is_shown_whatever_it_hides_and_unless_a_layer_above_has_the_name() {
    let layers: &[&[&str]] = &[&["d/a f 1", ".wh.b f", ".wh.c f"], &["d/.wh.a f", "d/.wh.z f", "b f 2", ".wh.d2 f"]];
    let tree = merged(layers, Whiteouts::Shown);
    for path in ["d/a", "d/z", "c", "d2"] {
        assert_eq!(find(&tree, path), Some(Node::Whiteout), "{path}");
    }
    assert_eq!(attributes(&tree, "b").size_bytes, 2);
    assert!(!is_opaque(&tree, "d") && !tree.is_opaque(DirectoryId::ROOT));
    let names: Vec<_> = tree.entries(DirectoryId::ROOT, 0).map(|(name, _)| name).collect();
    assert_eq!(names, [&b"b"[..], b"c", b"d", b"d2"]);
    assert_eq!(self::tree(layers).name_count(), 2);
}

#[test]
fn a_shown_whiteout_is_the_character_device_that_overlayfs_knows() {
    let tree = merged(&[&[".wh.a f"]], Whiteouts::Shown);
    let expected = NodeAttributes {
        kind: InodeKind::CharDevice,
        mode: 0o020_000,
        uid: 0,
        gid: 0,
        size_bytes: 0,
        mtime: Timestamp::default(),
        rdev: 0,
        nlink: 1,
    };
    assert_eq!(attributes(&tree, "a"), expected);
    assert!(tree.contains(Node::Whiteout) && tree.file(Node::Whiteout).is_none() && tree.inode(Node::Whiteout).is_none());
    assert_eq!((tree.xattrs(Node::Whiteout).count(), tree.symlink_target(Node::Whiteout)), (0, &b""[..]));
}

#[test]
fn a_directory_is_opaque_where_a_layer_says_so_or_had_something_else_there() {
    let layers: &[&[&str]] = &[
        &["marked/old f", "file f", "link l marked", "whiteout/old f", "joined/old f", "late/.wh..wh..opq f"],
        &["marked/.wh..wh..opq f", ".wh.whiteout f", "late f"],
        &["marked/new f", "file/new f", "link/new f", "whiteout/new f", "joined/new f", "late/new f"],
    ];
    let shown = merged(layers, Whiteouts::Shown);
    let applied = tree(layers);
    for (path, expected) in [("marked", true), ("file", true), ("link", true), ("whiteout", true), ("late", true), ("joined", false)] {
        assert_eq!((is_opaque(&shown, path), is_opaque(&applied, path)), (expected, false), "{path}");
    }
    assert_eq!(find(&shown, "marked/old"), None);
}

#[test]
fn nothing_in_an_opaque_directory_shows_a_whiteout() {
    let tree = merged(&[&["d/.wh..wh..opq f", "d/a f", "d/inner/b f"], &["d/.wh.a f", "d/inner/.wh.b f"]], Whiteouts::Shown);
    assert!(is_opaque(&tree, "d") && is_opaque(&tree, "d/inner"));
    assert_eq!((find(&tree, "d/a"), find(&tree, "d/inner/b")), (None, None));
}

#[test]
fn the_root_can_be_opaque() {
    let tree = merged(&[&["a f"], &[".wh..wh..opq f", ".wh.b f", "d/c f"]], Whiteouts::Shown);
    assert!(tree.is_opaque(DirectoryId::ROOT) && is_opaque(&tree, "d"));
    assert_eq!((find(&tree, "a"), find(&tree, "b")), (None, None));
}

#[test]
fn too_many_layers_are_refused() {
    let one = layer(&["a f"]);
    assert!(ImageTree::merge(vec![one.clone(); limits::LAYERS_MAX], Whiteouts::Applied).is_ok());
    assert!(matches!(ImageTree::merge(vec![one; limits::LAYERS_MAX + 1], Whiteouts::Applied), Err(IndexError::Limit { .. })));
}

#[test]
fn the_deepest_path_costs_no_stack() {
    let path = vec!["d"; limits::PATH_COMPONENTS_MAX].join("/");
    let tree = tree(&[&[&format!("{path} f 1")], &[&format!("{path} f 2")]]);
    assert_eq!(attributes(&tree, &path).size_bytes, 2);
    assert_eq!(tree.directory_count() as usize, limits::PATH_COMPONENTS_MAX);
}

#[test]
fn numbers_from_outside_are_answered_harmlessly() {
    let tree = tree(&[&["a f"]]);
    let root_of_layer = Node::File(FileId { layer: 0, inode: LayerIndex::ROOT });
    let unknown =
        [Node::Directory(DirectoryId(9)), Node::Relinked(0), Node::File(FileId { layer: 3, inode: 0 }), root_of_layer, Node::Whiteout];
    for node in unknown {
        assert!(!tree.contains(node));
        let _ = (tree.attributes(node), tree.xattrs(node).count(), tree.symlink_target(node));
    }
    assert_eq!((tree.lookup(DirectoryId(9), b"a"), tree.parent(DirectoryId(9))), (None, DirectoryId::ROOT));
    assert!(!tree.is_opaque(DirectoryId(9)));
}
