//! systemd's side of the daemon: its file descriptor store, which keeps the FUSE connection while no daemon runs, and notifications.
//!
//! sd_notify(3) and sd_listen_fds(3). The unit needs `NotifyAccess=main` (or `Type=notify`) and `FileDescriptorStoreMax=1` or more;
//! `FileDescriptorStorePreserve=yes` keeps the connection over `systemctl stop` as well. Without a service manager every call here does
//! nothing.

use std::env;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;

use crate::device;
use crate::error::KeepError;

/// What the connection's descriptor is called there.
pub const NAME: &str = "snap-fuse";
/// Set for a service whose manager keeps descriptors, to how many it keeps (systemd 254 and later).
const STORE_SIZE: &str = "FDSTORE";
/// The manager would else watch the descriptor, and the kernel wakes whoever watches it at every request.
const DO_NOT_POLL: NotifyState<'static> = NotifyState::Custom("FDPOLL=0");

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the manager a connection's descriptor to keep, instead of those it has. To be called after a new mount only: one that came from
/// the store is still there. True if the manager has said that it keeps descriptors; otherwise it may or may not, and the connection must
/// be kept by a [`crate::keeper`] too.
///
/// # Errors
/// [`KeepError::ServiceManager`].
pub fn store(device: BorrowedFd<'_>) -> Result<bool, KeepError> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(NAME)]).map_err(KeepError::ServiceManager)?;
    let states = [NotifyState::FdStore, NotifyState::FdName(NAME), DO_NOT_POLL];
    sd_notify::notify_with_fds(&states, &[device]).map_err(KeepError::ServiceManager)?;
    let size = env::var(STORE_SIZE).ok().and_then(|size| size.parse::<u32>().ok());
    Ok(env::var_os("NOTIFY_SOCKET").is_some() && size.is_some_and(|size| size > 0))
}

/// The connection's descriptor that the manager kept for this process, once. None if there is none, or none whose connection lives.
///
/// # Errors
/// [`KeepError::ServiceManager`] if the environment that should name the descriptors is malformed.
pub fn take() -> Result<Option<OwnedFd>, KeepError> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(None);
    }
    let mut found = None;
    for (descriptor, name) in sd_notify::listen_fds_with_names().map_err(KeepError::ServiceManager)? {
        if name != NAME {
            continue;
        }
        // SAFETY: the manager has opened it for this process, whose ID is in LISTEN_PID, and `TAKEN` sees to it that it is owned once.
        let device = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if device::is_fuse(device.as_fd()) && !device::is_gone(device.as_fd()).map_err(KeepError::ServiceManager)? {
            found = Some(device);
        }
    }
    Ok(found)
}

/// Tells the manager that the daemon serves.
///
/// # Errors
/// [`KeepError::ServiceManager`].
pub fn ready() -> Result<(), KeepError> {
    sd_notify::notify(&[NotifyState::Ready]).map_err(KeepError::ServiceManager)
}

/// Tells the manager that the daemon is about to end.
///
/// # Errors
/// [`KeepError::ServiceManager`].
pub fn stopping() -> Result<(), KeepError> {
    sd_notify::notify(&[NotifyState::Stopping]).map_err(KeepError::ServiceManager)
}
