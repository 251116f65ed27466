//! The FUSE connection of a daemon that may be killed: mounted by one process, taken over by the next.
//!
//! ```text
//! mount:  /dev/fuse ── FUSE_INIT ──> session ── reply ──> kernel, file      then the session reads the device
//! adopt:  file ── FUSE_INIT, narrowed ──> session ── reply ──> compared     then RESEND, then the session reads the device
//! ```
//! The connection lives while any process holds its descriptor (a [`crate::keeper`], the service manager's [`crate::fd_store`]). What
//! the file system must bring along: node numbers and file handles that mean the same in every process, and for every request that one
//! daemon has answered with ENOSYS the same from the next, for the kernel does not ask again.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use fuser::Filesystem;
use tokio::sync::oneshot;

use crate::device;
use crate::error::{ConnectionError, MountError};
use crate::handshake::{Handshake, InitRequest, connect, introduce};
use crate::limits;
use crate::mount::{mount_as_root, set_read_ahead};
use crate::mount_point::{abort, is_connection};

/// A connection that nobody serves yet. Who opens a file of it waits.
#[derive(Debug)]
pub struct Connection {
    device: OwnedFd,
    dir: PathBuf,
    saved: PathBuf,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Mounted,
    Adopted(Handshake),
}

/// A connection that is served by threads of this process. They go on when this is dropped.
#[derive(Debug)]
pub struct Served {
    device: OwnedFd,
    dir: PathBuf,
    end: Option<oneshot::Receiver<io::Result<()>>>,
}

