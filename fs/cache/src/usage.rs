//! What the cache holds and how much of the disk it takes.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use snap_digest::Digest;

use crate::Error;
use crate::cache::{Cache, entries};
use crate::layout::{LayerPaths, layer_of};
use crate::lock::{self, Acquired, Mode};

/// The unit of `st_blocks`, whatever the file system's block size.
const STAT_BLOCK_BYTES: u64 = 512;

/// One layer in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// The layer.
    pub digest: Digest,
    /// What all its files take on disk, in bytes; holes in the data file take none.
    pub bytes_on_disk: u64,
    /// What of it the data file takes.
    pub data_bytes_on_disk: u64,
    /// The length of the index, in bytes; 0 without one.
    pub index_bytes: u64,
    /// Whether the index is there.
    pub has_index: bool,
    /// When a lease was last taken or given back; the epoch if that is unknown.
    pub last_used: SystemTime,
    /// Whether a process, this one included, holds a lease.
    pub in_use: bool,
}

impl Cache {
    /// The layers in the cache, in no order. Whether one is in use is found by trying its lock: a [`Self::remove`] at the same
    /// moment may take this for a use.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn layers(&self) -> Result<Vec<LayerUsage>, Error> {
        let mut layers = Vec::new();
        for entry in entries(&self.inner.layout.layers())? {
            let Some(digest) = layer_of(&entry.file_name()) else { continue };
            layers.extend(usage_of(digest, &self.inner.layout.layer(&digest))?);
        }
        Ok(layers)
    }

    /// What everything in the cache takes on disk, in bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn usage_bytes(&self) -> Result<u64, Error> {
        bytes_below(self.inner.layout.root())
    }
}

/// `None` if the layer was evicted meanwhile.
fn usage_of(digest: Digest, paths: &LayerPaths) -> Result<Option<LayerUsage>, Error> {
    let in_use = match lock::acquire(&paths.lock(), Mode::TryExclusive)? {
        Acquired::Held(_) => false,
        Acquired::Busy => true,
        Acquired::Gone => return Ok(None),
    };
    let index = metadata(&paths.index())?;
    let used = metadata(&paths.used())?;
    Ok(Some(LayerUsage {
        digest,
        bytes_on_disk: bytes_below(paths.dir())?,
        data_bytes_on_disk: bytes_of(&paths.data())?,
        index_bytes: index.as_ref().map_or(0, Metadata::len),
        has_index: index.is_some(),
        last_used: used.and_then(|used| used.modified().ok()).unwrap_or(SystemTime::UNIX_EPOCH),
        in_use,
    }))
}

/// What the files in and below `dir` take on disk, in bytes. Files that go away meanwhile take none.
pub(crate) fn bytes_below(dir: &Path) -> Result<u64, Error> {
    let mut total = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in entries(&dir)? {
            match metadata(&entry.path())? {
                Some(found) if found.is_dir() => dirs.push(entry.path()),
                Some(found) => total += found.blocks() * STAT_BLOCK_BYTES,
                None => {}
            }
        }
    }
    Ok(total)
}

/// What the file at `path` takes on disk, in bytes; none if there is none.
pub(crate) fn bytes_of(path: &Path) -> Result<u64, Error> {
    Ok(metadata(path)?.map_or(0, |found| found.blocks() * STAT_BLOCK_BYTES))
}

fn metadata(path: &Path) -> Result<Option<Metadata>, Error> {
    match path.symlink_metadata() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("stat", path, error)),
    }
}
