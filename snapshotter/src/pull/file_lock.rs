//! Locks that all processes of a machine share, and that the kernel gives up when their holder dies.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A file that is locked. It stays when this is dropped, unlocked.
pub(crate) struct FileLock {
    path: PathBuf,
    _file: Flock<File>,
}

impl FileLock {
    /// Takes the lock at `path`, whose folder is made where it is missing. Nothing: somebody else has it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Self::lock(path, true)
    }

    /// Takes the lock of someone who has died. Nothing: they live, or there never was such a lock.
    pub(crate) fn inherit(path: &Path) -> io::Result<Option<Self>> {
        match Self::lock(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result,
        }
    }

    fn lock(path: &Path, create: bool) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().create(create).truncate(false).write(true).mode(0o600).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) if is_at(&file, path)? => Ok(Some(Self { path: path.to_owned(), _file: file })),
            // Its holder has removed it between our opening and locking it.
            Ok(_) | Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Gives the lock up for good. While it is still held: whoever takes the name afterwards makes a file of their own.
    pub(crate) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a lock's file stays");
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
