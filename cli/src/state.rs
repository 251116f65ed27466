//! What runs: one folder per mount, so that any `snap` command of the same user finds the processes of the others.
//!
//! ```text
//! lock                 flock: exclusive while records are made, listed or removed
//! <key>/state.json     the record; written under a temporary name and renamed
//! <key>/sock           the control socket
//! <key>/log            the background process's log
//! <key>/lower          where the image of a writable view is mounted
//! ```
//! The key is the start of the digest of the mount point's canonical path, and the process's number: a mount that was detached while files
//! of it were open has a process for as long as they are, and does not keep its directory from being used again. A record whose process is
//! gone is removed by whoever sees it, once nothing of it is mounted any more.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use snap_digest::Digest;

use crate::limits;
use crate::mount_table::{Mount, MountTable, SNAP_TYPE};
use crate::overlay;
use crate::process::ProcessId;

/// Names another state folder.
const FOLDER_VARIABLE: &str = "SNAP_STATE_DIR";
const RECORD: &str = "state.json";
const RECORD_STAGED: &str = "state.json.new";
const SOCKET: &str = "sock";
const LOG: &str = "log";
const LOWER: &str = "lower";
/// Hex digits of a digest in a key: few, because a socket's path is limited to 107 bytes.
const KEY_DIGITS: usize = 16;

/// The state folder.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: PathBuf,
}

/// One mount, as its process recorded it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The mount point, canonical.
    pub(crate) dir: PathBuf,
    /// The image, as its reference is written in full.
    pub(crate) image: String,
    /// Who serves it.
    pub(crate) process: ProcessId,
    /// Of a writable view: where changes go.
    pub(crate) writable: Option<PathBuf>,
    /// The device number of what it mounted at its directory; none before.
    pub(crate) device: Option<String>,
}

/// A record, where it is, and what the kernel says.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) folder: Folder,
    /// Whether anything of it is mounted.
    pub(crate) is_mounted: bool,
}

/// Where a mount is in its life, while its process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// It is mounted.
    Mounted,
    /// The image is being opened.
    Starting,
    /// It was detached; files of it are open.
    Detached,
}

/// One mount's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Folder(PathBuf);

/// A mount point that this process has to itself. Dropping it removes the record.
pub(crate) struct Claim {
    state: State,
    folder: Folder,
    record: Record,
}

impl Folder {
    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    /// The background process's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join(LOG)
    }

    /// The mount point of a writable view's image.
    pub(crate) fn lower(&self) -> PathBuf {
        self.0.join(LOWER)
    }

    fn read(&self) -> io::Result<Option<Record>> {
        let mut json = Vec::new();
        match File::open(self.0.join(RECORD)) {
            Ok(file) => file.take(limits::RECORD_BYTES_MAX).read_to_end(&mut json)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(serde_json::from_slice(&json)?))
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        let staged = self.0.join(RECORD_STAGED);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(staged, self.0.join(RECORD))
    }

    /// Removes the folder: by the names of what is in it, so that nothing of an image that were still mounted there is touched.
    fn remove(&self) -> io::Result<()> {
        let removed = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        removed(fs::remove_dir(self.lower()))?;
        for name in [SOCKET, LOG, RECORD_STAGED, RECORD] {
            removed(fs::remove_file(self.0.join(name)))?;
        }
        removed(fs::remove_dir(&self.0))
    }
}

impl Record {
    /// Whether what is mounted at its directory is its own.
    pub(crate) fn owns(&self, mount: &Mount) -> bool {
        match (&self.device, &self.writable) {
            (Some(device), _) => mount.device == *device,
            // A process that was killed as soon as it had mounted.
            (None, Some(writable)) => overlay::is_view(mount, writable),
            (None, None) => mount.kind == SNAP_TYPE,
        }
    }
}

impl Entry {
    fn new(record: Record, folder: Folder, table: &MountTable) -> Self {
        let is_mounted = table.at(&record.dir).is_some_and(|mount| record.owns(mount)) || table.at(&folder.lower()).is_some();
        Self { record, folder, is_mounted }
    }

    /// Where it is in its life, if its process lives.
    pub(crate) fn phase(&self) -> Phase {
        match (self.is_mounted, &self.record.device) {
            (true, _) => Phase::Mounted,
            (false, None) => Phase::Starting,
            (false, Some(_)) => Phase::Detached,
        }
    }
}

