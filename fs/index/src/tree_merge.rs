//! Merges layers, directory by directory from the root: within one, the layers' sorted names are merged as sorted lists are.
//!
//! Breadth first, so that a directory's names are neighbours and no depth of nesting costs stack. The work is linear in the names
//! of all layers (each is in one directory of its layer, and that in one directory of the tree); the heap holds the tables that
//! result, and the layers' directories that wait for their turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::error::IndexError;
use crate::format;
use crate::layer_index::{InodeKind, LayerIndex};
use crate::limits;
use crate::tree::{DirectoryId, DirectoryRecord, FileId, NameKind, NameRecord, RelinkedRecord, Whiteouts};
use crate::tree_links::{lower_link, relink};

pub(crate) struct Merged {
    pub(crate) names: Vec<NameRecord>,
    pub(crate) directories: Vec<DirectoryRecord>,
    pub(crate) relinked: Vec<RelinkedRecord>,
}

pub(crate) fn merge(layers: &[Arc<LayerIndex>], whiteouts: Whiteouts) -> Result<Merged, IndexError> {
    if layers.len() > limits::LAYERS_MAX {
        return Err(IndexError::limit("layers of an image", limits::LAYERS_MAX as u64));
    }
    let mut merge = Merge {
        layers,
        whiteouts,
        names: Vec::new(),
        directories: Vec::new(),
        waiting: VecDeque::new(),
        lower_linked: Vec::new(),
        lookups_left: limits::LOWER_LINK_LOOKUPS_MAX,
    };
    merge.root();
    let mut next = 0;
    while next < merge.directories.len() {
        merge.fill(DirectoryId(next as u32))?;
        next += 1;
    }
    let Merge { mut names, directories, lower_linked, .. } = merge;
    let relinked = relink(layers, &mut names, &lower_linked);
    names.shrink_to_fit();
    Ok(Merged { names, directories, relinked })
}

/// The layers' directories that one directory of the tree is merged of, the topmost first.
type Sources = Vec<FileId>;

struct Merge<'a> {
    layers: &'a [Arc<LayerIndex>],
    whiteouts: Whiteouts,
    names: Vec<NameRecord>,
    directories: Vec<DirectoryRecord>,
    /// Of each directory that is not filled yet, in order.
    waiting: VecDeque<Sources>,
    /// The inodes that a hard link of a higher layer names.
    lower_linked: Vec<FileId>,
    lookups_left: u32,
}

/// One layer's place in a directory that is being merged.
struct Cursor<'a> {
    layer: u16,
    index: &'a LayerIndex,
    next: u32,
    end: u32,
}

/// A name that a cursor stands on. The order is by name, then from the top layer down.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Standing<'a> {
    name: &'a [u8],
    cursor: usize,
}

impl<'a> Cursor<'a> {
    /// The name that is next, without moving.
    fn name(&self) -> Option<&'a [u8]> {
        (self.next < self.end).then(|| {
            let record = self.index.dirent_record(self.next);
            self.index.sections().string(record.name_at, record.name_bytes)
        })
    }
}

/// What the layers from the top down to some layer say about one name.
enum Verdict {
    /// Nothing yet.
    Open,
    /// A directory; lower ones may join it.
    Directory(Directory),
    /// Decided; nothing below matters.
    Closed,
}

/// A directory whose layers are being collected.
struct Directory {
    id: DirectoryId,
    sources: Sources,
    /// An opaque directory was passed, so that lower ones give attributes at most; or what is no directory.
    is_opaque: bool,
    /// A layer with an entry of its own was passed.
    is_described: bool,
}

impl<'a> Merge<'a> {
    fn root(&mut self) {
        let mut root = None;
        for (layer, index) in self.layers.iter().enumerate().rev() {
            let id = FileId { layer: layer as u16, inode: LayerIndex::ROOT };
            let root = root.get_or_insert_with(|| self.directory(DirectoryId::ROOT, id));
            join(&mut self.directories, root, index, id);
        }
        match root {
            Some(root) => self.settle(root),
            None => {
                let root = self.directory(DirectoryId::ROOT, FileId { layer: 0, inode: LayerIndex::ROOT });
                self.settle(root);
            }
        }
    }

    /// Makes a directory without sources, with the attributes of `first` until a layer describes it.
    fn directory(&mut self, parent: DirectoryId, first: FileId) -> Directory {
        let id = DirectoryId(self.directories.len() as u32);
        let FileId { layer: attributes_layer, inode: attributes_inode } = first;
        self.directories.push(DirectoryRecord {
            first: 0,
            count: 0,
            parent,
            nlink: 2,
            attributes_inode,
            attributes_layer,
            is_opaque: false,
        });
        Directory { id, sources: Sources::new(), is_opaque: false, is_described: false }
    }

