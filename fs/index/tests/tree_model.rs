//! The merged tree against the reference model, with generated layers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use snap_index::{DIRECTORY_SIZE_BYTES, DirectoryId, ImageTree, InodeKind, LayerIndex, Node, Timestamp, Whiteouts};

use support::layers::{Entry, Kind, Path, index, layers, mtime};
use support::model::{Image, Layer, Stacked, Unpacked, one_layer, stack, unpack};

/// Every name of a tree below the root, by path.
fn walk(tree: &ImageTree) -> BTreeMap<Path, Node> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![(DirectoryId::ROOT, Path::new())];
    let mut directories = 0;
    while let Some((directory, path)) = ahead.pop() {
        directories += 1;
        let mut last: &[u8] = b"";
        for (number, (name, node)) in tree.entries(directory, 0).enumerate() {
            assert!(last < name, "names ascend");
            last = name;
            assert!(tree.contains(node));
            assert_eq!(tree.lookup(directory, name), Some(node));
            assert_eq!(tree.entries(directory, number).next(), Some((name, node)));
            let mut path = path.clone();
            path.push(String::from_utf8(name.to_vec()).unwrap());
            if let Node::Directory(inner) = node {
                assert_eq!(tree.parent(inner), directory);
                ahead.push((inner, path.clone()));
            }
            assert!(found.insert(path, node).is_none());
        }
        assert_eq!(tree.lookup(directory, b"none"), None);
    }
    assert_eq!(directories, tree.directory_count());
    assert_eq!(found.len() as u32, tree.name_count());
    found
}

fn check_file(tree: &ImageTree, node: Node, entry: &Entry, names: usize) {
    let attributes = tree.attributes(node);
    let (kind, size) = match &entry.kind {
        Kind::File(size) => (InodeKind::File, *size),
        Kind::Symlink(target) => (InodeKind::Symlink, target.len() as u64),
        Kind::Fifo => (InodeKind::Fifo, 0),
        Kind::Device => (InodeKind::CharDevice, 0),
        other => panic!("{other:?} is no file"),
    };
    let mode = if kind == InodeKind::Symlink { 0o777 } else { entry.mode };
    assert_eq!((attributes.kind, attributes.mode & 0o7777, attributes.size_bytes), (kind, mode, size));
    assert_eq!((attributes.uid, attributes.gid, attributes.mtime), (entry.uid, 7, mtime(entry.uid)));
    assert_eq!(attributes.nlink as usize, names);
    let file = tree.file(node).unwrap();
    let in_layer = tree.layers()[usize::from(file.layer)].inode(file.inode).nlink() as usize;
    assert_eq!(matches!(node, Node::File(_)), in_layer == names, "a node is shared if and only if its names are its layer's");
    if let Kind::Symlink(target) = &entry.kind {
        assert_eq!(tree.symlink_target(node), target.as_bytes());
    }
    check_xattrs(tree, node, entry);
}

fn check_xattrs(tree: &ImageTree, node: Node, entry: &Entry) {
    let xattrs: Vec<_> = tree.xattrs(node).collect();
    assert_eq!(xattrs, entry.xattr.iter().map(|value| (&b"user.x"[..], value.as_bytes())).collect::<Vec<_>>());
}

fn check_directory(tree: &ImageTree, node: Node, entry: Option<&Entry>, subdirectories: usize) {
    let attributes = tree.attributes(node);
    assert_eq!((attributes.kind, attributes.size_bytes), (InodeKind::Directory, DIRECTORY_SIZE_BYTES));
    assert_eq!(attributes.nlink as usize, 2 + subdirectories);
    let (mode, uid, time) = entry.map_or((0o755, 0, Timestamp::default()), |entry| (entry.mode, entry.uid, mtime(entry.uid)));
    assert_eq!((attributes.mode & 0o7777, attributes.uid, attributes.mtime), (mode, uid, time));
    match entry {
        Some(entry) => check_xattrs(tree, node, entry),
        None => assert_eq!(tree.xattrs(node).count(), 0),
    }
    assert_eq!(tree.file(node), None);
}

fn check(tree: &ImageTree, image: &Image) {
    let found = walk(tree);
    assert_eq!(found.keys().collect::<Vec<_>>(), image.keys().collect::<Vec<_>>());
    for (path, node) in &found {
        match &image[path] {
            Stacked::Directory(entry) => {
                let inside = |(other, node): &(&Path, &Stacked)| {
                    matches!(node, Stacked::Directory(_)) && other.len() == path.len() + 1 && other.starts_with(path)
                };
                check_directory(tree, *node, entry.as_ref(), image.iter().filter(inside).count());
            }
            Stacked::File(entry) => {
                let names = image.values().filter(|other| **other == image[path]).count();
                check_file(tree, *node, entry, names);
            }
        }
    }
}

