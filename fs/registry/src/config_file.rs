//! Replaces docker's configuration file: whole or not at all, one writer at a time, its mode never wider than its owner's.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::docker_config::{DockerConfigError, read_config};
use crate::limits::{CONFIG_LOCK_PAUSE, CONFIG_LOCK_TIMEOUT, CONFIG_SYMLINKS_MAX, DOCKER_CONFIG_MAX_BYTES};

/// What a new file may be read by: its owner.
const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Has `change` turn the bytes of the file at `path`, none if it is not there, into others, which replace them; or into `None`, and
/// nothing is written. Whether the file was replaced.
///
/// A symbolic link is followed: the file that it leads to is replaced. No other call does the same to the file meanwhile, in any
/// process; docker itself takes no part in that.
pub(crate) fn update(
    path: &Path,
    change: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>, DockerConfigError>,
) -> Result<bool, DockerConfigError> {
    let failed = |source| DockerConfigError::Io { path: path.to_owned(), source };
    let target = resolved(path).map_err(failed)?;
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
    let _lock = locked(&beside(&target, "", ".lock"))?;
    let Some(bytes) = change(&read_config(&target)?.unwrap_or_default())? else { return Ok(false) };
    if bytes.len() as u64 > DOCKER_CONFIG_MAX_BYTES {
        return Err(DockerConfigError::TooLarge { path: path.to_owned() });
    }
    let temporary = beside(&target, ".", &format!(".{:016x}", RandomState::new().build_hasher().finish()));
    let written = write(&temporary, &target, &bytes).and_then(|()| std::fs::rename(&temporary, &target));
    if let Err(source) = written {
        // What was half written is of no use to anyone; if even this fails, the first failure says more.
        let _ = std::fs::remove_file(&temporary);
        return Err(failed(source));
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(true)
}

/// Where the symbolic links at `path` lead, whether or not there is a file.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..CONFIG_SYMLINKS_MAX {
        match std::fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            // No link, or nothing there yet.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => return Ok(target),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links"))
}

/// The file beside `target` whose name is the target's between `before` and `after`.
fn beside(target: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(before);
    name.push(target.file_name().unwrap_or_default());
    name.push(after);
    target.with_file_name(name)
}

/// Holds the lock file at `path` until this is dropped. The file stays: another may be waiting for it.
fn locked(path: &Path) -> Result<File, DockerConfigError> {
    let failed = |source| DockerConfigError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path).map_err(failed)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < CONFIG_LOCK_TIMEOUT => std::thread::sleep(CONFIG_LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(DockerConfigError::Locked { path: path.to_owned(), after: CONFIG_LOCK_TIMEOUT });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Writes `bytes` to the new file `temporary`, with owner and mode of the file at `target`, down to the disk.
fn write(temporary: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = match std::fs::metadata(target) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(temporary)?;
    file.write_all(bytes)?;
    if let Some(old) = &old {
        keep_owner(&file, old)?;
    }
    // Group and others get nothing, and the owner no more than before.
    let mode = old.map_or(MODE, |old| old.permissions().mode() & MODE);
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Gives `file` the owner that `old` has. A group that may not be given is none that could read the file.
fn keep_owner(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if new.uid() != old.uid() {
        fchown(file, Some(old.uid()), Some(old.gid()))
    } else if new.gid() != old.gid() {
        let _ = fchown(file, None, Some(old.gid()));
        Ok(())
    } else {
        Ok(())
    }
}
