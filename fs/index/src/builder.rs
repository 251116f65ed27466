//! Entries in the order of the layer, in; an index file, out. Every format ends here.
//!
//! What an entry does to what came before it is what unpacking it would do: a later entry of the same name replaces the earlier one
//! (a directory over a directory only changes its attributes), parents that have no entry are implied, and a parent that is a symbolic
//! link is followed inside the layer's root.

use std::collections::BTreeMap;

use snap_digest::Digest;

use crate::chunks::ChunkPlan;
use crate::entry::{Attributes, EntryKind, Extent, device_number};
use crate::error::IndexError;
use crate::limits;
use crate::path::components;
use crate::write::write_index;

#[path = "builder_links.rs"]
mod links;

use links::PendingLink;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// Root entries of an eStargz blob that are parts of the format and no files of the image.
pub(crate) const ESTARGZ_PARTS: [&[u8]; 3] = [b".prefetch.landmark", b".no.prefetch.landmark", b"stargz.index.json"];

/// Number of a node while the layer is built; the index file numbers anew.
pub(crate) type NodeNumber = usize;
pub(crate) const ROOT: NodeNumber = 0;

pub(crate) struct Node {
    pub(crate) attributes: Attributes,
    pub(crate) kind: NodeKind,
}

pub(crate) enum NodeKind {
    Directory { children: BTreeMap<Box<[u8]>, Child>, opaque: bool, implied: bool },
    File { size_bytes: u64, extents: Vec<Extent> },
    Symlink { target: Vec<u8> },
    CharDevice { rdev: u32 },
    BlockDevice { rdev: u32 },
    Fifo,
}

pub(crate) enum Child {
    Node(NodeNumber),
    Whiteout,
    /// A hard link to what lower layers have at this path.
    LowerLink(Vec<u8>),
}

/// Collects a layer's entries and writes its index.
pub struct Builder {
    layer: Digest,
    blob_bytes: u64,
    nodes: Vec<Node>,
    /// Links whose target has not come yet.
    pending: Vec<PendingLink>,
    string_bytes: usize,
    extent_count: usize,
    xattr_count: usize,
    is_estargz: bool,
}

impl Builder {
    /// An empty layer: a root directory that no entry describes.
    pub fn new(layer: Digest, blob_bytes: u64) -> Self {
        Self {
            layer,
            blob_bytes,
            nodes: vec![implied_directory()],
            pending: Vec::new(),
            string_bytes: 0,
            extent_count: 0,
            xattr_count: 0,
            is_estargz: false,
        }
    }

    /// Leaves out what eStargz keeps for itself at the root: landmarks and the table of contents.
    #[must_use]
    pub fn without_estargz_parts(self, is_estargz: bool) -> Self {
        Self { is_estargz, ..self }
    }

