//! The reference: a layer as a map of what unpacking it leaves, and the image as a map that layers are stacked onto, one by one.

use std::collections::BTreeMap;

use snap_index::{DirectoryId, ImageTree, Node};

use super::layers::{Entry, Kind, Path};

/// What one layer has at a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Unpacked {
    /// `entry`: the one that describes it, if any does.
    Directory {
        entry: Option<Entry>,
        opaque: bool,
    },
    /// Equal entries are one inode.
    File(Entry),
    Whiteout,
    LowerLink(Path),
}

pub(crate) type Layer = BTreeMap<Path, Unpacked>;

/// The crate must refuse the image.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused;

/// Unpacks entries; gives those that could be, too: an entry below a symbolic link or something else that is no directory is left out,
/// and so is a hard link whose target's path leads through a symbolic link.
/// There is no layer where a hard link names a directory.
pub(crate) fn unpack(entries: &[Entry]) -> (Option<Layer>, Vec<Entry>) {
    let mut layer = Layer::new();
    let mut taken = Vec::new();
    let symlinks: Vec<&Path> = entries.iter().filter(|entry| matches!(entry.kind, Kind::Symlink(_))).map(|entry| &entry.path).collect();
    let leads_through = |target: &Path| symlinks.iter().any(|link| link.len() < target.len() && target.starts_with(link));
    for entry in entries {
        if matches!(&entry.kind, Kind::HardLink(target) if leads_through(target)) {
            continue;
        }
        if unpack_one(&mut layer, entry) {
            taken.push(entry.clone());
        }
    }
    // A hard link may come before its target, also through another hard link.
    loop {
        let resolved = layer.iter().find_map(|(path, node)| match node {
            Unpacked::LowerLink(target) => match layer.get(target) {
                Some(file @ (Unpacked::File(_) | Unpacked::Directory { .. })) => Some((path.clone(), file.clone())),
                _ => None,
            },
            _ => None,
        });
        match resolved {
            Some((_, Unpacked::Directory { .. })) => return (None, taken),
            Some((path, file)) => layer.insert(path, file),
            None => return (Some(layer), taken),
        };
    }
}

fn unpack_one(layer: &mut Layer, entry: &Entry) -> bool {
    // The opaque marker is a name in the directory, so the directory is one of its parents.
    let parents = if entry.kind == Kind::Opaque { entry.path.len() } else { entry.path.len() - 1 };
    let parents: Vec<Path> = (1..=parents).map(|count| entry.path[..count].to_vec()).collect();
    if parents.iter().any(|parent| matches!(layer.get(parent), Some(Unpacked::File(_) | Unpacked::LowerLink(_)))) {
        return false;
    }
    if let Kind::HardLink(target) = &entry.kind
        && (matches!(layer.get(target), Some(Unpacked::Directory { .. })) || parents.contains(target))
    {
        return false;
    }
    for parent in parents {
        let opaque = layer.get(&parent) == Some(&Unpacked::Whiteout);
        if opaque || !layer.contains_key(&parent) {
            layer.insert(parent, Unpacked::Directory { entry: None, opaque });
        }
    }
    let before = layer.get(&entry.path).cloned();
    let now = match (&entry.kind, before) {
        (Kind::Opaque, Some(Unpacked::Directory { entry, .. })) => Unpacked::Directory { entry, opaque: true },
        (Kind::Whiteout, Some(Unpacked::Directory { entry, .. })) => Unpacked::Directory { entry, opaque: true },
        (Kind::Whiteout, Some(other)) => other,
        (Kind::Whiteout | Kind::Opaque, _) => Unpacked::Whiteout,
        (Kind::Directory, Some(Unpacked::Directory { opaque, .. })) => Unpacked::Directory { entry: Some(entry.clone()), opaque },
        (Kind::Directory, before) => Unpacked::Directory { entry: Some(entry.clone()), opaque: before.is_some() },
        (Kind::HardLink(target), _) => match layer.get(target) {
            Some(file @ Unpacked::File(_)) => file.clone(),
            _ => Unpacked::LowerLink(target.clone()),
        },
        _ => Unpacked::File(entry.clone()),
    };
    if !matches!(now, Unpacked::Directory { .. }) {
        remove_below(layer, &entry.path);
    }
    layer.insert(entry.path.clone(), now);
    true
}

fn remove_below<T>(tree: &mut BTreeMap<Path, T>, directory: &Path) {
    tree.retain(|path, _| !(path.len() > directory.len() && path.starts_with(directory)));
}

/// What the image has at a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stacked {
    /// The entry whose attributes it has, if any describes it.
    Directory(Option<Entry>),
    File(Entry),
}

pub(crate) type Image = BTreeMap<Path, Stacked>;

/// Lays one more layer over an image.
pub(crate) fn stack(image: &mut Image, layer: &Layer) -> Result<(), Refused> {
    let below = image.clone();
    // Parents come before what is in them.
    for (path, node) in layer {
        match node {
            Unpacked::Whiteout => {
                remove_below(image, path);
                image.remove(path);
            }
            Unpacked::Directory { entry, opaque } => {
                if *opaque {
                    remove_below(image, path);
                }
                let lower = match image.get(path) {
                    Some(Stacked::Directory(lower)) => lower.clone(),
                    _ => None,
                };
                image.insert(path.clone(), Stacked::Directory(entry.clone().or(lower)));
            }
            Unpacked::File(entry) => {
                remove_below(image, path);
                image.insert(path.clone(), Stacked::File(entry.clone()));
            }
            Unpacked::LowerLink(target) => {
                let Some(Stacked::File(entry)) = below.get(target) else { return Err(Refused) };
                remove_below(image, path);
                image.insert(path.clone(), Stacked::File(entry.clone()));
            }
        }
    }
    Ok(())
}

/// The one layer that a tree with its whiteouts stands for. Its inodes are told by their owner; an implied directory has none.
pub(crate) fn one_layer(tree: &ImageTree, layers: &[Vec<Entry>]) -> Layer {
    let entry = |node: Node| {
        let uid = tree.attributes(node).uid;
        layers.iter().flatten().find(|entry| entry.uid == uid).cloned()
    };
    let mut layer = Layer::new();
    let mut ahead = vec![(DirectoryId::ROOT, Path::new())];
    while let Some((directory, path)) = ahead.pop() {
        for (name, node) in tree.entries(directory, 0) {
            let mut path = path.clone();
            path.push(String::from_utf8(name.to_vec()).unwrap());
            let unpacked = match node {
                Node::Directory(inner) => {
                    ahead.push((inner, path.clone()));
                    Unpacked::Directory { entry: entry(node), opaque: tree.is_opaque(inner) }
                }
                Node::File(_) | Node::Relinked(_) => Unpacked::File(entry(node).unwrap()),
                Node::Whiteout => Unpacked::Whiteout,
            };
            layer.insert(path, unpacked);
        }
    }
    layer
}
