//! What is mounted at a directory, and how to get rid of what a daemon left there.
//!
//! By the mount table alone: to look into a mount whose daemon is dead is to wait for it.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::error::MountError;
use crate::limits;
use crate::mount::{FILE_SYSTEM_TYPE, escaped};

/// Ends the mounts of ours at `dir` for everyone: readers that wait, and containers that are running from them, get ENOTCONN. What is
/// mounted below stays, and so does what is not ours.
///
/// # Errors
/// [`MountError::Unmount`].
pub(crate) fn abort(dir: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Unmount { dir: dir.to_owned(), source };
    let dir = &dir.canonicalize().map_err(failed)?;
    for _ in 0..limits::LEFTOVER_MOUNTS_MAX {
        if !is_ours(dir).map_err(failed)? {
            return Ok(());
        }
        // By force: ends the connection first, then unmounts unless someone is in there.
        let forced = match umount2(dir, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) => umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW),
            done => done,
        };
        forced.map_err(|errno| failed(errno.into()))?;
    }
    Err(failed(Errno::EBUSY.into()))
}

/// Whether the newest mount at `dir`, an absolute path without symbolic links, is of our type.
pub(crate) fn is_ours(dir: &Path) -> io::Result<bool> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(newest(&table, &escaped(dir)).is_some_and(|mount| mount.file_system == FILE_SYSTEM_TYPE.as_bytes()))
}

/// Whether the connection with this number is what one finds at `dir`.
pub(crate) fn is_connection(dir: &Path, number: u32) -> io::Result<bool> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(newest(&table, &escaped(dir)).is_some_and(|mount| mount.device == format!("0:{number}").as_bytes()))
}

struct Mount<'a> {
    device: &'a [u8],
    file_system: &'a [u8],
}

/// The last line of proc_pid_mountinfo(5) for `point`, a path as that file writes it.
fn newest<'a>(table: &'a [u8], point: &[u8]) -> Option<Mount<'a>> {
    table.split(|&byte| byte == b'\n').rev().find_map(|line| {
        // ID, parent, device, root, mount point, options, any number of tags, a dash, type, source, options
        let mut fields = line.split(|&byte| byte == b' ');
        let device = fields.nth(2)?;
        if fields.nth(1)? != point {
            return None;
        }
        fields.by_ref().skip(1).find(|field| *field == b"-")?;
        Some(Mount { device, file_system: fields.next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
27 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw
60 27 0:40 / /run/snap/fs ro shared:3 master:1 - fuse.snap snap ro,user_id=0
61 60 0:41 / /run/snap/fs ro - fuse.snap snap ro
62 27 0:42 / /mnt/a\\040b rw - tmpfs - rw
";

    #[test]
    fn the_newest_mount_of_a_point_counts() {
        let mount = newest(TABLE, b"/run/snap/fs").unwrap();
        assert_eq!((mount.device, mount.file_system), (&b"0:41"[..], &b"fuse.snap"[..]));
        assert_eq!(newest(TABLE, b"/mnt/a\\040b").unwrap().file_system, b"tmpfs");
        assert_eq!(newest(TABLE, b"/").unwrap().device, b"254:0");
        assert!(newest(TABLE, b"/run/snap").is_none());
    }

    #[test]
    fn what_is_not_ours_stays() {
        assert!(!is_ours(Path::new("/proc")).unwrap());
        abort(Path::new("/proc")).unwrap();
        assert!(Path::new("/proc/self").exists());
    }
}