    /// Adds the layer's next entry. `path` and link targets are as stored; whiteout names (`.wh.x`, `.wh..wh..opq`) are understood.
    ///
    /// # Errors
    /// [`IndexError::Path`], [`IndexError::Entry`] and [`IndexError::Limit`]: the entry, and so the layer, cannot be shown.
    pub fn add(&mut self, path: &[u8], kind: EntryKind, attributes: Attributes) -> Result<(), IndexError> {
        self.account(path, &kind, &attributes)?;
        let clean = components(path)?;
        let Some((&name, parents)) = clean.split_last() else {
            return self.describe_root(path, kind, attributes);
        };
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(path, name, parents);
        }
        if self.is_estargz && parents.is_empty() && ESTARGZ_PARTS.contains(&name) {
            return Ok(());
        }
        let parent = self.directory_at(path, ROOT, parents)?;
        match kind {
            EntryKind::HardLink { target } => self.link(path, parent, name, target),
            EntryKind::CharDevice { major: 0, minor: 0 } => self.put(parent, name, Child::Whiteout),
            EntryKind::Directory => self.directory(parent, name, attributes),
            other => {
                let node = self.node(path, other, attributes)?;
                self.put(parent, name, Child::Node(node))
            }
        }
    }

    /// Ends the layer. `chunks` says where the bytes of data space are in the blob; `diff_id` is the digest of the tar stream, if it is known.
    ///
    /// # Errors
    /// [`IndexError::Limit`] or [`IndexError::Entry`]; nothing else than what [`Builder::add`] could not see yet.
    pub fn finish(mut self, chunks: ChunkPlan, diff_id: Option<Digest>) -> Result<Vec<u8>, IndexError> {
        self.resolve_pending()?;
        write_index(self.layer, self.blob_bytes, diff_id, &self.nodes, &chunks)
    }

    fn account(&mut self, path: &[u8], kind: &EntryKind, attributes: &Attributes) -> Result<(), IndexError> {
        if self.nodes.len() >= limits::ENTRIES_MAX {
            return Err(IndexError::limit("entries", limits::ENTRIES_MAX as u64));
        }
        let xattrs = &attributes.xattrs;
        if xattrs.len() > limits::XATTRS_PER_ENTRY_MAX {
            return Err(IndexError::entry(path, "it has too many extended attributes"));
        }
        if xattrs.iter().any(|(name, value)| {
            name.is_empty() || name.len() > limits::XATTR_NAME_BYTES_MAX || name.contains(&0) || value.len() > limits::XATTR_VALUE_BYTES_MAX
        }) {
            return Err(IndexError::entry(path, "an extended attribute's name or value is impossible or too long"));
        }
        if attributes.mtime.nanoseconds >= 1_000_000_000 {
            return Err(IndexError::entry(path, "its time has more than a second of nanoseconds"));
        }
        self.xattr_count += xattrs.len();
        if self.xattr_count > limits::XATTRS_MAX {
            return Err(IndexError::limit("extended attributes", limits::XATTRS_MAX as u64));
        }
        self.string_bytes += path.len() + xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        match kind {
            EntryKind::Symlink { target } | EntryKind::HardLink { target } => {
                if target.is_empty() || target.len() > limits::PATH_BYTES_MAX || target.contains(&0) {
                    return Err(IndexError::entry(path, "its link target is empty, too long, or has a NUL byte"));
                }
                self.string_bytes += target.len();
            }
            EntryKind::File { size_bytes, extents } => {
                check_extents(path, *size_bytes, extents)?;
                self.extent_count += extents.len();
            }
            _ => {}
        }
        if self.string_bytes > limits::STRINGS_BYTES_MAX {
            return Err(IndexError::limit("bytes of names, link targets and extended attributes", limits::STRINGS_BYTES_MAX as u64));
        }
        if self.extent_count > limits::EXTENTS_MAX {
            return Err(IndexError::limit("file extents", limits::EXTENTS_MAX as u64));
        }
        Ok(())
    }

    fn describe_root(&mut self, path: &[u8], kind: EntryKind, attributes: Attributes) -> Result<(), IndexError> {
        if kind != EntryKind::Directory {
            return Err(IndexError::entry(path, "the root is not a directory"));
        }
        self.describe_directory(ROOT, attributes);
        Ok(())
    }

    fn describe_directory(&mut self, directory: NodeNumber, attributes: Attributes) {
        let node = &mut self.nodes[directory];
        node.attributes = attributes;
        if let NodeKind::Directory { implied, .. } = &mut node.kind {
            *implied = false;
        }
    }

    fn whiteout(&mut self, path: &[u8], name: &[u8], parents: &[&[u8]]) -> Result<(), IndexError> {
        if name == OPAQUE_MARKER {
            let directory = self.directory_at(path, ROOT, parents)?;
            if let NodeKind::Directory { opaque, .. } = &mut self.nodes[directory].kind {
                *opaque = true;
            }
            return Ok(());
        }
        // What aufs kept for itself in a layer (`.wh..wh.plnk` and the like) names nothing.
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(IndexError::path(path, "a whiteout names nothing"));
        }
        let parent = self.directory_at(path, ROOT, parents)?;
        // A whiteout hides what is *below* this layer; an entry of this layer stays, whichever came first, and hides it as well.
        match self.children(parent).get(hidden) {
            None => self.put(parent, hidden, Child::Whiteout),
            Some(&Child::Node(node)) => {
                if let NodeKind::Directory { opaque, .. } = &mut self.nodes[node].kind {
                    *opaque = true;
                }
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn directory(&mut self, parent: NodeNumber, name: &[u8], attributes: Attributes) -> Result<(), IndexError> {
        match self.children(parent).get(name) {
            Some(&Child::Node(node)) if matches!(self.nodes[node].kind, NodeKind::Directory { .. }) => {
                self.describe_directory(node, attributes);
                Ok(())
            }
            before => {
                // What came before it, a whiteout or a file, has hidden what lower layers have in it.
                let opaque = before.is_some();
                let node = self.push(Node { attributes, kind: NodeKind::Directory { children: BTreeMap::new(), opaque, implied: false } });
                self.put(parent, name, Child::Node(node))
            }
        }
    }

    fn node(&mut self, path: &[u8], kind: EntryKind, attributes: Attributes) -> Result<NodeNumber, IndexError> {
        let rdev = |major, minor| device_number(major, minor).ok_or_else(|| IndexError::entry(path, "its device number is too large"));
        let kind = match kind {
            EntryKind::File { size_bytes, extents } => NodeKind::File { size_bytes, extents },
            EntryKind::Symlink { target } => NodeKind::Symlink { target },
            EntryKind::CharDevice { major, minor } => NodeKind::CharDevice { rdev: rdev(major, minor)? },
            EntryKind::BlockDevice { major, minor } => NodeKind::BlockDevice { rdev: rdev(major, minor)? },
            EntryKind::Fifo => NodeKind::Fifo,
            EntryKind::Directory | EntryKind::HardLink { .. } => return Err(IndexError::entry(path, "it is no file of its own")),
        };
        Ok(self.push(Node { attributes, kind }))
    }

    fn push(&mut self, node: Node) -> NodeNumber {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn children(&self, directory: NodeNumber) -> &BTreeMap<Box<[u8]>, Child> {
        match &self.nodes[directory].kind {
            NodeKind::Directory { children, .. } => children,
            _ => const { &BTreeMap::new() },
        }
    }

    fn put(&mut self, directory: NodeNumber, name: &[u8], child: Child) -> Result<(), IndexError> {
        if let NodeKind::Directory { children, .. } = &mut self.nodes[directory].kind {
            children.insert(name.into(), child);
        }
        Ok(())
    }

    /// The directory that `parents` name from `start`, made where it is missing, symbolic links followed inside the root.
    fn directory_at(&mut self, path: &[u8], start: NodeNumber, parents: &[&[u8]]) -> Result<NodeNumber, IndexError> {
        // The walk as a stack, so that `..` in a link's target can go back up.
        let mut walked = vec![start];
        let mut ahead: Vec<Box<[u8]>> = parents.iter().rev().map(|&name| name.into()).collect();
        let mut followed = 0;
        while let Some(name) = ahead.pop() {
            let at = *walked.last().unwrap_or(&ROOT);
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    if walked.len() > 1 {
                        walked.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let next = match self.children(at).get(&name) {
                Some(&Child::Node(node)) => match &self.nodes[node].kind {
                    NodeKind::Directory { .. } => node,
                    NodeKind::Symlink { target } => {
                        followed += 1;
                        if followed > limits::SYMLINKS_FOLLOWED_MAX || ahead.len() > limits::PATH_COMPONENTS_MAX {
                            return Err(IndexError::path(path, "its parents lead through too many symbolic links"));
                        }
                        if target.starts_with(b"/") {
                            walked.truncate(1);
                        }
                        ahead.extend(target.split(|&byte| byte == b'/').rev().map(Box::from));
                        continue;
                    }
                    _ => return Err(IndexError::path(path, "a parent is not a directory")),
                },
                Some(Child::LowerLink(_)) => return Err(IndexError::path(path, "a parent is not a directory")),
                before => {
                    let mut made = implied_directory();
                    if let (Some(Child::Whiteout), NodeKind::Directory { opaque, .. }) = (before, &mut made.kind) {
                        *opaque = true;
                    }
                    if name.len() > limits::NAME_BYTES_MAX {
                        return Err(IndexError::path(path, "a symbolic link's name is over 255 bytes long"));
                    }
                    if self.nodes.len() >= limits::ENTRIES_MAX {
                        return Err(IndexError::limit("entries", limits::ENTRIES_MAX as u64));
                    }
                    let node = self.push(made);
                    self.put(at, &name, Child::Node(node))?;
                    node
                }
            };
            // A symbolic link may have led deeper than the path itself goes.
            if walked.len() >= limits::PATH_COMPONENTS_MAX {
                return Err(IndexError::path(path, "it is nested too deeply"));
            }
            walked.push(next);
        }
        Ok(*walked.last().unwrap_or(&ROOT))
    }
}

fn implied_directory() -> Node {
    Node {
        attributes: Attributes { mode: 0o755, ..Attributes::default() },
        kind: NodeKind::Directory { children: BTreeMap::new(), opaque: false, implied: true },
    }
}

fn check_extents(path: &[u8], size_bytes: u64, extents: &[Extent]) -> Result<(), IndexError> {
    let wrong = |why| Err(IndexError::entry(path, why));
    if size_bytes > i64::MAX as u64 {
        return wrong("its size is impossible");
    }
    let mut file_end = 0;
    for extent in extents {
        let (Some(end), Some(data_end)) = (extent.file_offset.checked_add(extent.bytes), extent.data_offset.checked_add(extent.bytes))
        else {
            return wrong("an extent's end is impossible");
        };
        if extent.bytes == 0 || extent.file_offset < file_end || end > size_bytes || data_end > limits::DATA_BYTES_MAX {
            return wrong("its extents overlap, are empty, or lie outside of it");
        }
        file_end = end;
    }
    Ok(())
}
