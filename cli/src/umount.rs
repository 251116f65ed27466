//! `snap umount`: takes a mount away and waits for the process that served it.

use std::path::Path;

use anyhow::{Context, bail};
use snap_fs::unmount;

use crate::args::UmountArgs;
use crate::limits;
use crate::mount_table::{MountTable, SNAP_TYPE};
use crate::serve::is_busy;
use crate::state::{Entry, Phase, State};
use crate::view::{mount_point, take_down};

pub(crate) fn umount(args: &UmountArgs) -> anyhow::Result<()> {
    let dir = mount_point(&args.dir)?;
    let state = State::open()?;
    let Some(entry) = state.entry(&dir)? else { return umount_unrecorded(&dir, args.lazy) };
    let table = MountTable::read()?;
    let shown = dir.display();
    let process = entry.record.process;
    match entry.phase() {
        Phase::Mounted => {}
        Phase::Starting => {
            bail!(
                "{} is still being mounted at {shown}, by process {}\nhint: interrupt that, or: kill {1}",
                entry.record.image,
                process.pid
            )
        }
        Phase::Detached => bail!(
            "nothing is mounted at {shown} any more; process {} serves files of {} that are open\nhint: close them; kill -9 {0} ends it at once",
            process.pid,
            entry.record.image
        ),
    }
    if !process.is_alive() {
        take_down(&entry, args.lazy).map_err(|error| with_hint(error, &dir))?;
        return state.forget_dead();
    }
    umount_served(&entry, &table, args.lazy).map_err(|error| with_hint(error, &dir))?;
    let timeout = if args.lazy { limits::LAZY_UMOUNT_TIMEOUT } else { limits::UMOUNT_TIMEOUT };
    let ended = process.wait_ended(timeout).with_context(|| format!("cannot wait for process {}", process.pid))?;
    match (ended, args.lazy) {
        (true, _) => Ok(()),
        (false, true) => {
            eprintln!("files of it are open: process {} serves them until they are closed", process.pid);
            Ok(())
        }
        (false, false) => bail!(
            "{shown} is unmounted, but process {} has not ended\nhint: its log is {}; kill {1} ends it",
            process.pid,
            entry.folder.log().display()
        ),
    }
}

/// Takes away what is at the directory; of a writable view, the process takes the image away itself.
fn umount_served(entry: &Entry, table: &MountTable, lazy: bool) -> anyhow::Result<()> {
    let dir = &entry.record.dir;
    match table.at(dir) {
        Some(mount) if entry.record.owns(mount) => Ok(unmount(dir, lazy)?),
        Some(mount) => {
            let shown = dir.display();
            bail!(
                "something else is mounted over {} at {shown}: {} of {}\nhint: umount {shown}, then try again",
                entry.record.image,
                mount.kind,
                mount.source
            )
        }
        None => Ok(()),
    }
}

/// Unmounts an image that no record of this user's is about: another user's, or one whose record was lost.
fn umount_unrecorded(dir: &Path, lazy: bool) -> anyhow::Result<()> {
    let shown = dir.display();
    match MountTable::read()?.at(dir) {
        Some(mount) if mount.kind == SNAP_TYPE => unmount(dir, lazy).map_err(|error| with_hint(error.into(), dir)),
        Some(mount) => bail!("what is mounted at {shown} is not of snap: {} of {}\nhint: umount {shown}", mount.kind, mount.source),
        None => bail!("nothing is mounted at {shown}\nhint: snap status"),
    }
}

fn with_hint(error: anyhow::Error, dir: &Path) -> anyhow::Error {
    if is_busy(&error) {
        let shown = dir.display();
        return error.context(format!("{shown} is in use\nhint: fuser -vm {shown} shows by whom; --lazy takes it away all the same"));
    }
    error
}