/// A folder of this user's alone, made where it is missing, in `$SNAP_STATE_DIR` where that is set; else in `/run/snap` for root, and in
/// `snap` in `$XDG_RUNTIME_DIR` or `/tmp/snap-<uid>` for others.
pub(crate) fn private_folder(name: &str) -> anyhow::Result<PathBuf> {
    let uid = geteuid();
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let above = match (variable(FOLDER_VARIABLE), variable("XDG_RUNTIME_DIR")) {
        (Some(folder), _) => folder,
        (None, _) if uid.is_root() => "/run/snap".into(),
        (None, Some(runtime)) => runtime.join("snap"),
        (None, None) => format!("/tmp/snap-{uid}").into(),
    };
    private_folder_in(&above, name)
}

fn private_folder_in(above: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = above.join(name);
    make_private(&folder).with_context(|| format!("cannot use the state folder {}", folder.display()))?;
    // In /tmp, somebody else may have made it first. Others may look into the upper one, and the service's sockets are there.
    for (folder, others) in [(above, 0o022), (folder.as_path(), 0o077)] {
        let metadata = fs::symlink_metadata(folder).with_context(|| format!("cannot look at the state folder {}", folder.display()))?;
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() || metadata.mode() & others != 0 {
            bail!(
                "{} is not a directory of this user's alone\nhint: remove it, or chmod 700 it, or set {FOLDER_VARIABLE} to another one",
                folder.display()
            );
        }
    }
    Ok(folder)
}

impl State {
    /// The records of this user's mounts. Their folder is made where it is missing.
    pub(crate) fn open() -> anyhow::Result<Self> {
        Ok(Self { folder: private_folder("mounts")? })
    }

    /// Where a process's record of a mount point is or would be. `dir` must be canonical.
    pub(crate) fn folder(&self, dir: &Path, pid: u32) -> Folder {
        let digest = Digest::of(dir.as_os_str().as_bytes()).hex();
        Folder(self.folder.join(format!("{}-{pid}", &digest[..KEY_DIGITS])))
    }

    fn lock(&self) -> anyhow::Result<File> {
        let path = self.folder.join("lock");
        let lock = || -> io::Result<File> {
            let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().with_context(|| format!("cannot lock {}", path.display()))
    }

    /// The record of one mount point: of what is mounted there, else of what will be, else of what was.
    pub(crate) fn entry(&self, dir: &Path) -> anyhow::Result<Option<Entry>> {
        Ok(self.entries()?.into_iter().find(|entry| entry.record.dir == dir))
    }

    /// All records, by mount point and phase, after those that mean nothing any more have been removed.
    pub(crate) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let _lock = self.lock()?;
        self.entries_locked()
    }

    fn entries_locked(&self) -> anyhow::Result<Vec<Entry>> {
        let table = MountTable::read()?;
        let mut entries = Vec::new();
        for listed in fs::read_dir(&self.folder).with_context(|| format!("cannot list {}", self.folder.display()))? {
            let listed = listed?;
            if !listed.file_type()?.is_dir() {
                continue;
            }
            let folder = Folder(listed.path());
            let entry = match folder.read() {
                Ok(Some(record)) => Some(Entry::new(record, folder.clone(), &table)),
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(folder = %folder.0.display(), %error, "a record is unreadable and is removed");
                    None
                }
            };
            match entry {
                Some(entry) if entry.record.process.is_alive() || entry.is_mounted => entries.push(entry),
                _ => forget(&folder),
            }
        }
        entries.sort_by(|one, other| (&one.record.dir, one.phase()).cmp(&(&other.record.dir, other.phase())));
        Ok(entries)
    }

    /// Makes this process the one that mounts at `dir` (canonical).
    ///
    /// # Errors
    /// Where another process has the directory, or the same `writable`.
    pub(crate) fn claim(&self, dir: &Path, image: &str, writable: Option<&Path>) -> anyhow::Result<Claim> {
        let _lock = self.lock()?;
        for entry in self.entries_locked()? {
            let phase = entry.phase();
            let record = entry.record;
            let at = record.dir.display();
            if record.dir == dir && !record.process.is_alive() {
                bail!("what was mounted at {at} has lost its process ({} died)\nhint: snap umount {at}", record.process.pid);
            }
            if record.dir == dir && phase != Phase::Detached {
                bail!("{at} shows {} already (process {})\nhint: snap umount {at}", record.image, record.process.pid);
            }
            if writable.is_some() && record.writable.as_deref() == writable {
                bail!(
                    "the changes of {at} go to that --rw directory already; two views must not share one\nhint: name another --rw directory"
                );
            }
        }
        let process = ProcessId::own()?;
        let record = Record { dir: dir.to_owned(), image: image.to_owned(), process, writable: writable.map(Path::to_owned), device: None };
        let folder = self.folder(dir, std::process::id());
        let claim = Claim { state: self.clone(), folder: folder.clone(), record };
        let make = || -> io::Result<()> {
            make_private(&folder.0)?;
            if writable.is_some() {
                make_private(&folder.lower())?;
            }
            folder.write(&claim.record)
        };
        make().with_context(|| format!("cannot write to the state folder {}", self.folder.display())).map(|()| claim)
    }

    /// Removes a record, if its process is gone and nothing of it is mounted; else leaves it.
    pub(crate) fn forget_dead(&self) -> anyhow::Result<()> {
        self.entries().map(drop)
    }
}

