//! The image tree: the layers of an image merged into the one tree that unpacking and stacking them with overlayfs would show.
//!
//! What a name stands for is decided from the top layer down:
//!
//! - What is not a directory hides everything below the name.
//! - A directory hides what below is not a directory, and merges with what is. That holds too for a directory that the layer only
//!   implies: containerd's overlayfs snapshotter unpacks each layer into a directory of its own, so `lib/x` over a lower
//!   `lib -> usr/lib` makes a directory `lib` and does not follow the link.
//! - A merged directory has the attributes of the topmost layer with an entry for it. An implied directory never overrides any,
//!   also where it is opaque; where no layer describes the directory, it is 0755 and root's.
//! - A whiteout hides everything below the name, and is no error where there is nothing. An opaque directory hides what is in the
//!   directories below. Neither is shown, unless [`Whiteouts::Shown`] asks for it.
//! - A hard link to a lower layer's path is one more name of the inode that the layers below the link's show there, where that is
//!   not a directory. (containerd cannot unpack such a layer onto overlayfs.)
//! - Extended attributes `trusted.overlay.*` and `user.overlay.*` are not shown: a layer has no say in how overlayfs stacks it.
//!
//! With [`Whiteouts::Shown`], layers are merged for overlayfs to stack onto others, where it must hide what they hide:
//!
//! - A name is a whiteout if the topmost layer with a say about it has one, whether or not a layer of the tree has what it hides.
//! - A directory is opaque if a layer's opaque directory went into it, or if a lower layer of the tree has a whiteout, or anything else
//!   that is no directory, under its name; and so is every directory in it.
//! - No whiteout is shown in an opaque directory. It would have nothing to hide, and overlayfs lists the whiteouts of a directory that
//!   it merges with no other: programs would see a name that does not exist.
//!
//! The same layers always make the same tree with the same positions, so that positions may become inode numbers. Showing whiteouts
//! changes the position of no directory and no inode.
//!
//! The heap holds 16 bytes for each name and 24 for each directory; the names' own bytes stay in the layers' indexes.

use std::sync::Arc;

use crate::entry::Timestamp;
use crate::error::IndexError;
use crate::layer_index::{Inode, InodeKind, LayerIndex};
use crate::tree_merge::merge;
use crate::write::file_type;

/// A directory of an image tree, by position. The root is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DirectoryId(pub u32);

impl DirectoryId {
    /// The root of every tree.
    pub const ROOT: Self = Self(0);
}

/// An inode of a layer that is not a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId {
    /// The layer's position in the image; the bottom one is 0.
    pub layer: u16,
    /// The inode's number in the layer's index.
    pub inode: u32,
}

/// What a name in an image tree stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Node {
    /// A directory, merged of those of the layers.
    Directory(DirectoryId),
    /// A layer's inode, with every attribute as in its layer: images that share the layer can share it.
    File(FileId),
    /// A layer's inode that has more or fewer names in this tree than in its layer; by position among the tree's inodes of that kind.
    Relinked(u32),
    /// A name that lower layers must not show, as overlayfs has it: the character device 0:0. Only with [`Whiteouts::Shown`].
    Whiteout,
}

/// What becomes of the whiteouts and opaque directories of the layers that are merged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Whiteouts {
    /// They hide what is below them, and are gone: the tree is all there is.
    Applied,
    /// They do that, and are shown as far as overlayfs needs them to hide what lies below the tree.
    Shown,
}

/// What `stat(2)` says about a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeAttributes {
    /// What it is.
    pub kind: InodeKind,
    /// File type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file or of a symbolic link's target; [`DIRECTORY_SIZE_BYTES`] for a directory, 0 for the rest.
    pub size_bytes: u64,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Device number in Linux' 32-bit form.
    pub rdev: u32,
    /// Names of a file in this tree; of a directory 2 and one for each directory in it.
    pub nlink: u32,
}

/// The size that every directory reports: one block, as ext4 has for a small one.
pub const DIRECTORY_SIZE_BYTES: u64 = 4096;

/// One name. Its bytes are a layer's.
#[derive(Clone, Copy)]
pub(crate) struct NameRecord {
    pub(crate) name_at: u32,
    /// A directory's or relinked inode's position, or an inode of `file_layer`.
    pub(crate) target: u32,
    pub(crate) name_layer: u16,
    pub(crate) file_layer: u16,
    pub(crate) name_bytes: u8,
    pub(crate) kind: NameKind,
}

