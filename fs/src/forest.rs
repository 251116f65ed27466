//! What one mount shows: one tree, or a directory of them.
//!
//! In a directory every tree is a run of layers, under a name that is a function of the run. A tree is *planted* before anyone can know
//! its name, and that costs nothing; its layers' indexes are opened and merged when it is first looked into. So a process that takes
//! over a mount with many trees answers its first read as soon as it has opened the one tree that is read.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use nix::errno::Errno;
use snap_digest::Digest;
use snap_index::Node;

use crate::error::{FsError, LayerError};
use crate::image_fs::ImageFs;
use crate::numbers::{Number, Prefix};
use crate::open_layers::OpenLayers;
use crate::remote::Run;

/// What a mount shows.
pub(crate) enum Forest {
    /// One tree; its root is the mount's.
    Tree(Arc<ImageFs>),
    /// A directory of trees.
    Directory(Arc<Trees>),
}

/// The trees of a directory.
pub(crate) struct Trees {
    layers: Arc<OpenLayers>,
    planted: RwLock<Planted>,
}

#[derive(Default)]
struct Planted {
    trees: HashMap<Prefix, Arc<Tree>>,
    /// By the prefix of a layer's numbers: the layer, and the trees that have it.
    layers: HashMap<Prefix, (Digest, Vec<Prefix>)>,
}

/// One tree, opened or not.
pub(crate) struct Tree {
    run: Run,
    opened: OnceLock<Arc<ImageFs>>,
    opening: Mutex<()>,
}

impl Forest {
    /// The tree that a number belongs to, and what it stands for there.
    ///
    /// # Errors
    /// ESTALE for a number that nothing here has; EIO for one of a tree that cannot be opened.
    pub(crate) fn node(&self, number: u64) -> Result<(Arc<ImageFs>, Node), Errno> {
        let fs = match self {
            Self::Tree(fs) => Arc::clone(fs),
            Self::Directory(trees) => trees.of_number(number)?,
        };
        let node = fs.node(number).ok_or(Errno::ESTALE)?;
        Ok((fs, node))
    }
}

impl Trees {
    /// None yet.
    pub(crate) fn new(layers: Arc<OpenLayers>) -> Arc<Self> {
        Arc::new(Self { layers, planted: RwLock::default() })
    }

    /// Plants a tree, or finds the one that is there: its name is the prefix as text. Opens nothing.
    ///
    /// # Errors
    /// [`LayerError::NumberCollision`] where two layers or two trees would share their numbers.
    pub(crate) fn plant(&self, run: &Run) -> Result<Prefix, FsError> {
        let prefix = prefix_of(run);
        let mut planted = self.planted.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = planted.trees.get(&prefix) {
            let same = tree.run.below == run.below && tree.digests().eq(run.layers.iter().map(|layer| layer.digest));
            let other = tree.run.layers[0].digest;
            return if same { Ok(prefix) } else { Err(LayerError::NumberCollision { other }.of(run.layers[0].digest)) };
        }
        for layer in &run.layers {
            let known = planted.layers.get(&Prefix::of_layer(&layer.digest));
            if let Some(&(other, _)) = known.filter(|(known, _)| *known != layer.digest) {
                return Err(LayerError::NumberCollision { other }.of(layer.digest));
            }
        }
        for layer in &run.layers {
            let (_, trees) = planted.layers.entry(Prefix::of_layer(&layer.digest)).or_insert_with(|| (layer.digest, Vec::new()));
            if !trees.contains(&prefix) {
                trees.push(prefix);
            }
        }
        planted.trees.insert(prefix, Arc::new(Tree { run: run.clone(), opened: OnceLock::new(), opening: Mutex::new(()) }));
        Ok(prefix)
    }

