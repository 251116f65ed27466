//! Hard links of a layer: to an entry that came before, to one that comes later, or to what a lower layer has.

use crate::error::IndexError;
use crate::limits;
use crate::path::components;

use super::{Builder, Child, NodeKind, NodeNumber, ROOT};

/// A link whose target the layer does not have yet.
pub(super) struct PendingLink {
    parent: NodeNumber,
    name: Box<[u8]>,
    target: Vec<u8>,
}

impl Builder {
    pub(super) fn link(&mut self, path: &[u8], parent: NodeNumber, name: &[u8], target: Vec<u8>) -> Result<(), IndexError> {
        if let Some(node) = self.link_target(path, &target)? {
            return self.put(parent, name, Child::Node(node));
        }
        let clean = components(&target)?.join(&b'/');
        if clean.is_empty() {
            return Err(IndexError::entry(path, "it is a hard link to the root"));
        }
        self.pending.push(PendingLink { parent, name: name.into(), target: clean.clone() });
        self.put(parent, name, Child::LowerLink(clean))
    }

    /// The node of this layer that a hard link names, if it is there. Symbolic links among its parents are followed; the last component
    /// is not, since a symbolic link can have several names too.
    fn link_target(&self, path: &[u8], target: &[u8]) -> Result<Option<NodeNumber>, IndexError> {
        let mut walked = vec![ROOT];
        let mut ahead: Vec<&[u8]> = components(target)?.into_iter().rev().collect();
        let mut followed = 0;
        while let Some(name) = ahead.pop() {
            if matches!(name, b"" | b".") {
                continue;
            }
            if name == b".." {
                walked.truncate(walked.len().saturating_sub(1).max(1));
                continue;
            }
            let Some(&Child::Node(next)) = self.children(*walked.last().unwrap_or(&ROOT)).get(name) else { return Ok(None) };
            match &self.nodes[next].kind {
                NodeKind::Symlink { target } if !ahead.is_empty() => {
                    followed += 1;
                    if followed > limits::SYMLINKS_FOLLOWED_MAX || ahead.len() > limits::PATH_COMPONENTS_MAX {
                        return Ok(None);
                    }
                    if target.starts_with(b"/") {
                        walked.truncate(1);
                    }
                    ahead.extend(target.split(|&byte| byte == b'/').rev());
                }
                _ => walked.push(next),
            }
        }
        let node = *walked.last().unwrap_or(&ROOT);
        if matches!(self.nodes[node].kind, NodeKind::Directory { .. }) {
            return Err(IndexError::entry(path, "it is a hard link to a directory"));
        }
        Ok(Some(node))
    }

    /// Finds the targets that came after their links. A link to a link that is resolved in the same round takes another round.
    pub(super) fn resolve_pending(&mut self) -> Result<(), IndexError> {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        // A later entry may have taken the name, or a directory above it; then the link was replaced and is gone.
        let reached = self.reached();
        pending.retain(|link| reached[link.parent]);
        for _ in 0..limits::LINK_CHAIN_MAX {
            let before = pending.len();
            let mut unresolved = Vec::new();
            for link in pending {
                if !matches!(self.children(link.parent).get(&link.name), Some(Child::LowerLink(path)) if *path == link.target) {
                    continue;
                }
                match self.link_target(&link.name, &link.target)? {
                    Some(node) => self.put(link.parent, &link.name, Child::Node(node))?,
                    None => unresolved.push(link),
                }
            }
            pending = unresolved;
            if pending.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// Which nodes the root still reaches.
    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        let mut ahead = vec![ROOT];
        while let Some(node) = ahead.pop() {
            reached[node] = true;
            ahead.extend(self.children(node).values().filter_map(|child| match child {
                Child::Node(child) if matches!(self.nodes[*child].kind, NodeKind::Directory { .. }) => Some(*child),
                _ => None,
            }));
        }
        reached
    }
}