    /// Merges the names of one directory, and makes the directories in it.
    fn fill(&mut self, directory: DirectoryId) -> Result<(), IndexError> {
        let first = self.names.len() as u32;
        let sources = self.waiting.pop_front().unwrap_or_default();
        let mut cursors: Vec<_> = sources
            .into_iter()
            .map(|FileId { layer, inode }| {
                let index = &*self.layers[usize::from(layer)];
                let record = index.inode_record(inode);
                Cursor { layer, index, next: record.first, end: record.first + record.count }
            })
            .collect();
        let mut standing: BinaryHeap<_> = cursors
            .iter()
            .enumerate()
            .filter_map(|(number, cursor)| cursor.name().map(|name| Reverse(Standing { name, cursor: number })))
            .collect();
        let (mut name_now, mut verdict) = (&b""[..], Verdict::Closed);
        while let Some(Reverse(Standing { name, cursor })) = standing.pop() {
            if name != name_now {
                self.close(verdict);
                (name_now, verdict) = (name, Verdict::Open);
            }
            verdict = self.weigh(directory, verdict, cursors[cursor].layer, cursors[cursor].next)?;
            cursors[cursor].next += 1;
            if let Some(name) = cursors[cursor].name() {
                standing.push(Reverse(Standing { name, cursor }));
            }
        }
        self.close(verdict);
        let record = &mut self.directories[directory.0 as usize];
        (record.first, record.count) = (first, self.names.len() as u32 - first);
        Ok(())
    }

    /// Ends a name: no lower layer has a say.
    fn close(&mut self, verdict: Verdict) {
        if let Verdict::Directory(directory) = verdict {
            self.settle(directory);
        }
    }

    /// Ends a directory whose layers are all collected. The one that it is in was ended before, when its names were not looked at yet.
    fn settle(&mut self, directory: Directory) {
        let Directory { id, sources, is_opaque, .. } = directory;
        let parent = self.directories[id.0 as usize].parent;
        let is_opaque = is_opaque || self.directories[parent.0 as usize].is_opaque;
        self.directories[id.0 as usize].is_opaque = is_opaque && self.whiteouts == Whiteouts::Shown;
        self.waiting.push_back(sources);
    }

    /// Whether a whiteout in a directory is to be shown: whether it could hide something that lies below the tree.
    fn shows_whiteouts(&self, directory: DirectoryId) -> bool {
        self.whiteouts == Whiteouts::Shown && !self.directories[directory.0 as usize].is_opaque
    }

    /// Hears the next lower layer about a name.
    fn weigh(&mut self, parent: DirectoryId, verdict: Verdict, layer: u16, dirent: u32) -> Result<Verdict, IndexError> {
        if matches!(verdict, Verdict::Closed) {
            return Ok(Verdict::Closed);
        }
        let index = &self.layers[usize::from(layer)];
        let record = index.dirent_record(dirent);
        let id = FileId { layer, inode: record.target };
        let is_directory = record.kind == format::DIRENT_INODE && index.inode(record.target).kind() == InodeKind::Directory;
        match verdict {
            Verdict::Directory(mut directory) if is_directory => {
                join(&mut self.directories, &mut directory, index, id);
                return Ok(Verdict::Directory(directory));
            }
            // What is no directory hides the directories below it from the one above it.
            Verdict::Directory(mut directory) => {
                directory.is_opaque = true;
                self.settle(directory);
                return Ok(Verdict::Closed);
            }
            Verdict::Open | Verdict::Closed => {}
        }
        let is_whiteout = record.kind == format::DIRENT_WHITEOUT;
        if is_whiteout && !self.shows_whiteouts(parent) {
            return Ok(Verdict::Closed);
        }
        if self.names.len() >= limits::TREE_NAMES_MAX {
            return Err(IndexError::limit("names in the image", limits::TREE_NAMES_MAX as u64));
        }
        let mut name = NameRecord {
            name_at: record.name_at,
            name_bytes: record.name_bytes as u8,
            name_layer: layer,
            target: record.target,
            file_layer: layer,
            kind: if is_whiteout { NameKind::Whiteout } else { NameKind::File },
        };
        if is_directory {
            let mut directory = self.directory(parent, id);
            self.directories[parent.0 as usize].nlink += 1;
            join(&mut self.directories, &mut directory, index, id);
            (name.target, name.file_layer, name.kind) = (directory.id.0, 0, NameKind::Directory);
            self.names.push(name);
            return Ok(Verdict::Directory(directory));
        }
        if record.kind == format::DIRENT_LOWER_LINK {
            let file = lower_link(self.layers, layer, index.lower_link(record.target), &mut self.lookups_left)?;
            self.lower_linked.push(file);
            (name.target, name.file_layer) = (file.inode, file.layer);
        }
        self.names.push(name);
        Ok(Verdict::Closed)
    }
}

/// Adds a layer's directory below those that `directory` already has.
fn join(records: &mut [DirectoryRecord], directory: &mut Directory, index: &LayerIndex, id: FileId) {
    let inode = index.inode(id.inode);
    if !directory.is_opaque {
        directory.sources.push(id);
        directory.is_opaque = inode.is_opaque();
    }
    if !directory.is_described && !inode.is_implied() {
        directory.is_described = true;
        let record = &mut records[directory.id.0 as usize];
        (record.attributes_layer, record.attributes_inode) = (id.layer, id.inode);
    }
}
