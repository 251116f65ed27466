//! A layer in use.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use memmap2::{Mmap, MmapOptions};
use snap_digest::Digest;

use crate::build::BuildOutcome;
use crate::cache::Inner;
use crate::data::{ChunkLayout, LayerData};
use crate::layout::LayerPaths;
use crate::limits::{CHANGE_WAIT_MS, MAX_RACE_ATTEMPTS};
use crate::lock::{self, Acquired, Mode};
use crate::staging::remove_if_present;
use crate::{Error, build};

/// A layer that is not evicted while this lives. A build or data opened through it keeps the layer too.
#[derive(Debug)]
pub struct Lease {
    held: Arc<Held>,
}

/// What a lease and everything opened through it share.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) cache: Arc<Inner>,
    pub(crate) layer: Digest,
    pub(crate) paths: LayerPaths,
    /// The index that this lease read or built last.
    index: Mutex<Option<KnownIndex>>,
    _lock: File,
}

/// Which file the index is. Keeping it open keeps its inode number from being used again.
#[derive(Debug)]
struct KnownIndex {
    file: File,
}

/// The bytes of a layer's index, mapped. They do not change: an index file is never written once it has its name.
#[derive(Debug)]
pub struct IndexBytes(Mmap);

impl Deref for IndexBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for IndexBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Lease {
    pub(crate) fn take(cache: Arc<Inner>, layer: Digest) -> Result<Self, Error> {
        let paths = cache.layout.layer(&layer);
        for _ in 0..MAX_RACE_ATTEMPTS {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(paths.dir());
            made.map_err(|error| Error::io("create", paths.dir(), error))?;
            if let Acquired::Held(lock) = lock::acquire(&paths.lock(), Mode::Shared)? {
                touch(&paths.used())?;
                return Ok(Self { held: Arc::new(Held { cache, layer, paths, index: Mutex::new(None), _lock: lock }) });
            }
        }
        Err(Error::Contended { path: paths.lock() })
    }

    /// The layer.
    pub fn digest(&self) -> Digest {
        self.held.layer
    }

    /// The layer's index, if it was built. [`Self::open_data`] then takes it that its chunks are those of this index.
    ///
    /// # Errors
    /// [`Error::Io`] if the file is there but cannot be mapped.
    pub fn read_index(&self) -> Result<Option<IndexBytes>, Error> {
        let path = self.held.paths.index();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path, error)),
        };
        // SAFETY: the file got its name when it was whole and is only ever unlinked after that, so the mapped bytes stay as
        // they are; nobody but this crate writes into the directory, as the crate's documentation demands.
        let map = unsafe { MmapOptions::new().map_copy_read_only(&file) }.map_err(|error| Error::io("map", &path, error))?;
        self.held.remember_index(file);
        Ok(Some(IndexBytes(map)))
    }

    /// Removes the index that this lease read, with the data laid out by it, because it is damaged. Does nothing if another
    /// process did so first, whether or not a new one is there. Whoever has the data open keeps the old, unlinked files.
    ///
    /// # Errors
    /// [`Error::Busy`] while a build of this layer is under way, [`Error::Io`].
    pub fn discard_index(&self) -> Result<(), Error> {
        let _change = self.held.change_now()?;
        if self.held.index_is_current()? {
            remove_if_present(&self.held.paths.index())?;
            self.held.remove_files()?;
        }
        Ok(())
    }

    /// Becomes the one process that builds this layer's index, or waits until `deadline` for the one that does.
    ///
    /// # Errors
    /// [`Error::Busy`] if the other build is not done by then, [`Error::NoSpace`], [`Error::Io`].
    pub fn begin_build(&self, deadline: Instant) -> Result<BuildOutcome, Error> {
        build::begin(&self.held, deadline)
    }

    /// Opens the data file and the presence map of a layer whose index was read or built through this lease, and makes them
    /// if they are missing. `chunks` is that index's chunk table.
    ///
    /// # Errors
    /// [`Error::IndexChanged`] if the index is not the one that was read any more: read it again. [`Error::Busy`] while another
    /// process changes the layer, [`Error::TooManyChunks`], [`Error::NoSpace`], [`Error::Io`].
    pub fn open_data(&self, chunks: Arc<dyn ChunkLayout>) -> Result<LayerData, Error> {
        LayerData::open(&self.held, chunks)
    }
}

impl Held {
    /// Takes the right to change which files the layer consists of.
    pub(crate) fn change(&self, deadline: Instant) -> Result<File, Error> {
        lock::exclusive_until(&self.paths.build(), deadline)?.ok_or(Error::Busy { layer: self.layer })
    }

    /// As [`Self::change`], for changes that take a moment.
    pub(crate) fn change_now(&self) -> Result<File, Error> {
        self.change(Instant::now() + Duration::from_millis(CHANGE_WAIT_MS))
    }

    pub(crate) fn has_index(&self) -> Result<bool, Error> {
        exists(&self.paths.index())
    }

    pub(crate) fn remember_index(&self, file: File) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Some(KnownIndex { file });
    }

    /// Whether the layer's index is the file that this lease read or built. Steady only under [`Self::change`].
    pub(crate) fn index_is_current(&self) -> Result<bool, Error> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &*index else { return Ok(false) };
        let path = self.paths.index();
        let known = known.file.metadata().map_err(|error| Error::io("stat", &path, error))?;
        match path.symlink_metadata() {
            Ok(named) => Ok((named.dev(), named.ino()) == (known.dev(), known.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("stat", path, error)),
        }
    }

    /// Unlinks data and map. The map goes first: without data it would promise what is not there.
    pub(crate) fn remove_files(&self) -> Result<(), Error> {
        remove_if_present(&self.paths.present())?;
        remove_if_present(&self.paths.data())
    }
}

impl Drop for Held {
    /// The end of a use is a use: a layer that was mounted for long is not the first to go.
    fn drop(&mut self) {
        if let Err(error) = touch(&self.paths.used()) {
            tracing::debug!(layer = %self.layer, %error, "time of last use not noted");
        }
    }
}

pub(crate) fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(|error| Error::io("stat", path, error))
}

fn touch(path: &Path) -> Result<(), Error> {
    let touched = File::options().write(true).create(true).truncate(false).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    touched.map_err(|error| Error::io("touch", path, error))
}
