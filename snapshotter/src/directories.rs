//! The directories of ordinary snapshots.
//!
//! ```text
//! s/<id>/fs      what was written: the overlay's upper directory, later a lower one
//! s/<id>/work    the overlay's work directory, of active snapshots only
//! s/rm-<id>      on its way out
//! ```
//! A directory is made before the snapshot's record and renamed away after it, so after a crash there may be directories that
//! no record names: [`Directories::sweep`] removes them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::record::Kind;

/// Removed directories, until somebody has the time to delete what is in them.
const TOMBSTONE: &str = "rm-";

/// The user and the group that own a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) struct Directories {
    root: PathBuf,
    /// IDs whose record is not there yet. A sweep leaves them alone.
    unfiled: Mutex<HashSet<u64>>,
    sweeping: Mutex<()>,
}

impl Directories {
    /// The directories below `parent`.
    pub(crate) fn open(parent: &Path) -> Result<Self, Error> {
        let root = parent.join("s");
        match root.to_str() {
            Some(text) if !text.contains([':', ',', '\\']) => {}
            _ => return Err(Error::AwkwardPath { path: root }),
        }
        make_directory(&root, 0o700, true)?;
        Ok(Self { root, unfiled: Mutex::default(), sweeping: Mutex::default() })
    }

    /// What the snapshot holds: an upper or a lower directory.
    pub(crate) fn content(&self, id: u64) -> PathBuf {
        self.root.join(id.to_string()).join("fs")
    }

    /// The work directory of an active snapshot.
    pub(crate) fn work(&self, id: u64) -> PathBuf {
        self.root.join(id.to_string()).join("work")
    }

    /// Makes the directory of a new snapshot, whose root belongs to `owner`. Follow with [`Self::filed`] or [`Self::discard`].
    pub(crate) fn create(&self, id: u64, kind: Kind, owner: Owner) -> Result<(), Error> {
        self.unfiled().insert(id);
        let made = self.create_files(id, kind, owner);
        if made.is_err() {
            self.discard(id);
        }
        made
    }

    fn create_files(&self, id: u64, kind: Kind, owner: Owner) -> Result<(), Error> {
        make_directory(&self.root.join(id.to_string()), 0o700, false)?;
        let content = self.content(id);
        make_directory(&content, 0o755, false)?;
        if kind == Kind::Active {
            make_directory(&self.work(id), 0o711, false)?;
        }
        lchown(&content, Some(owner.uid), Some(owner.gid)).map_err(Error::io("change the owner of", &content))
    }

    /// The snapshot has its record.
    pub(crate) fn filed(&self, id: u64) {
        self.unfiled().remove(&id);
    }

    /// The snapshot gets no record after all.
    pub(crate) fn discard(&self, id: u64) {
        self.bury(id);
        self.filed(id);
    }

    /// Takes the directory of a snapshot away, quickly. What fails here is left to the next sweep.
    pub(crate) fn bury(&self, id: u64) {
        let from = self.root.join(id.to_string());
        match fs::rename(&from, self.root.join(format!("{TOMBSTONE}{id}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %from.display(), %error, "cannot take a removed snapshot's directory away; a later cleanup will");
            }
            _ => {}
        }
    }

    /// Deletes every directory that no snapshot has: tombstones, and what a crash left. `filed` reads the IDs that have a record.
    pub(crate) fn sweep(&self, filed: impl FnOnce() -> Result<HashSet<u64>, Error>) -> Result<(), Error> {
        let _one_at_a_time = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        // The order matters: a directory seen here is filed, or still unfiled in the copy, or about to go.
        let entries = fs::read_dir(&self.root).map_err(Error::io("list", &self.root))?;
        let entries = entries.collect::<io::Result<Vec<_>>>().map_err(Error::io("list", &self.root))?;
        let mut kept = self.unfiled().clone();
        kept.extend(filed()?);
        for entry in entries {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.parse::<u64>().ok());
            if id.is_some_and(|id| kept.contains(&id)) {
                continue;
            }
            let path = entry.path();
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot delete the directory of a removed snapshot");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unfiled(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.unfiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a directory with exactly `mode`, whatever the process's umask is.
fn make_directory(path: &Path, mode: u32, may_exist: bool) -> Result<(), Error> {
    fs::DirBuilder::new().mode(mode).recursive(may_exist).create(path).map_err(Error::io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("change the mode of", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn names(directories: &Directories) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&directories.root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_sweep_leaves_what_is_filed_or_about_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories::open(dir.path()).unwrap();
        let metadata = fs::metadata(dir.path()).unwrap();
        let owner = Owner { uid: metadata.uid(), gid: metadata.gid() };
        for id in [1, 2, 3, 4] {
            directories.create(id, Kind::Active, owner).unwrap();
        }
        directories.filed(1);
        directories.filed(3);
        directories.bury(3);
        directories.discard(4);
        fs::create_dir_all(directories.root.join("17/fs/left/by/a/crash")).unwrap();
        assert_eq!(names(&directories), ["1", "17", "2", "rm-3", "rm-4"]);
        directories.sweep(|| Ok(HashSet::from([1]))).unwrap();
        assert_eq!(names(&directories), ["1", "2"]);
    }

    #[test]
    fn modes_do_not_depend_on_the_umask_and_views_have_no_work_directory() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories::open(dir.path()).unwrap();
        let metadata = fs::metadata(dir.path()).unwrap();
        directories.create(1, Kind::View, Owner { uid: metadata.uid(), gid: metadata.gid() }).unwrap();
        assert_eq!(fs::metadata(directories.content(1)).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(&directories.root).unwrap().mode() & 0o7777, 0o700);
        assert!(!directories.work(1).exists());
    }

    #[test]
    fn a_root_that_a_mount_option_cannot_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a:b", "a,b", "a\\b"] {
            let awkward = dir.path().join(name);
            assert!(matches!(Directories::open(&awkward), Err(Error::AwkwardPath { .. })), "{name}");
        }
    }
}
