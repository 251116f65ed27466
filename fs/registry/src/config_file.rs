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
    replace(&target, &bytes).and_then(|()| File::open(directory)?.sync_all()).map_err(failed)?;
    Ok(true)
}

/// Puts a file of `bytes` in the place of the one at `target`.
fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(target, ".", &format!(".{:016x}", RandomState::new().build_hasher().finish()));
    write(&temporary, target, bytes).and_then(|()| std::fs::rename(&temporary, target)).inspect_err(|_| {
        // What was half written is of no use to anyone; if even this fails, the first failure says more.
        let _ = std::fs::remove_file(&temporary);
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(path: &Path, with: &str) -> Result<bool, DockerConfigError> {
        update(path, |_| Ok(Some(with.as_bytes().to_vec())))
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_and_its_directory_are_made_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/config.json");
        assert!(replaced(&path, "new").unwrap());
        assert_eq!((std::fs::read(&path).unwrap(), mode(&path), mode(&dir.path().join("a/b"))), (b"new".to_vec(), 0o600, 0o700));
        assert_eq!(names(path.parent().unwrap()), ["config.json", "config.json.lock"]);
    }

    #[test]
    fn a_mode_is_made_narrower_and_never_wider() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for (before, after) in [(0o644, 0o600), (0o600, 0o600), (0o400, 0o400)] {
            std::fs::write(dir.path().join("next"), "old").unwrap();
            std::fs::rename(dir.path().join("next"), &path).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            assert!(replaced(&path, "new").unwrap());
            assert_eq!(mode(&path), after, "{before:o}");
        }
    }

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (link, middle) = (dir.path().join("config.json"), dir.path().join("middle"));
        std::os::unix::fs::symlink("middle", &link).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere/real.json"), &middle).unwrap();
        // First it leads to nothing.
        for text in ["one", "two"] {
            assert!(replaced(&link, text).unwrap());
            assert_eq!(std::fs::read_to_string(dir.path().join("elsewhere/real.json")).unwrap(), text);
        }
        assert!(link.is_symlink() && middle.is_symlink());
        std::fs::remove_file(&middle).unwrap();
        std::os::unix::fs::symlink("config.json", &middle).unwrap();
        assert!(matches!(replaced(&link, "x"), Err(DockerConfigError::Io { .. })));
    }

    #[test]
    fn what_fails_or_changes_nothing_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "old").unwrap();
        assert!(!update(&path, |bytes| Ok((bytes != b"old").then(Vec::new))).unwrap());
        assert!(matches!(update(&path, |_| Err(DockerConfigError::NoPath)), Err(DockerConfigError::NoPath)));
        let long = vec![b' '; DOCKER_CONFIG_MAX_BYTES as usize + 1];
        assert!(matches!(update(&path, |_| Ok(Some(long))), Err(DockerConfigError::TooLarge { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        // Where the new file cannot take the place of the old one, nothing is left of it.
        let directory = dir.path().join("directory");
        std::fs::create_dir_all(directory.join("not empty")).unwrap();
        assert!(replace(&directory, b"new").is_err());
        assert_eq!(names(dir.path()), ["config.json", "config.json.lock", "directory"]);
    }

    #[test]
    fn writers_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let writers = 8;
        let append = |byte: u8| update(&path, move |bytes| Ok(Some([bytes, &[byte]].concat()))).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..writers {
                scope.spawn(move || (0..10).for_each(|_| assert!(append(b'a' + writer))));
            }
        });
        let written = std::fs::read(&path).unwrap();
        let count = |writer: u8| written.iter().filter(|byte| **byte == b'a' + writer).count();
        assert_eq!((0..writers).map(count).collect::<Vec<_>>(), [10; 8]);
    }
}
