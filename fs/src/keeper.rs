//! A process that does nothing but hold the FUSE connection, where no service manager does.
//!
//! It gives the descriptor to whoever connects to its socket as root (one byte with the descriptor as ancillary data) and ends by itself
//! when the connection is gone. It ignores what ends daemons (SIGTERM, SIGINT, SIGHUP, SIGQUIT) and has a session of its own; to end it
//! is to unmount, or SIGKILL. A service manager that kills whole control groups kills it too: such a unit needs the manager's own store
//! ([`crate::fd_store`]) or `KillMode=process`.
//!
//! It never opens a file of the mount: to close one is a request that it would wait for itself.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, io};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::TimeVal;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::device;
use crate::error::KeepError;
use crate::limits;
use crate::passing::{receive, send};

/// Starts `command`, a program that calls [`run`] before anything else, and returns its process ID when its socket is there. It gets
/// `device` as its standard input, an empty environment and `/` as its directory.
///
/// # Errors
/// [`KeepError::Start`], [`KeepError::NotReady`].
pub fn start(mut command: Command, device: BorrowedFd<'_>) -> Result<u32, KeepError> {
    let device = device.try_clone_to_owned().map_err(KeepError::Start)?;
    command.env_clear().current_dir("/").stdin(device).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(KeepError::Start)?;
    let id = child.id();
    if !said_ready(&mut child).map_err(KeepError::Start)? {
        // It may have ended by itself.
        let _ = child.kill();
        return Err(KeepError::NotReady(child.wait().map_err(KeepError::Start)?));
    }
    // Somebody has to wait for it, or it stays a zombie.
    let thread = std::thread::Builder::new().name("snap-keeper".to_owned());
    thread.spawn(move || child.wait()).map_err(KeepError::Start)?;
    Ok(id)
}

fn said_ready(child: &mut Child) -> io::Result<bool> {
    let Some(mut said) = child.stdout.take() else {
        return Ok(false);
    };
    let mut polled = [PollFd::new(said.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut polled, PollTimeout::from(limits::KEEPER_START_MS)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(said.read(&mut [0])? == 1),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a keeper does, from its start to the end of the connection. To be called by a process that has one thread and has opened
/// nothing: every descriptor but the standard ones is closed. The device is its standard input. `socket` replaces what is there.
///
/// # Errors
/// [`KeepError::NotFuse`], [`KeepError::Socket`], [`KeepError::Process`]; all before it has said that it is ready.
pub fn run(socket: &Path) -> Result<(), KeepError> {
    let device = detach().map_err(KeepError::Process)?;
    if !device::is_fuse(device.as_fd()) {
        return Err(KeepError::NotFuse);
    }
    let listener = listen(socket).map_err(|source| KeepError::Socket { path: socket.to_owned(), source })?;
    io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush()).map_err(KeepError::Process)?;
    let nothing = fs::File::options().read(true).write(true).open("/dev/null").map_err(KeepError::Process)?;
    let silent = dup2_stdin(&nothing).and_then(|()| dup2_stdout(&nothing)).and_then(|()| dup2_stderr(&nothing));
    silent.map_err(|errno| KeepError::Process(errno.into()))?;
    drop(nothing);
    hold(&listener, device.as_fd())
}

/// Leaves everything of the parent behind but the device.
fn detach() -> io::Result<OwnedFd> {
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        ignored.add(signal);
    }
    ignored.thread_block()?;
    // EPERM: it leads a group already.
    let _ = setsid();
    chdir("/")?;
    // SAFETY: the process has opened nothing yet, so nothing here owns these: they came from the parent.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    io::stdin().as_fd().try_clone_to_owned()
}

/// Takes the place of whatever is at `path`. Nothing removes it at the end: the path may belong to the next keeper by then, and a socket
/// that nobody listens at refuses.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&new)?;
    listener.set_nonblocking(true)?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Looks at the connection now and then instead of waiting for its end: the kernel wakes everyone who waits on the device at every
/// request.
fn hold(listener: &UnixListener, device: BorrowedFd<'_>) -> Result<(), KeepError> {
    loop {
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(limits::KEEPER_CHECK_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(KeepError::Process(errno.into())),
        }
        if device::is_gone(device).map_err(KeepError::Process)? {
            return Ok(());
        }
        if polled[0].any() == Some(true) {
            match listener.accept() {
                // A peer that went away again is no reason to stop.
                Ok((peer, _)) => drop(hand_out(&peer, device)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
                // Out of descriptors or memory: the connection is kept, whoever asks must wait.
                Err(_) => drop(poll(&mut [], PollTimeout::from(limits::KEEPER_CHECK_MS))),
            }
        }
    }
}

fn hand_out(peer: &UnixStream, device: BorrowedFd<'_>) -> io::Result<()> {
    if getsockopt(peer, sockopt::PeerCredentials)?.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    send(peer.as_fd(), device)
}

/// Asks the keeper at `path` for the connection's descriptor. None if there is no keeper.
///
/// # Errors
/// [`KeepError::Socket`]: it refuses, or does not answer in time.
pub fn fetch(path: &Path) -> Result<Option<OwnedFd>, KeepError> {
    match ask(path) {
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        Ok(device) => Ok(Some(device)),
        Err(errno) => Err(KeepError::Socket { path: path.to_owned(), source: errno.into() }),
    }
}

fn ask(path: &Path) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let deadline = TimeVal::new(limits::KEEPER_FETCH_SECONDS, 0);
    setsockopt(&socket, sockopt::SendTimeout, &deadline)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &deadline)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    // A descriptor of someone else's making is none of ours.
    if getsockopt(&socket, sockopt::PeerCredentials)?.uid() != 0 {
        return Err(Errno::EPERM);
    }
    receive(socket.as_fd())
}
