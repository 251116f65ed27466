//! Mounting an image at a directory, by mount(2) as root and through fusermount3 as anyone else.
//!
//! Nothing here unmounts by itself: a connection lives as long as someone holds its descriptor, whatever becomes of the process.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{FsError, MountError};
use crate::forest::Forest;
use crate::fuse::{Coat, serve};
use crate::fusermount;
use crate::image::OpenImage;
use crate::image_fs::ImageFs;
use crate::limits;

pub(crate) const FILE_SYSTEM_TYPE: &str = "fuse.snap";

/// An image that is mounted and served.
pub struct Mounted {
    dir: PathBuf,
    session: tokio::task::JoinHandle<io::Result<()>>,
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// How long a read may wait for the network before it fails with EIO.
    pub read_deadline: Duration,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { read_deadline: Duration::from_millis(limits::READ_DEADLINE_MS) }
    }
}

/// Mounts an opened image at `dir`, an empty directory, and serves it until it is unmounted. Must be called within a tokio runtime.
///
/// # Errors
/// [`FsError::Mount`], and [`FsError::Layer`] where two layers' node numbers collide.
pub fn mount_image(image: &Arc<OpenImage>, dir: &Path, options: &MountOptions) -> Result<Mounted, FsError> {
    let fs = ImageFs::new(image)?;
    let dir = dir.canonicalize().map_err(|source| MountError::Mount { dir: dir.to_owned(), source })?;
    let dir = dir.as_path();
    let device =
        if nix::unistd::geteuid().is_root() { mount_as_root(image.reference(), dir)? } else { fusermount::mount(image.reference(), dir)? };
    let coat = Coat {
        forest: Forest::Tree(Arc::new(fs)),
        space: None,
        counters: Arc::clone(image.counters()),
        runtime: tokio::runtime::Handle::current(),
        read_deadline: options.read_deadline,
    };
    let session = tokio::task::spawn_blocking(move || serve(coat, device));
    set_read_ahead(dir);
    Ok(Mounted { dir: dir.to_owned(), session })
}

pub(crate) fn mount_as_root(source: &str, dir: &Path) -> Result<OwnedFd, MountError> {
    let device = File::options().read(true).write(true).open("/dev/fuse").map_err(MountError::Device)?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device.as_raw_fd());
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    mount(Some(source), dir, Some(FILE_SYSTEM_TYPE), flags, Some(options.as_str()))
        .map_err(|errno| MountError::Mount { dir: dir.to_owned(), source: errno.into() })?;
    Ok(device.into())
}

/// Larger reads from the kernel. Without the right to set it, it stays at the kernel's default.
pub(crate) fn set_read_ahead(dir: &Path) {
    let set = device_number(dir)
        .and_then(|device| std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), limits::READ_AHEAD_KIB.to_string()));
    if let Err(error) = set {
        tracing::debug!(%error, "the kernel's readahead stays at its default");
    }
}

/// The device of the newest mount at `dir`, as `major:minor`. Not by stat(2): whoever looks into a mount keeps it busy.
fn device_number(dir: &Path) -> io::Result<String> {
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    let at = escaped(dir);
    let device = mounts.split(|&byte| byte == b'\n').rev().find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ').skip(2);
        let (device, _, point) = (fields.next()?, fields.next()?, fields.next()?);
        (point == at).then(|| String::from_utf8_lossy(device).into_owned())
    });
    device.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A path as proc_pid_mountinfo(5) writes it.
pub(crate) fn escaped(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => text.push(byte),
        }
    }
    text
}

/// Unmounts whatever is mounted at `dir`. `lazily`: now for new users, later for those who have files open.
///
/// # Errors
/// [`MountError::Unmount`]; EBUSY where it is in use and `lazily` is not set.
pub fn unmount(dir: &Path, lazily: bool) -> Result<(), MountError> {
    if !nix::unistd::geteuid().is_root() {
        return fusermount::unmount(dir, lazily);
    }
    let flags = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    umount2(dir, flags | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| MountError::Unmount { dir: dir.to_owned(), source: errno.into() })
}

impl Mounted {
    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns when the mount is gone: unmounted by whomever, and no file of it open any more.
    ///
    /// # Errors
    /// [`MountError::Session`].
    pub async fn ended(&mut self) -> Result<(), FsError> {
        let ended = (&mut self.session).await?;
        Ok(ended.map_err(|source| MountError::Session { dir: self.dir.clone(), source })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_the_kernel_writes_them() {
        assert_eq!(escaped(Path::new("/mnt/a b\\c\td\ne")), b"/mnt/a\\040b\\134c\\011d\\012e");
    }

    #[test]
    fn every_process_sees_a_root_with_a_device() {
        assert!(device_number(Path::new("/")).unwrap().contains(':'));
    }
}
