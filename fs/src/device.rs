//! A descriptor of /dev/fuse: what can be asked of it without reading a request.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat, major, minor};

/// Character device 10:229, of Documentation/admin-guide/devices.txt.
const FUSE_DEVICE: (u64, u64) = (10, 229);
/// `enum fuse_notify_code`: hand out again what was read and not answered.
const FUSE_NOTIFY_RESEND: u32 = 7;

/// Whether it is a descriptor of /dev/fuse at all.
pub(crate) fn is_fuse(device: BorrowedFd<'_>) -> bool {
    fstat(device).is_ok_and(|stat| {
        SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
            && (major(stat.st_rdev), minor(stat.st_rdev)) == FUSE_DEVICE
    })
}

/// Whether its connection has ended: unmounted by all its users, or aborted.
pub(crate) fn is_gone(device: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(wait(device, PollFlags::empty(), 0)?.contains(PollFlags::POLLERR))
}

/// Waits until a request can be read, for `timeout_ms`. False if none came.
pub(crate) fn is_readable(device: BorrowedFd<'_>, timeout_ms: u16) -> io::Result<bool> {
    Ok(wait(device, PollFlags::POLLIN, timeout_ms)?.contains(PollFlags::POLLIN))
}

fn wait(device: BorrowedFd<'_>, events: PollFlags, timeout_ms: u16) -> io::Result<PollFlags> {
    let mut polled = [PollFd::new(device, events)];
    loop {
        match poll(&mut polled, PollTimeout::from(timeout_ms)) {
            Ok(_) => return Ok(polled[0].revents().unwrap_or(PollFlags::empty())),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The kernel's number of the connection: the minor number of the mounted file system's device. None where the kernel does not tell.
pub(crate) fn connection_number(device: BorrowedFd<'_>) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", device.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?.trim().parse().ok()
}

/// Makes reads wait. A session on a descriptor that does not wait would spin.
pub(crate) fn make_blocking(device: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(device, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_NONBLOCK) {
        fcntl(device, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

/// Asks the kernel to hand out again all requests that were read and not answered, marked by bit 63 of their number.
///
/// # Errors
/// The kernel's; EINVAL before Linux 6.9.
pub(crate) fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    // struct fuse_out_header: length, the code in place of an error, and 0 in place of a request's number.
    let mut message = [0; 16];
    message[..4].copy_from_slice(&16_u32.to_ne_bytes());
    message[4..8].copy_from_slice(&FUSE_NOTIFY_RESEND.to_ne_bytes());
    send(device, &message)
}

/// Writes one message.
pub(crate) fn send(device: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    let written = nix::unistd::write(device, message)?;
    if written == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    fn open(path: &str) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    #[test]
    fn only_fuse_is_fuse() {
        assert!(is_fuse(open("/dev/fuse").as_fd()));
        assert!(!is_fuse(open("/dev/null").as_fd()));
        assert!(!is_fuse(tempfile::tempfile().unwrap().as_fd()));
    }

    #[test]
    fn a_device_that_is_mounted_nowhere_has_no_connection() {
        let device = open("/dev/fuse");
        assert!(is_gone(device.as_fd()).unwrap());
        assert_eq!(connection_number(device.as_fd()), None);
    }
}