impl Connection {
    /// Mounts a new connection at `dir`, as root. A mount of ours that is found there is what an earlier daemon left: it is
    /// ended for everyone, so no other daemon may be serving it. `saved` is the file that [`Self::adopt`] will need; its directory must
    /// exist and not outlive the boot.
    ///
    /// # Errors
    /// [`ConnectionError::Mount`], [`ConnectionError::Saved`].
    pub fn mount(dir: &Path, source: &str, saved: &Path) -> Result<Self, ConnectionError> {
        let dir = canonical(dir)?;
        abort(&dir)?;
        // The file must never be that of another connection than the mounted one.
        match std::fs::remove_file(saved) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ConnectionError::Saved { path: saved.to_owned(), source });
            }
            _ => {}
        }
        let device = mount_as_root(source, &dir)?;
        Ok(Self { device, dir, saved: saved.to_owned(), origin: Origin::Mounted })
    }

    /// Takes over a connection whose daemon has ended. `device` is its descriptor, `saved` the file that was given to [`Self::mount`].
    ///
    /// # Errors
    /// [`ConnectionError::Gone`] if it has ended; then nothing is lost by a new mount. All other errors mean that it lives and cannot
    /// be served: a new mount takes the files away from whatever is running from it.
    pub fn adopt(device: OwnedFd, dir: &Path, saved: &Path) -> Result<Self, ConnectionError> {
        if !device::is_fuse(device.as_fd()) {
            return Err(ConnectionError::NotFuse);
        }
        if device::is_gone(device.as_fd()).map_err(ConnectionError::Device)? {
            return Err(ConnectionError::Gone);
        }
        let handshake = Handshake::load(saved, device::connection_number(device.as_fd()))?;
        if !handshake.can_resend() {
            return Err(ConnectionError::NoResend);
        }
        device::make_blocking(device.as_fd()).map_err(ConnectionError::Device)?;
        Ok(Self { device, dir: canonical(dir)?, saved: saved.to_owned(), origin: Origin::Adopted(handshake) })
    }

    /// The descriptor, for a keeper.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// False if someone has unmounted it lazily or put another mount over it: it lives for those who use it, and `dir` shows something
    /// else. True where the kernel does not tell a connection's number.
    ///
    /// # Errors
    /// [`ConnectionError::Device`] without a procfs.
    pub fn is_mounted(&self) -> Result<bool, ConnectionError> {
        let Some(number) = device::connection_number(self.device.as_fd()) else {
            return Ok(true);
        };
        is_connection(&self.dir, number).map_err(ConnectionError::Device)
    }

    /// Serves it with `threads` threads of its own, and returns when they are about to read. Requests that an earlier daemon has read
    /// and not answered come again. A new mount that cannot be served is unmounted.
    ///
    /// # Errors
    /// [`ConnectionError::Session`], [`ConnectionError::Refused`]; for a new mount [`ConnectionError::Protocol`] and
    /// [`ConnectionError::Saved`]; for an adopted one [`ConnectionError::Renegotiated`] and [`ConnectionError::NoResend`].
    pub fn serve<F: Filesystem>(self, filesystem: F, threads: usize) -> Result<Served, ConnectionError> {
        let is_new = matches!(self.origin, Origin::Mounted);
        let dir = self.dir.clone();
        let served = self.serve_here(filesystem, threads);
        if served.is_err()
            && is_new
            && let Err(error) = abort(&dir)
        {
            tracing::warn!(%error, "a mount that cannot be served stays");
        }
        served
    }

    fn serve_here<F: Filesystem>(self, filesystem: F, threads: usize) -> Result<Served, ConnectionError> {
        let session = match &self.origin {
            Origin::Mounted => {
                let request = self.read_request()?;
                let (session, reply) = introduce(filesystem, threads, &request)?;
                let connection = device::connection_number(self.device.as_fd());
                let handshake = Handshake { request, reply, connection };
                device::send(self.device.as_fd(), handshake.reply.as_bytes()).map_err(ConnectionError::Device)?;
                // After the kernel's answer: a connection whose handshake is found saved has been through it.
                handshake.save(&self.saved)?;
                connect(&session, &self.device)?;
                session
            }
            Origin::Adopted(handshake) => {
                let (session, reply) = introduce(filesystem, threads, &handshake.request.narrowed_to(&handshake.reply))?;
                handshake.reply.check_successor(&reply)?;
                connect(&session, &self.device)?;
                device::resend(self.device.as_fd()).map_err(|source| match source.raw_os_error() {
                    Some(libc::EINVAL) => ConnectionError::NoResend,
                    _ => ConnectionError::Device(source),
                })?;
                session
            }
        };
        // The kernel cuts it down to its default when it gets the reply, so not earlier.
        set_read_ahead(&self.dir);
        let (sender, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name("snap-fuse".to_owned());
        thread.spawn(move || sender.send(session.run())).map_err(ConnectionError::Session)?;
        Ok(Served { device: self.device, dir: self.dir, end: Some(end) })
    }

    /// The kernel has sent it when mount(2) returns.
    fn read_request(&self) -> Result<InitRequest, ConnectionError> {
        if !device::is_readable(self.device.as_fd(), limits::HANDSHAKE_WAIT_MS).map_err(ConnectionError::Device)? {
            return Err(ConnectionError::Device(io::ErrorKind::TimedOut.into()));
        }
        let mut request = vec![0; limits::HANDSHAKE_BYTES_MAX];
        let length = nix::unistd::read(&self.device, &mut request).map_err(|errno| ConnectionError::Device(errno.into()))?;
        request.truncate(length);
        InitRequest::parse(request)
    }
}

impl Served {
    /// The descriptor, for a keeper.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns when the connection is gone: unmounted and no file of it open any more, or aborted. May be dropped and called again.
    ///
    /// # Errors
    /// [`MountError::Session`].
    pub async fn ended(&mut self) -> Result<(), MountError> {
        let Some(end) = &mut self.end else {
            return Ok(());
        };
        let ended = end.await.unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        self.end = None;
        ended.map_err(|source| MountError::Session { dir: self.dir.clone(), source })
    }
}

fn canonical(dir: &Path) -> Result<PathBuf, ConnectionError> {
    Ok(dir.canonicalize().map_err(|source| MountError::Mount { dir: dir.to_owned(), source })?)
}