/// The layers that can be unpacked, as models and as indexes.
fn built(layers: &[Vec<Entry>]) -> (Vec<BTreeMap<Path, Unpacked>>, Vec<Arc<LayerIndex>>) {
    let mut models = Vec::new();
    let mut indexes = Vec::new();
    for entries in layers {
        match unpack(entries) {
            (Some(model), taken) => {
                indexes.push(Arc::new(index(&taken).unwrap()));
                models.push(model);
            }
            (None, taken) => assert!(index(&taken).is_err(), "a hard link to a directory must be refused"),
        }
    }
    (models, indexes)
}

/// Stacks what can be, the bottom one first; gives the positions of those layers.
fn stack_all(image: &mut Image, models: &[Layer]) -> Vec<usize> {
    let mut taken = Vec::new();
    for (number, model) in models.iter().enumerate() {
        let mut stacked = image.clone();
        if stack(&mut stacked, model).is_ok() {
            *image = stacked;
            taken.push(number);
        }
    }
    taken
}

/// Showing whiteouts adds them to the tree, and changes nothing else.
fn check_shown(shown: &ImageTree, applied: &ImageTree) {
    let (mut found, expected) = (walk(shown), walk(applied));
    found.retain(|_, node| *node != Node::Whiteout);
    assert_eq!(found, expected);
    for node in expected.into_values() {
        assert_eq!(shown.attributes(node), applied.attributes(node));
    }
    for directory in (0..shown.directory_count()).map(DirectoryId) {
        assert!(!applied.is_opaque(directory));
        if shown.is_opaque(directory) {
            assert!(shown.entries(directory, 0).all(|(_, node)| match node {
                Node::Directory(inner) => shown.is_opaque(inner),
                node => node != Node::Whiteout,
            }));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_what_unpacking_and_stacking_leaves(layers in layers()) {
        let (models, indexes) = built(&layers);
        // A link that the layers below do not have must be refused; the layer is left out then.
        let (mut image, mut below) = (Image::new(), Vec::new());
        for (model, index) in models.iter().zip(indexes) {
            let mut stacked = image.clone();
            let mut with_it = below.clone();
            with_it.push(index);
            match stack(&mut stacked, model) {
                Ok(()) => (image, below) = (stacked, with_it),
                Err(_) => assert!(ImageTree::merge(with_it, Whiteouts::Applied).is_err(), "a hard link to nothing must be refused"),
            }
        }
        let tree = ImageTree::merge(below.clone(), Whiteouts::Applied).unwrap();
        check(&tree, &image);
        prop_assert_eq!(walk(&tree), walk(&ImageTree::merge(below, Whiteouts::Applied).unwrap()));
    }

    #[test]
    fn a_tree_with_its_whiteouts_stacks_as_its_layers_do(layers in layers(), lower in 0..5usize) {
        let (models, indexes) = built(&layers);
        let lower = lower.min(models.len());
        let mut below = Image::new();
        stack_all(&mut below, &models[..lower]);
        let (mut run, mut expected) = (Image::new(), below.clone());
        let mut taken = Vec::new();
        // A hard link that leads out of the run is refused also where the image below has its target.
        for number in stack_all(&mut run, &models[lower..]) {
            stack(&mut expected, &models[lower + number]).unwrap();
            taken.push(Arc::clone(&indexes[lower + number]));
        }
        let shown = ImageTree::merge(taken.clone(), Whiteouts::Shown).unwrap();
        check_shown(&shown, &ImageTree::merge(taken, Whiteouts::Applied).unwrap());

        let layer = one_layer(&shown, &layers);
        let mut stacked = below;
        stack(&mut stacked, &layer).unwrap();
        for (path, node) in &layer {
            // What an implied directory is like is not the run's to say.
            if matches!(node, Unpacked::Directory { entry: None, .. }) {
                for image in [&mut stacked, &mut expected] {
                    let Some(Stacked::Directory(entry)) = image.get_mut(path) else { panic!("{path:?} is no directory") };
                    *entry = None;
                }
            }
        }
        prop_assert_eq!(stacked, expected);
    }
}
