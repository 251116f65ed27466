//! One tree without FUSE: answers about it by node number. Nothing here waits; what would have to is a [`ReadPlan`].

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use snap_index::{DirectoryId, FileId, ImageTree, InodeKind, Node, NodeAttributes, Whiteouts};

use crate::error::{FsError, LayerError, ReadError};
use crate::image::OpenImage;
use crate::layer::Layer;
use crate::numbers::{Number, Prefix};
use crate::remote::Below;

/// One tree as a file system: an image's, or that of a run of layers.
pub struct ImageFs {
    tree: Arc<ImageTree>,
    layers: Vec<Arc<Layer>>,
    tree_prefix: Prefix,
    /// The number of the tree's root.
    root: u64,
    layer_prefixes: Vec<Prefix>,
    by_prefix: HashMap<Prefix, u16>,
    total_bytes: u64,
}

/// How overlayfs marks a directory that hides what lies below it.
const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";

/// What stat tells, by node.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// The node's number.
    pub number: u64,
    /// Everything else.
    pub attributes: NodeAttributes,
}

/// A directory's entry as readdir tells it.
pub struct DirectoryEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What it names.
    pub node: Node,
    /// Position to go on from.
    pub next: u64,
}

/// One read: where its bytes are in data space; what lies between is zeros.
pub struct ReadPlan {
    layer: Arc<Layer>,
    /// Length of what the reader gets.
    bytes: usize,
    /// Offset in the reader's buffer, and the range of data space that goes there.
    pieces: Vec<(usize, Range<u64>)>,
}

impl ImageFs {
    /// The file system of an opened image, whose root is the mount's.
    ///
    /// # Errors
    /// [`LayerError::NumberCollision`].
    pub fn new(image: &OpenImage) -> Result<Self, FsError> {
        Self::of(Arc::clone(image.tree()), image.layers().to_vec(), Below::Nothing, Number::Root)
    }

    /// The tree of a run of layers, bottom first, as one directory among others of a mount.
    ///
    /// # Errors
    /// [`FsError::Tree`], [`LayerError::NumberCollision`].
    pub(crate) fn of_run(layers: Vec<Arc<Layer>>, below: Below) -> Result<Self, FsError> {
        let whiteouts = match below {
            Below::Nothing => Whiteouts::Applied,
            Below::Layers => Whiteouts::Shown,
        };
        let indexes = layers.iter().map(|layer| Arc::clone(layer.index())).collect();
        let tree = ImageTree::merge(indexes, whiteouts).map_err(FsError::Tree)?;
        let digests: Vec<_> = layers.iter().map(|layer| layer.digest()).collect();
        let root = Number::Directory { tree: Prefix::of_tree(digests.iter(), below), position: 0 };
        Self::of(Arc::new(tree), layers, below, root)
    }

    fn of(tree: Arc<ImageTree>, layers: Vec<Arc<Layer>>, below: Below, root: Number) -> Result<Self, FsError> {
        let layer_prefixes: Vec<Prefix> = layers.iter().map(|layer| Prefix::of_layer(&layer.digest())).collect();
        let mut by_prefix = HashMap::new();
        for (position, (layer, prefix)) in layers.iter().zip(&layer_prefixes).enumerate() {
            // The first of a layer that is there twice: its inodes are the same.
            let first: u16 = *by_prefix.entry(*prefix).or_insert(position as u16);
            let other = layers[usize::from(first)].digest();
            if other != layer.digest() {
                return Err(LayerError::NumberCollision { other }.of(layer.digest()));
            }
        }
        let digests: Vec<_> = layers.iter().map(|layer| layer.digest()).collect();
        let total_bytes = layers.iter().map(|layer| layer.total_bytes()).sum();
        let tree_prefix = Prefix::of_tree(digests.iter(), below);
        Ok(Self { tree, layers, tree_prefix, root: root.pack(), layer_prefixes, by_prefix, total_bytes })
    }

    /// The node that a number stands for; none for a number that this image has not.
    pub fn node(&self, number: u64) -> Option<Node> {
        if number == self.root {
            return Some(Node::Directory(DirectoryId::ROOT));
        }
        match Number::unpack(number)? {
            Number::Root => None,
            Number::Whiteout => Some(Node::Whiteout),
            Number::Directory { tree, position } => {
                (tree == self.tree_prefix && position < self.tree.directory_count()).then_some(Node::Directory(DirectoryId(position)))
            }
            Number::Relinked { tree, position } => {
                (tree == self.tree_prefix && position < self.tree.relinked_count()).then_some(Node::Relinked(position))
            }
            Number::File { layer, inode } => {
                let layer = *self.by_prefix.get(&layer)?;
                let index = self.layers[usize::from(layer)].index();
                let is_file = inode < index.inode_count() && index.inode(inode).kind() != InodeKind::Directory;
                is_file.then_some(Node::File(FileId { layer, inode }))
            }
        }
    }

