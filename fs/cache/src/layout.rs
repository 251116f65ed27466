//! Where everything is; the table in the crate's documentation, as code.

use std::path::{Path, PathBuf};

use snap_digest::Digest;

const SHA256: &str = "sha256";

/// Paths below the cache directory.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// Paths of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerPaths {
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directories that exist in every open cache.
    pub(crate) fn directories(&self) -> [PathBuf; 5] {
        [self.layers(), self.documents(), self.references(), self.staging(), self.removed()]
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers").join(SHA256)
    }

    pub(crate) fn layer(&self, layer: &Digest) -> LayerPaths {
        LayerPaths { dir: self.layers().join(layer.hex()) }
    }

    pub(crate) fn documents(&self) -> PathBuf {
        self.root.join("documents").join(SHA256)
    }

    pub(crate) fn references(&self) -> PathBuf {
        self.root.join("references").join(SHA256)
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn removed(&self) -> PathBuf {
        self.root.join("removed")
    }
}

impl LayerPaths {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(crate) fn build(&self) -> PathBuf {
        self.dir.join("build")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn present(&self) -> PathBuf {
        self.dir.join("present")
    }

    pub(crate) fn used(&self) -> PathBuf {
        self.dir.join("used")
    }
}

/// The layer whose directory has this name, if it is one.
pub(crate) fn layer_of(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("{SHA256}:{}", name.to_str()?).parse().ok()
}
