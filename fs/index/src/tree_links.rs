//! Hard links in an image tree: those that name a lower layer's inode, and inodes that gained or lost names.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{IndexError, shown};
use crate::layer_index::{InodeKind, LayerIndex, Target};
use crate::limits;
use crate::tree::{FileId, NameKind, NameRecord, RelinkedRecord};

/// The inode that the layers below `layer` show at a clean path.
///
/// Symbolic links in the path are not followed.
///
/// # Errors
/// [`IndexError::Entry`] where there is nothing, or a directory; [`IndexError::Limit`] where `lookups_left` reaches 0.
pub(crate) fn lower_link(layers: &[Arc<LayerIndex>], layer: u16, path: &[u8], lookups_left: &mut u32) -> Result<FileId, IndexError> {
    let wrong = |why| IndexError::Entry { path: shown(path), why };
    let (mut below, mut at) = (layer, path);
    // Each turn goes to a lower layer, so it ends.
    loop {
        match top_of(layers, below, at, lookups_left)? {
            Some((_, Target::Whiteout)) | None => return Err(wrong("a hard link names it, and no lower layer has it")),
            Some((found, Target::LowerLink(path))) => (below, at) = (found, path),
            Some((found, Target::Inode(inode))) if layers[usize::from(found)].inode(inode).kind() == InodeKind::Directory => {
                return Err(wrong("a hard link names it, and it is a directory of a lower layer"));
            }
            Some((layer, Target::Inode(inode))) => return Ok(FileId { layer, inode }),
        }
    }
}

/// What the topmost layer below `below` that has a say about a path says about it.
fn top_of<'a>(
    layers: &'a [Arc<LayerIndex>],
    below: u16,
    path: &[u8],
    lookups_left: &mut u32,
) -> Result<Option<(u16, Target<'a>)>, IndexError> {
    // The layers' directories that make up the one that is looked into, the topmost first.
    let mut sources: Vec<FileId> = Vec::new();
    for layer in (0..below).rev() {
        sources.push(FileId { layer, inode: LayerIndex::ROOT });
        if layers[usize::from(layer)].inode(LayerIndex::ROOT).is_opaque() {
            break;
        }
    }
    let mut found = None;
    for name in path.split(|&byte| byte == b'/') {
        let mut inside = Vec::new();
        found = None;
        for FileId { layer, inode } in sources {
            *lookups_left = lookups_left.checked_sub(1).ok_or(IndexError::limit(
                "hard links to lower layers, in directories to look into",
                u64::from(limits::LOWER_LINK_LOOKUPS_MAX),
            ))?;
            let index = &layers[usize::from(layer)];
            let Some(target) = index.lookup(&index.inode(inode), name) else { continue };
            found = found.or(Some((layer, target)));
            let Target::Inode(inode) = target else { break };
            let inode_here = index.inode(inode);
            if inode_here.kind() != InodeKind::Directory {
                break;
            }
            inside.push(FileId { layer, inode });
            if inode_here.is_opaque() {
                break;
            }
        }
        sources = inside;
    }
    Ok(found)
}

/// Finds the inodes whose number of names is not their layer's, and makes their names say so.
///
/// Only inodes with several names in their layer, and those of `lower_linked`, can be among them.
pub(crate) fn relink(layers: &[Arc<LayerIndex>], names: &mut [NameRecord], lower_linked: &[FileId]) -> Vec<RelinkedRecord> {
    let nlink = |file: FileId| layers[usize::from(file.layer)].inode(file.inode).nlink();
    let mut counts: HashMap<FileId, u32> = lower_linked.iter().map(|&file| (file, 0)).collect();
    for file in names.iter().filter_map(file_of) {
        if let Some(count) = counts.get_mut(&file) {
            *count += 1;
        } else if nlink(file) != 1 {
            counts.insert(file, 1);
        }
    }
    counts.retain(|&file, count| *count != nlink(file));
    let mut relinked = Vec::new();
    let mut numbers: HashMap<FileId, u32> = HashMap::new();
    for name in names.iter_mut() {
        let Some(file) = file_of(name) else { continue };
        let Some(&nlink) = counts.get(&file) else { continue };
        name.target = *numbers.entry(file).or_insert_with(|| {
            relinked.push(RelinkedRecord { file, nlink });
            relinked.len() as u32 - 1
        });
        (name.file_layer, name.kind) = (0, NameKind::Relinked);
    }
    relinked
}

fn file_of(name: &NameRecord) -> Option<FileId> {
    (name.kind == NameKind::File).then_some(FileId { layer: name.file_layer, inode: name.target })
}