const _: () = assert!(size_of::<NameRecord>() == 16 && size_of::<DirectoryRecord>() == 24);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    Directory,
    File,
    Relinked,
    Whiteout,
}

/// One merged directory.
#[derive(Clone, Copy)]
pub(crate) struct DirectoryRecord {
    /// Its names are neighbours in the tree's table.
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) parent: DirectoryId,
    pub(crate) nlink: u32,
    /// Whose attributes it has. Not a [`FileId`], whose padding would leave no room for `is_opaque`.
    pub(crate) attributes_inode: u32,
    pub(crate) attributes_layer: u16,
    /// See [`ImageTree::is_opaque`].
    pub(crate) is_opaque: bool,
}

/// A layer's inode, and how many names it has in the tree.
#[derive(Clone, Copy)]
pub(crate) struct RelinkedRecord {
    pub(crate) file: FileId,
    pub(crate) nlink: u32,
}

/// The layers of an image as one tree.
pub struct ImageTree {
    layers: Vec<Arc<LayerIndex>>,
    names: Vec<NameRecord>,
    directories: Vec<DirectoryRecord>,
    relinked: Vec<RelinkedRecord>,
    whiteouts: Whiteouts,
}

impl ImageTree {
    /// Merges layers, the bottom one first. No layers make an empty root.
    ///
    /// # Errors
    /// [`IndexError::Limit`] for too many layers or names, or too long a search for hard links to lower layers; [`IndexError::Entry`] for a hard link to a path
    /// that the lower layers do not have, or have a directory at.
    pub fn merge(layers: Vec<Arc<LayerIndex>>, whiteouts: Whiteouts) -> Result<Self, IndexError> {
        let merged = merge(&layers, whiteouts)?;
        Ok(Self { layers, names: merged.names, directories: merged.directories, relinked: merged.relinked, whiteouts })
    }

