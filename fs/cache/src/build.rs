//! Making a layer's index, by one process at a time.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::Error;
use crate::lease::Held;
use crate::presence::{ChunkState, PresenceMap};
use crate::staging::{StagedFile, remove_if_present};

/// What came of wanting to build a layer.
#[derive(Debug)]
pub enum BuildOutcome {
    /// The index is there: it was before, or another process finished it meanwhile.
    Built,
    /// This process is to build it.
    Build(Build),
}

/// The right to build a layer, and its empty data file. Dropped unfinished, it leaves nothing behind; killed, it leaves
/// files that the next build or prune removes.
#[derive(Debug)]
pub struct Build {
    held: Arc<Held>,
    data: BuildData,
    finished: bool,
    /// Released after the rest is cleaned up, as fields are dropped after [`Drop::drop`] ran.
    _change: File,
}

/// The data file of a build: not visible to readers before the build is finished.
#[derive(Debug)]
pub struct BuildData {
    file: File,
    path: PathBuf,
}

pub(crate) fn begin(held: &Arc<Held>, deadline: Instant) -> Result<BuildOutcome, Error> {
    let change = held.change(deadline)?;
    if held.has_index()? {
        return Ok(BuildOutcome::Built);
    }
    // Left by a killed build; or still open in a process that holds an index discarded since. Hence new files.
    held.remove_files()?;
    let path = held.paths.data();
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(|error| Error::io("create", &path, error))?;
    Ok(BuildOutcome::Build(Build { held: Arc::clone(held), data: BuildData { file, path }, finished: false, _change: change }))
}

impl Build {
    /// The data file to fill.
    pub fn data(&self) -> &BuildData {
        &self.data
    }

    /// Commits `index` and the data that was written, all of whose `chunk_count` chunks the caller verified. Durable when it
    /// returns, except for the data: after a crash of the machine its chunks are verified again.
    ///
    /// # Errors
    /// [`Error::TooManyChunks`], [`Error::NoSpace`], [`Error::Io`]; the layer is then as if the build had been dropped.
    pub fn finish(self, index: &[u8], chunk_count: u32) -> Result<(), Error> {
        let cache = &self.held.cache;
        PresenceMap::create(&cache.layout, &self.held.paths.present(), chunk_count, cache.boot, ChunkState::Verified)?;
        self.commit(index)
    }

    /// Commits `index` without any data: chunks are stored later, through [`crate::LayerData`].
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_index_only(self, index: &[u8]) -> Result<(), Error> {
        remove_if_present(&self.data.path)?;
        self.commit(index)
    }

    fn commit(mut self, index: &[u8]) -> Result<(), Error> {
        let mut staged = StagedFile::create(&self.held.cache.layout)?;
        staged.write(index)?;
        let committed = staged.publish_durably(&self.held.paths.index())?;
        self.finished = true;
        self.held.remember_index(committed);
        Ok(())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // The index is there only if making its name durable failed. Then the layer is one without data.
        if let Err(error) = self.held.remove_files() {
            tracing::warn!(layer = %self.held.layer, %error, "files of an unfinished build stay until the next build or prune");
        }
    }
}

impl BuildData {
    /// Writes `bytes` at `offset` of data space.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if the device or quota is full, [`Error::Io`].
    pub fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, offset).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Fills `buf` with what was written at `offset`.
    ///
    /// # Errors
    /// [`Error::Io`], also if less was written.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.read_exact_at(buf, offset).map_err(|error| Error::io("read", &self.path, error))
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }
}