impl Claim {
    /// The mount's folder.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Records what is mounted at the directory now as this process's.
    pub(crate) fn record_mount(&mut self) -> anyhow::Result<()> {
        let _lock = self.state.lock()?;
        let device = MountTable::read()?.at(&self.record.dir).map(|mount| mount.device.clone());
        self.record.device = Some(device.context("the mount vanished as soon as it was made")?);
        self.folder.write(&self.record).with_context(|| format!("cannot write to the state folder {}", self.state.folder.display()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Without the lock it is removed all the same: the record would name a process that is gone.
        let _lock = self.state.lock();
        forget(&self.folder);
    }
}

fn forget(folder: &Folder) {
    if let Err(error) = folder.remove() {
        tracing::warn!(folder = %folder.0.display(), %error, "cannot remove a record");
    }
}

/// Makes a directory for this user alone; one that is there is left as it is.
fn make_private(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dir: &tempfile::TempDir) -> State {
        // After a boot nothing of the way there is left.
        State { folder: private_folder_in(&dir.path().join("after a boot"), "state").unwrap() }
    }

    #[test]
    fn a_claim_is_exclusive_until_it_is_dropped() {
        let temporary = tempfile::tempdir().unwrap();
        let state = state(&temporary);
        let claim = state.claim(Path::new("/mnt/a"), "image", None).unwrap();
        let error = state.claim(Path::new("/mnt/a"), "other", None).err().unwrap().to_string();
        assert!(error.contains("shows image already") && error.contains("hint: snap umount /mnt/a"), "{error}");
        assert_eq!(state.entry(Path::new("/mnt/a")).unwrap().unwrap().record.image, "image");
        drop(claim);
        assert!(state.entries().unwrap().is_empty());
        assert!(state.claim(Path::new("/mnt/a"), "other", None).is_ok());
    }

    #[test]
    fn two_views_do_not_share_their_changes() {
        let temporary = tempfile::tempdir().unwrap();
        let state = state(&temporary);
        let _claim = state.claim(Path::new("/mnt/a"), "image", Some(Path::new("/changes"))).unwrap();
        assert!(state.claim(Path::new("/mnt/b"), "image", Some(Path::new("/changes"))).is_err());
        assert!(state.claim(Path::new("/mnt/b"), "image", Some(Path::new("/others"))).is_ok());
    }

    #[test]
    fn records_of_other_processes_with_the_same_number_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let state = state(&temporary);
        let dir = Path::new("/mnt/a");
        std::mem::forget(state.claim(dir, "image", None).unwrap());
        let folder = state.folder(dir, std::process::id());
        let mut record = folder.read().unwrap().unwrap();
        record.process.start_ticks += 1;
        folder.write(&record).unwrap();
        assert!(state.entry(dir).unwrap().is_none());
        assert!(!folder.0.exists());
    }

    #[test]
    fn damaged_records_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let state = state(&temporary);
        let folder = state.folder(Path::new("/mnt/a"), 1);
        fs::create_dir(&folder.0).unwrap();
        fs::write(folder.0.join(RECORD), b"{").unwrap();
        assert!(state.entries().unwrap().is_empty());
        assert!(!folder.0.exists());
    }

    #[test]
    fn a_state_folder_that_others_can_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let temporary = tempfile::tempdir().unwrap();
        let folder = private_folder_in(temporary.path(), "state").unwrap();
        for (changed, wrong, right) in [(folder.as_path(), 0o755, 0o700), (temporary.path(), 0o777, 0o755)] {
            fs::set_permissions(changed, fs::Permissions::from_mode(wrong)).unwrap();
            assert!(private_folder_in(temporary.path(), "state").unwrap_err().to_string().contains("hint:"));
            fs::set_permissions(changed, fs::Permissions::from_mode(right)).unwrap();
            assert!(private_folder_in(temporary.path(), "state").is_ok());
        }
    }
}
