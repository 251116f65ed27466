//! Processes: which one a record means, whether it lives, and the few calls that only libc has.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process, for good: its number may be another's later, number and start time may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: i32,
    /// When it started, in clock ticks after boot.
    pub(crate) start_ticks: u64,
}

impl ProcessId {
    /// This process.
    pub(crate) fn own() -> io::Result<Self> {
        let pid = nix::unistd::getpid().as_raw();
        let start_ticks =
            start_ticks(pid).ok_or_else(|| io::Error::other("/proc/self/stat cannot be read\nhint: mount procfs on /proc"))?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether it runs. One that has ended but was not waited for does not.
    pub(crate) fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Waits until it has ended; `false` where it has not by then.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> io::Result<bool> {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return Ok(true) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        // The descriptor is of whoever has the number now: only if that is still the one can it be waited for.
        if !self.is_alive() {
            return Ok(true);
        }
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? > 0)
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)); nothing for a process that is gone or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Keeps what one burst of work frees from staying with the process: few arenas, and every large buffer a mapping of its own that goes
/// when it is freed. Must be called before there are threads.
pub(crate) fn keep_memory_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and sets the allocator's own parameters; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Gives memory that was freed back to the kernel. Opening an image takes far more than serving it, and the allocator would keep it.
pub(crate) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and touches nothing but the allocator's own free lists, under its locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps programs that are started from here on from inheriting any descriptor but the standard three: a background process must not
/// hold a lock or a pipe of its caller's.
pub(crate) fn keep_descriptors() {
    // SAFETY: only sets the close-on-exec flag of descriptors; none is closed, and no memory is touched.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start_ticks: own.start_ticks + 1, ..own }.is_alive(), "another process that has the number now");

        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let id = ProcessId { pid, start_ticks: start_ticks(pid).unwrap() };
        assert!(!id.wait_ended(Duration::from_millis(1)).unwrap());
        child.kill().unwrap();
        assert!(id.wait_ended(Duration::from_secs(60)).unwrap());
        assert!(!id.is_alive(), "a zombie has ended");
        child.wait().unwrap();
        assert!(id.wait_ended(Duration::ZERO).unwrap());
    }
}