    /// Fells every tree that is not among `runs`. Gives the names of those that fell.
    pub(crate) fn retain(&self, runs: &[Run]) -> HashSet<Prefix> {
        let keep: HashSet<Prefix> = runs.iter().map(prefix_of).collect();
        let mut planted = self.planted.write().unwrap_or_else(PoisonError::into_inner);
        let felled: HashSet<Prefix> = planted.trees.keys().filter(|prefix| !keep.contains(prefix)).copied().collect();
        planted.trees.retain(|prefix, _| !felled.contains(prefix));
        planted.layers.retain(|_, (_, trees)| {
            trees.retain(|tree| !felled.contains(tree));
            !trees.is_empty()
        });
        felled
    }

    /// The tree with this prefix.
    pub(crate) fn get(&self, prefix: Prefix) -> Option<Arc<Tree>> {
        self.planted.read().unwrap_or_else(PoisonError::into_inner).trees.get(&prefix).cloned()
    }

    /// All trees, by name.
    pub(crate) fn all(&self) -> Vec<(Prefix, Arc<Tree>)> {
        let planted = self.planted.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = planted.trees.iter().map(|(prefix, tree)| (*prefix, Arc::clone(tree))).collect();
        drop(planted);
        all.sort_by_key(|(prefix, _)| prefix.to_string());
        all
    }

    /// The tree's files, opened now where they are not.
    ///
    /// # Errors
    /// EIO, with the reason in the log.
    pub(crate) fn open(&self, tree: &Tree) -> Result<Arc<ImageFs>, Errno> {
        self.open_saying_why(tree).map_err(|error| {
            tracing::error!(tree = %prefix_of(&tree.run), %error, "an image tree cannot be opened");
            Errno::EIO
        })
    }

    /// As [`Self::open`], with the reason.
    pub(crate) fn open_saying_why(&self, tree: &Tree) -> Result<Arc<ImageFs>, FsError> {
        tree.open(&self.layers)
    }

    fn of_number(&self, number: u64) -> Result<Arc<ImageFs>, Errno> {
        let tree = {
            let planted = self.planted.read().unwrap_or_else(PoisonError::into_inner);
            let prefix = match Number::unpack(number).ok_or(Errno::ESTALE)? {
                Number::Directory { tree, .. } | Number::Relinked { tree, .. } => tree,
                // What a file is does not depend on the tree, so one that is open already is as good as any.
                Number::File { layer, .. } => {
                    let (_, trees) = planted.layers.get(&layer).ok_or(Errno::ESTALE)?;
                    let is_open = |prefix: &&Prefix| planted.trees.get(prefix).is_some_and(|tree| tree.is_open());
                    *trees.iter().find(is_open).or(trees.first()).ok_or(Errno::ESTALE)?
                }
                Number::Root | Number::Whiteout => return Err(Errno::ESTALE),
            };
            let tree = planted.trees.get(&prefix).ok_or(Errno::ESTALE)?;
            if let Some(fs) = tree.opened.get() {
                return Ok(Arc::clone(fs));
            }
            Arc::clone(tree)
        };
        self.open(&tree)
    }
}

impl Tree {
    /// The layers it is made of.
    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    /// Whether someone has looked into it.
    pub(crate) fn is_open(&self) -> bool {
        self.opened.get().is_some()
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        self.run.layers.iter().map(|layer| layer.digest)
    }

    fn open(&self, layers: &OpenLayers) -> Result<Arc<ImageFs>, FsError> {
        let _alone = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fs) = self.opened.get() {
            return Ok(Arc::clone(fs));
        }
        let layers = self.run.layers.iter().map(|layer| layers.reopen(layer)).collect::<Result<_, _>>()?;
        let fs = Arc::new(ImageFs::of_run(layers, self.run.below)?);
        Ok(Arc::clone(self.opened.get_or_init(|| fs)))
    }
}

/// The prefix of a run's tree: the numbers of its directories start with it, and its own directory is named by it.
pub(crate) fn prefix_of(run: &Run) -> Prefix {
    Prefix::of_tree(run.layers.iter().map(|layer| &layer.digest), run.below)
}
