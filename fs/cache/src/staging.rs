//! Files on their way to their name.
//!
//! A staged file is complete before it gets its name. Its writer holds an exclusive `flock` on it, so a sweep can tell the
//! files of killed processes from those in the making, whatever process IDs or clocks say.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;
use crate::layout::Layout;
use crate::limits::MAX_RACE_ATTEMPTS;
use crate::lock::{self, Acquired, Mode};

/// A file in `staging/` that is removed unless it is published.
#[derive(Debug)]
pub(crate) struct StagedFile {
    file: File,
    path: PathBuf,
    published: bool,
}

impl StagedFile {
    /// A new, empty, locked file.
    pub(crate) fn create(layout: &Layout) -> Result<Self, Error> {
        let dir = layout.staging();
        for _ in 0..MAX_RACE_ATTEMPTS {
            let path = dir.join(unique_name());
            let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => file,
                // A process of the same number in another PID namespace.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("create", path, error)),
            };
            // A sweep may have taken it for a leftover before it was locked.
            if let Acquired::Held(file) = lock::take(file, &path, Mode::TryExclusive)? {
                return Ok(Self { file, path, published: false });
            }
        }
        Err(Error::Contended { path: dir })
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Gives the file its name, replacing what had it. Not durable: a crash of the machine may undo it or lose bytes.
    pub(crate) fn publish(mut self, target: &Path) -> Result<File, Error> {
        self.rename(target)?;
        self.handle()
    }

    /// As [`Self::publish`], and when this returns, neither bytes nor name can be lost.
    pub(crate) fn publish_durably(mut self, target: &Path) -> Result<File, Error> {
        self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error))?;
        self.rename(target)?;
        if let Some(dir) = target.parent() {
            sync_directory(dir)?;
        }
        self.handle()
    }

    fn rename(&mut self, target: &Path) -> Result<(), Error> {
        fs::rename(&self.path, target).map_err(|error| Error::io("rename to", target, error))?;
        self.published = true;
        Ok(())
    }

    fn handle(&self) -> Result<File, Error> {
        self.file.unlock().and_then(|()| self.file.try_clone()).map_err(|error| Error::io("reopen", &self.path, error))
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "staged file stays until the next prune");
        }
    }
}

/// A name that no other file of this process has.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Error::io("sync", dir, error))
}

/// Removes `path` if it is there.
pub(crate) fn remove_if_present(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}
