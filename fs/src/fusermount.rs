//! Mounting for those who are not root, through the set-uid program `fusermount3`: it mounts, and hands the descriptor of the connection
//! back over a socket (libfuse's protocol: one byte with the descriptor as ancillary data, the socket's number in `_FUSE_COMMFD`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::error::MountError;
use crate::passing;

const PROGRAM: &str = "fusermount3";

pub(crate) fn mount(source: &str, dir: &Path) -> Result<OwnedFd, MountError> {
    mounted(source, dir).map_err(|source| MountError::Mount { dir: dir.to_owned(), source })
}

pub(crate) fn unmount(dir: &Path, lazily: bool) -> Result<(), MountError> {
    let mut command = Command::new(PROGRAM);
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    let done = run(command.arg("--").arg(dir));
    done.map_err(|source| MountError::Unmount { dir: dir.to_owned(), source })
}

/// Commas separate mount options, so they and backslashes are escaped.
fn escaped(source: &str) -> String {
    source.replace('\\', "\\\\").replace(',', "\\,")
}

fn mounted(source: &str, dir: &Path) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(format!("ro,noatime,nosuid,nodev,default_permissions,subtype=snap,fsname={}", escaped(source)));
    command.arg("--").arg(dir).env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    run(&mut command)?;
    drop(theirs);
    passing::receive(ours.as_fd()).map_err(|errno| match errno {
        Errno::EPROTO => io::Error::other("fusermount3 handed back no descriptor"),
        errno => errno.into(),
    })
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "fusermount3 is not installed\nhint: install the package fuse3, or run as root")
        }
        _ => error,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let hint = if said.contains("/etc/mtab") { "\nhint: ln -s ../proc/self/mounts /etc/mtab" } else { "" };
    Err(io::Error::other(format!("{}{hint}", said.trim())))
}