    /// The number of a node of this image's tree.
    pub fn number(&self, node: Node) -> u64 {
        match node {
            Node::Directory(DirectoryId::ROOT) => return self.root,
            Node::Whiteout => Number::Whiteout,
            Node::Directory(DirectoryId(position)) => Number::Directory { tree: self.tree_prefix, position },
            Node::Relinked(position) => Number::Relinked { tree: self.tree_prefix, position },
            Node::File(FileId { layer, inode }) => Number::File { layer: self.layer_prefixes[usize::from(layer)], inode },
        }
        .pack()
    }

    /// What stat tells about a node.
    pub fn stat(&self, node: Node) -> Stat {
        Stat { number: self.number(node), attributes: self.tree.attributes(node) }
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, directory: DirectoryId, name: &[u8]) -> Option<Node> {
        self.tree.lookup(directory, name)
    }

    /// A directory's entries from a position on, `.` and `..` first.
    pub fn entries(&self, directory: DirectoryId, from: u64) -> impl Iterator<Item = DirectoryEntry<'_>> {
        let dots = [(&b"."[..], directory), (&b".."[..], self.tree.parent(directory))];
        let dots = dots.into_iter().map(|(name, directory)| (name, Node::Directory(directory)));
        let names_from = usize::try_from(from.saturating_sub(2)).unwrap_or(usize::MAX);
        let skipped = from.min(2) as usize;
        let names = self.tree.entries(directory, names_from);
        dots.skip(skipped).chain(names).zip(from.saturating_add(1)..).map(|((name, node), next)| DirectoryEntry { name, node, next })
    }

    /// The target of a symbolic link; none for the rest.
    pub fn symlink_target(&self, node: Node) -> Option<&[u8]> {
        let target = self.tree.symlink_target(node);
        (!target.is_empty()).then_some(target)
    }

    /// One extended attribute's value.
    pub fn xattr(&self, node: Node, name: &[u8]) -> Option<&[u8]> {
        if name == OPAQUE_XATTR {
            return self.is_opaque_directory(node).then_some(b"y");
        }
        self.tree.xattrs(node).find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The names of all extended attributes, as listxattr(2) gives them: each ended by NUL.
    pub fn xattr_names(&self, node: Node) -> Vec<u8> {
        let mut list = Vec::new();
        for (name, _) in self.tree.xattrs(node) {
            list.extend_from_slice(name);
            list.push(0);
        }
        if self.is_opaque_directory(node) {
            list.extend_from_slice(OPAQUE_XATTR);
            list.push(0);
        }
        list
    }

    /// Whether overlayfs must not look below the root. Only in a tree that shows its whiteouts.
    pub(crate) fn is_opaque(&self) -> bool {
        self.tree.is_opaque(DirectoryId::ROOT)
    }

    fn is_opaque_directory(&self, node: Node) -> bool {
        matches!(node, Node::Directory(directory) if self.tree.is_opaque(directory))
    }

    /// Whether nothing in the image has an extended attribute.
    pub fn is_without_xattrs(&self) -> bool {
        self.tree.is_without_xattrs()
    }

    /// File bytes of all layers together.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Number of directories and names.
    pub fn name_count(&self) -> u64 {
        self.tree.name_count() as u64
    }

    /// Where the bytes of a read are. None for what is no regular file.
    pub fn plan_read(&self, node: Node, offset: u64, bytes: u32) -> Option<ReadPlan> {
        let FileId { layer, inode } = self.tree.file(node)?;
        let layer = &self.layers[usize::from(layer)];
        let index = layer.index();
        let inode = index.inode(inode);
        if inode.kind() != InodeKind::File {
            return None;
        }
        let end = offset.saturating_add(u64::from(bytes)).min(inode.size_bytes());
        let length = end.saturating_sub(offset);
        let mut pieces = Vec::new();
        for extent in index.extents(&inode) {
            let start = extent.file_offset.max(offset);
            let stop = (extent.file_offset + extent.bytes).min(end);
            if extent.file_offset >= end {
                break;
            }
            if start < stop {
                let data = extent.data_offset + (start - extent.file_offset);
                pieces.push(((start - offset) as usize, data..data + (stop - start)));
            }
        }
        Some(ReadPlan { layer: Arc::clone(layer), bytes: length as usize, pieces })
    }
}

impl ReadPlan {
    /// Whether all bytes are here and verified.
    pub fn is_ready(&self) -> bool {
        self.pieces.iter().all(|(_, range)| self.layer.is_ready(range.clone()))
    }

    /// Reads into `buffer`, which is made as long as the answer. The plan must be ready.
    pub fn read(&self, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        let whole = matches!(&self.pieces[..], [(0, range)] if (range.end - range.start) as usize == self.bytes);
        if !whole {
            // What no extent covers is zeros.
            buffer.clear();
        }
        buffer.resize(self.bytes, 0);
        for (at, range) in &self.pieces {
            let length = (range.end - range.start) as usize;
            self.layer.read_at(&mut buffer[*at..*at + length], range.start)?;
        }
        Ok(())
    }

    /// Waits until the plan is ready.
    pub async fn ensure(&self, deadline: Instant) -> Result<(), ReadError> {
        for (_, range) in &self.pieces {
            self.layer.ensure(range.clone(), deadline).await?;
        }
        Ok(())
    }

    /// The layer that the bytes are in, for messages.
    pub fn layer(&self) -> &Layer {
        &self.layer
    }
}
