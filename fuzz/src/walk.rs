//! Asks an index or a tree everything it answers.

use std::collections::HashMap;
use std::sync::Arc;

use snap_index::{DirectoryId, ImageTree, InodeKind, LayerIndex, Node, Target, Whiteouts, dump, read_file};

/// A file's bytes that are read; more than that only costs time.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Lines of a dump that are made; each repeats its path, so a deep tree has long ones.
const LINES_MAX: usize = 1 << 12;

pub(crate) fn walk_index(index: &LayerIndex) {
    for number in 0..index.inode_count() {
        let inode = index.inode(number);
        for dirent in index.entries(&inode) {
            assert_eq!(index.lookup(&inode, dirent.name), Some(dirent.target));
            if let Target::Inode(target) = dirent.target {
                assert!(target < index.inode_count());
            }
        }
        for (name, _) in index.xattrs(&inode) {
            assert!(!name.is_empty());
        }
        let mut end = 0;
        for extent in index.extents(&inode) {
            assert!(extent.file_offset >= end);
            end = extent.file_offset + extent.bytes;
            let chunks = index.chunks_in(extent.data_offset..extent.data_offset + extent.bytes);
            assert!(index.chunk_range(chunks.start).start <= extent.data_offset, "an extent starts in a chunk");
            assert!(index.chunk_range(chunks.end - 1).end >= extent.data_offset + extent.bytes, "an extent ends in a chunk");
        }
        assert!(end <= inode.size_bytes() || inode.kind() != InodeKind::File);
        assert_eq!(inode.kind() == InodeKind::Symlink, !index.symlink_target(&inode).is_empty());
        if inode.size_bytes() <= READ_BYTES_MAX {
            let mut bytes = 0;
            let each = |piece: &[u8]| {
                bytes += piece.len() as u64;
                Ok(())
            };
            read_file(index, &inode, |_, _| Ok(()), each).expect("nothing can fail");
            assert_eq!(bytes, if inode.kind() == InodeKind::File { inode.size_bytes() } else { 0 });
        }
    }
    for number in 0..index.point_count() {
        let point = index.point(number);
        assert!(point.blob_range().end <= index.blob_bytes());
        for chunk in index.chunks_of_point(number) {
            assert_eq!(index.chunk(chunk).point, number);
        }
        let _ = index.window(&point).map(|window| assert!(window.len() <= 32 << 10));
    }
    assert!(dump(index).take(LINES_MAX).all(|(line, _)| !line.name.is_empty()));
}

/// Merges layers both ways: to two sound trees with the same directories and inodes, or to none.
pub(crate) fn walk_trees(layers: &[Arc<LayerIndex>]) {
    let merge = |whiteouts| ImageTree::merge(layers.to_vec(), whiteouts);
    let (applied, shown) = (merge(Whiteouts::Applied), merge(Whiteouts::Shown));
    assert_eq!(applied.is_ok(), shown.is_ok());
    let (Ok(applied), Ok(shown)) = (applied, shown) else { return };
    walk_tree(&applied);
    walk_tree(&shown);
    assert_eq!((applied.directory_count(), applied.relinked_count()), (shown.directory_count(), shown.relinked_count()));
    for directory in (0..applied.directory_count()).map(DirectoryId) {
        assert!(!applied.is_opaque(directory));
        let in_shown = shown.entries(directory, 0).filter(|(_, node)| *node != Node::Whiteout);
        assert!(applied.entries(directory, 0).eq(in_shown), "whiteouts are all that is shown in addition");
    }
}

fn walk_tree(tree: &ImageTree) {
    let mut names: HashMap<Node, u32> = HashMap::new();
    let mut count = 0;
    for number in 0..tree.directory_count() {
        let directory = DirectoryId(number);
        assert!(tree.contains(Node::Directory(directory)));
        let mut last: &[u8] = b"";
        let mut subdirectories = 0;
        for (name, node) in tree.entries(directory, 0) {
            assert!(last < name && tree.contains(node));
            last = name;
            assert_eq!(tree.lookup(directory, name), Some(node));
            match node {
                Node::Directory(inner) => {
                    assert!(tree.parent(inner) == directory && inner != DirectoryId::ROOT);
                    assert!(tree.is_opaque(inner) || !tree.is_opaque(directory));
                    subdirectories += 1;
                }
                Node::Whiteout => assert!(!tree.is_opaque(directory), "a whiteout with nothing to hide"),
                _ => *names.entry(node).or_default() += 1,
            }
            assert!(tree.xattrs(node).all(|(name, _)| !name.starts_with(b"trusted.overlay.")));
            let attributes = tree.attributes(node);
            assert_eq!(attributes.kind == InodeKind::Symlink, !tree.symlink_target(node).is_empty());
            assert_eq!(attributes.kind == InodeKind::Directory, matches!(node, Node::Directory(_)));
            assert!(
                attributes.kind != InodeKind::CharDevice || attributes.rdev != 0 || node == Node::Whiteout,
                "a layer's device is a whiteout"
            );
            count += 1;
        }
        assert_eq!(tree.attributes(Node::Directory(directory)).nlink, 2 + subdirectories);
    }
    assert_eq!(count, tree.name_count());
    for (node, count) in names {
        assert_eq!(tree.attributes(node).nlink, count);
    }
}