    /// The layers, the bottom one first.
    pub fn layers(&self) -> &[Arc<LayerIndex>] {
        &self.layers
    }
    /// Number of directories; their positions are `0..count`.
    pub fn directory_count(&self) -> u32 {
        self.directories.len() as u32
    }
    /// Number of [`Node::Relinked`] inodes; their positions are `0..count`.
    pub fn relinked_count(&self) -> u32 {
        self.relinked.len() as u32
    }
    /// Number of names in all directories.
    pub fn name_count(&self) -> u32 {
        self.names.len() as u32
    }
    /// Whether no layer has an extended attribute.
    pub fn is_without_xattrs(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_without_xattrs())
    }

    /// Whether a node is one that this tree can have: a number from outside is in range and not a directory of a layer.
    ///
    /// Everything below answers something harmless for a node that is not.
    pub fn contains(&self, node: Node) -> bool {
        match node {
            Node::Directory(directory) => directory.0 < self.directory_count(),
            Node::Relinked(number) => number < self.relinked_count(),
            Node::Whiteout => self.whiteouts == Whiteouts::Shown,
            Node::File(file) => self
                .layers
                .get(usize::from(file.layer))
                .is_some_and(|layer| file.inode < layer.inode_count() && layer.inode(file.inode).kind() != InodeKind::Directory),
        }
    }

    /// Finds a name in a directory by binary search.
    pub fn lookup(&self, directory: DirectoryId, name: &[u8]) -> Option<Node> {
        let names = self.names_of(directory);
        let found = names.binary_search_by(|record| self.name(record).cmp(name)).ok()?;
        Some(node(&names[found]))
    }

    /// The names in a directory from the `from`th on, ascending by their bytes, without `.` and `..`.
    pub fn entries(&self, directory: DirectoryId, from: usize) -> impl ExactSizeIterator<Item = (&[u8], Node)> {
        let names = self.names_of(directory);
        names[from.min(names.len())..].iter().map(|record| (self.name(record), node(record)))
    }

    /// The directory that a directory is in; the root's is the root.
    pub fn parent(&self, directory: DirectoryId) -> DirectoryId {
        self.directories.get(directory.0 as usize).map_or(DirectoryId::ROOT, |record| record.parent)
    }

    /// Whether a directory hides all that lies below the tree under its path. Never with [`Whiteouts::Applied`].
    ///
    /// The root can be opaque as well, but overlayfs does not look at the attributes of the directories that it stacks: whoever mounts
    /// has to leave out what lies below then.
    pub fn is_opaque(&self, directory: DirectoryId) -> bool {
        self.directories.get(directory.0 as usize).is_some_and(|record| record.is_opaque)
    }

    /// The layer's inode behind a node; nothing for a directory and a whiteout.
    pub fn file(&self, node: Node) -> Option<FileId> {
        match node {
            Node::Directory(_) | Node::Whiteout => None,
            Node::File(file) => Some(file),
            Node::Relinked(number) => self.relinked.get(number as usize).map(|record| record.file),
        }
    }

    /// The layer and inode that a node's bytes, target and attributes are from; of a directory the one whose attributes it has.
    ///
    /// Nothing for a whiteout, and for a node that the tree does not [contain](Self::contains).
    pub fn inode(&self, node: Node) -> Option<(&Arc<LayerIndex>, Inode)> {
        let id = match node {
            Node::Directory(directory) => {
                let record = self.directories.get(directory.0 as usize)?;
                FileId { layer: record.attributes_layer, inode: record.attributes_inode }
            }
            _ => self.file(node)?,
        };
        let layer = self.layers.get(usize::from(id.layer))?;
        Some((layer, layer.inode(id.inode)))
    }

    /// What `stat(2)` says about a node.
    pub fn attributes(&self, node: Node) -> NodeAttributes {
        if node == Node::Whiteout {
            return WHITEOUT;
        }
        let Some((_, inode)) = self.inode(node) else { return UNDESCRIBED };
        let (size_bytes, nlink) = match node {
            Node::Directory(directory) => {
                (DIRECTORY_SIZE_BYTES, self.directories.get(directory.0 as usize).map_or(2, |record| record.nlink))
            }
            Node::Relinked(number) => (inode.size_bytes(), self.relinked.get(number as usize).map_or(1, |record| record.nlink)),
            _ => (inode.size_bytes(), inode.nlink()),
        };
        NodeAttributes {
            kind: inode.kind(),
            mode: inode.mode(),
            uid: inode.uid(),
            gid: inode.gid(),
            size_bytes,
            mtime: inode.mtime(),
            rdev: inode.rdev(),
            nlink,
        }
    }

    /// The extended attributes of a node, ascending by name, without overlayfs' own.
    pub fn xattrs(&self, node: Node) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.inode(node).into_iter().flat_map(|(layer, inode)| layer.xattrs(&inode)).filter(|(name, _)| !is_overlay_xattr(name))
    }

    /// The target of a symbolic link; empty for the rest.
    pub fn symlink_target(&self, node: Node) -> &[u8] {
        self.inode(node).map_or(b"", |(layer, inode)| layer.symlink_target(&inode))
    }

    fn names_of(&self, directory: DirectoryId) -> &[NameRecord] {
        let Some(record) = self.directories.get(directory.0 as usize) else { return &[] };
        &self.names[record.first as usize..][..record.count as usize]
    }

    fn name(&self, record: &NameRecord) -> &[u8] {
        self.layers[usize::from(record.name_layer)].sections().string(record.name_at, u32::from(record.name_bytes))
    }
}

/// The root of an image without layers, and what an unknown node gets.
const UNDESCRIBED: NodeAttributes = NodeAttributes {
    kind: InodeKind::Directory,
    mode: 0o040_755,
    uid: 0,
    gid: 0,
    size_bytes: DIRECTORY_SIZE_BYTES,
    mtime: Timestamp { seconds: 0, nanoseconds: 0 },
    rdev: 0,
    nlink: 2,
};

const WHITEOUT: NodeAttributes =
    NodeAttributes { kind: InodeKind::CharDevice, mode: file_type::CHARACTER, size_bytes: 0, nlink: 1, ..UNDESCRIBED };

fn node(record: &NameRecord) -> Node {
    match record.kind {
        NameKind::Directory => Node::Directory(DirectoryId(record.target)),
        NameKind::File => Node::File(FileId { layer: record.file_layer, inode: record.target }),
        NameKind::Relinked => Node::Relinked(record.target),
        NameKind::Whiteout => Node::Whiteout,
    }
}

fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}
