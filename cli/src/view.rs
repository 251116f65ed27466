//! What a serving process has mounted: the image at the directory, or the image in the state folder and a writable view at the directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use anyhow::{Context, bail};
use snap_fs::{MountOptions, Mounted, OpenImage, mount_image, unmount};

use crate::mount_table::{MountTable, MountWatch, SNAP_TYPE};
use crate::overlay;
use crate::state::{Entry, Folder};

/// A mounted image. Dropping it detaches what is left of it.
pub(crate) struct View {
    mounted: Mounted,
    writable: Option<Writable>,
    ended: bool,
}

struct Writable {
    dir: PathBuf,
    changes: PathBuf,
    watch: MountWatch,
}

impl View {
    /// Mounts an image at `dir`, or with `changes` a writable view of it. Must be called within a tokio runtime.
    pub(crate) fn mount(
        image: &Arc<OpenImage>,
        dir: &Path,
        changes: Option<&Path>,
        folder: &Folder,
        options: &MountOptions,
    ) -> anyhow::Result<Self> {
        let Some(changes) = changes else {
            let mounted = mount_image(image, dir, options)?;
            return Ok(Self { mounted, writable: None, ended: false });
        };
        let watch = MountWatch::new().context("cannot watch the table of mounts")?;
        let mounted = mount_image(image, &folder.lower(), options)?;
        // From here on dropping it detaches the image.
        let mut view = Self { mounted, writable: None, ended: false };
        // The mount asks the image's root for its attributes: the threads that answer are others than this one.
        overlay::mount_view(&folder.lower(), changes, dir)?;
        view.writable = Some(Writable { dir: dir.to_owned(), changes: changes.to_owned(), watch });
        Ok(view)
    }

    /// Unmounts it. `lazily`: now for new users, later for those who have files open.
    pub(crate) fn unmount(&self, lazily: bool) -> anyhow::Result<()> {
        if let Some(writable) = &self.writable
            && MountTable::read()?.at(&writable.dir).is_some_and(|mount| overlay::is_view(mount, &writable.changes))
        {
            unmount(&writable.dir, lazily)?;
        }
        // Nobody else uses the image of a view, so what is still in use there is the view.
        Ok(unmount(self.mounted.dir(), lazily || self.writable.is_some())?)
    }

    /// Returns when it is gone: unmounted by whomever, and no file of it open any more.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        if let Some(Writable { dir, changes, watch }) = &self.writable {
            let gone = watch.until(|table| !table.at(dir).is_some_and(|mount| overlay::is_view(mount, changes)));
            tokio::select! {
                ended = self.mounted.ended() => { self.ended = true; return Ok(ended?) }
                gone = gone => gone?,
            }
            // Unmounted from outside; what keeps the image mounted then is only its mount point.
            if MountTable::read()?.at(self.mounted.dir()).is_some() {
                unmount(self.mounted.dir(), true)?;
            }
        }
        let ended = self.mounted.ended().await;
        self.ended = true;
        Ok(ended?)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.unmount(true)
        {
            tracing::debug!(%error, "nothing to detach");
        }
    }
}

/// Takes away what a process that is gone left mounted.
pub(crate) fn take_down(entry: &Entry, lazily: bool) -> anyhow::Result<()> {
    let table = MountTable::read()?;
    if table.at(&entry.record.dir).is_some_and(|mount| entry.record.owns(mount)) {
        unmount(&entry.record.dir, lazily)?;
    }
    if table.at(&entry.folder.lower()).is_some() {
        unmount(&entry.folder.lower(), true)?;
    }
    Ok(())
}

/// Refuses a directory that an image cannot be mounted at.
pub(crate) fn check_mount_point(dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    if let Some(mount) = MountTable::read()?.at(dir) {
        if mount.kind != SNAP_TYPE {
            bail!("{shown} is a mount point already: {} of {}\nhint: umount {shown}, or name another directory", mount.kind, mount.source);
        }
        // Attributes may be in the kernel's cache; this is always asked of the process.
        match nix::sys::statfs::statfs(dir) {
            Err(nix::errno::Errno::ENOTCONN) => {
                bail!("what was mounted at {shown} ({}) has lost its process\nhint: snap umount {shown}", mount.source)
            }
            _ => bail!("{shown} shows {} already\nhint: snap umount {shown}", mount.source),
        }
    }
    let metadata = fs::metadata(dir).with_context(|| format!("cannot look at {shown}"))?;
    if !metadata.is_dir() {
        bail!("{shown} is not a directory\nhint: name an empty directory");
    }
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot look into {shown}"))?;
    match entries.next() {
        None => Ok(()),
        Some(Ok(_)) => bail!("{shown} is not empty, and the mount would hide what is in it\nhint: name an empty directory"),
        Some(Err(error)) => Err(error).with_context(|| format!("cannot look into {shown}")),
    }
}

/// The canonical path of a directory that someone names, with a hint where it does not exist.
pub(crate) fn mount_point(dir: &Path) -> anyhow::Result<PathBuf> {
    crate::mount_table::canonical(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!("{} does not exist\nhint: mkdir -p {0}", dir.display()),
        _ => anyhow::Error::new(error).context(format!("cannot look at {}", dir.display())),
    })
}
