//! `flock`: who may use, build or evict a layer.
//!
//! The kernel releases these locks when the last descriptor of the open file is closed, so a killed process holds none.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::Error;

/// How a lock is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// Shared; waits for an evictor, which is quick.
    Shared,
    /// Exclusive; [`Acquired::Busy`] if anyone holds it.
    TryExclusive,
}

/// The outcome of taking a lock once.
#[derive(Debug)]
pub(crate) enum Acquired {
    /// Held until the file is dropped, and the path still names it.
    Held(File),
    /// Someone else holds it.
    Busy,
    /// The file or its directory was removed meanwhile.
    Gone,
}

/// Opens the lock file at `path`, making it if need be, and takes it.
///
/// An evictor takes the lock and renames the whole directory away. Whoever opened the file before that and got the lock after
/// holds a lock on nothing; comparing inodes after the lock is held tells.
pub(crate) fn acquire(path: &Path, mode: Mode) -> Result<Acquired, Error> {
    take_opened(open(path), path, mode)
}

/// As [`acquire`], of a file that is not made if it is missing.
pub(crate) fn acquire_existing(path: &Path, mode: Mode) -> Result<Acquired, Error> {
    take_opened(File::open(path), path, mode)
}

fn take_opened(opened: io::Result<File>, path: &Path, mode: Mode) -> Result<Acquired, Error> {
    match opened {
        Ok(file) => take(file, path, mode),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Acquired::Gone),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// Takes the lock on an open `file` that was found or made at `path`.
pub(crate) fn take(file: File, path: &Path, mode: Mode) -> Result<Acquired, Error> {
    let taken = match mode {
        Mode::Shared => uninterrupted(|| file.lock_shared()).map(|()| true),
        Mode::TryExclusive => try_exclusive(&file),
    };
    match taken {
        Ok(true) => {}
        Ok(false) => return Ok(Acquired::Busy),
        Err(error) => return Err(Error::io("lock", path, error)),
    }
    let held = file.metadata().map_err(|error| Error::io("stat", path, error))?;
    match path.symlink_metadata() {
        Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => Ok(Acquired::Held(file)),
        Ok(_) => Ok(Acquired::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Acquired::Gone),
        Err(error) => Err(Error::io("stat", path, error)),
    }
}

/// Takes the exclusive lock of the file at `path`, waiting until `deadline`; `None` if it passes.
///
/// `flock` has no deadline, so a contended lock is waited for by a thread. When the deadline passes first, that thread gets
/// the lock some time later and lets go of it at once.
pub(crate) fn exclusive_until(path: &Path, deadline: Instant) -> Result<Option<File>, Error> {
    let failed = |error| Error::io("lock", path, error);
    let file = open(path).map_err(|error| Error::io("open", path, error))?;
    if try_exclusive(&file).map_err(failed)? {
        return Ok(Some(file));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let wait = move || {
        let held = uninterrupted(|| file.lock()).map(|()| file);
        // The receiver is gone after the deadline; the lock goes with the message.
        let _ = sender.send(held);
    };
    thread::Builder::new().name("cache-lock".to_owned()).spawn(wait).map_err(failed)?;
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(held) => held.map(Some).map_err(failed),
        Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => Ok(None),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn try_exclusive(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn uninterrupted(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
