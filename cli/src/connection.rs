//! The FUSE connection of `snap serve`, which outlives it: taken over from an earlier process, or mounted; and kept for the next one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::Context;
use snap_fs::{Connection, ConnectionError, fd_store, keeper};
use tokio::time::{MissedTickBehavior, interval};

use crate::{failure, limits};

/// The hidden first argument with which this program starts itself as a keeper; the second is its socket.
const AS_KEEPER: &str = "--as-keeper";
/// What process lists show of it.
const KEEPER_NAME: &str = "snap-keeper";

/// Who holds the connection while no process serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeping {
    /// systemd's descriptor store.
    ServiceManager,
    /// A keeper of ours.
    Keeper,
}

/// Where the connection is and what is kept about it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    state: PathBuf,
}

impl Place {
    /// Below the service's state directory.
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// Where the trees are mounted.
    pub(crate) fn mount_dir(&self) -> PathBuf {
        self.state.join("fs")
    }

    fn handshake(&self) -> PathBuf {
        self.state.join("connection.json")
    }

    fn keeper_socket(&self) -> PathBuf {
        self.state.join("keeper.sock")
    }

    /// A new mount, and who keeps it. What an earlier process left there is aborted.
    pub(crate) fn mount(&self) -> anyhow::Result<(Connection, Keeping)> {
        let dir = self.mount_dir();
        match fs::DirBuilder::new().mode(0o755).create(&dir) {
            Ok(()) => {}
            // Also what stat(2) says of a mount that nobody serves.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot create {}", dir.display())),
        }
        let connection = Connection::mount(&dir, "snap", &self.handshake())?;
        tracing::info!(dir = %dir.display(), "mounted");
        let keeping = if fd_store::store(connection.device())? { Keeping::ServiceManager } else { Keeping::Keeper };
        Ok((connection, keeping))
    }

    /// Sees to it that the connection outlives this process. The future looks after the keeper for as long as it is polled.
    pub(crate) fn keep(&self, device: BorrowedFd<'_>, keeping: Keeping) -> anyhow::Result<impl Future<Output = ()> + use<>> {
        if keeping == Keeping::Keeper {
            self.have_keeper(device)?;
        }
        let (place, device) = (self.clone(), Arc::new(device.try_clone_to_owned()?));
        Ok(async move {
            if keeping == Keeping::ServiceManager {
                return;
            }
            let mut ticks = interval(limits::KEEPER_CHECK_PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (place, device) = (place.clone(), Arc::clone(&device));
                match tokio::task::spawn_blocking(move || place.have_keeper(device.as_fd())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(error = failure::text(&error), "nothing keeps the mount when this process ends"),
                    Err(error) => tracing::error!(%error, "cannot look after the keeper"),
                }
            }
        })
    }

    /// The mount of an earlier process, and who kept it; none where there is none, or none that can be served. What running containers
    /// lose is logged.
    pub(crate) fn take_over(&self) -> anyhow::Result<Option<(Connection, Keeping)>> {
        let dir = self.mount_dir();
        let kept = match fd_store::take()? {
            Some(device) => Some((device, Keeping::ServiceManager)),
            None => keeper::fetch(&self.keeper_socket())
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot ask the keeper");
                    None
                })
                .map(|device| (device, Keeping::Keeper)),
        };
        let Some((device, keeping)) = kept else { return Ok(None) };
        match Connection::adopt(device, &dir, &self.handshake()) {
            Ok(connection) if connection.is_mounted()? => {
                tracing::info!(dir = %dir.display(), "took over the mount of an earlier process");
                Ok(Some((connection, keeping)))
            }
            Ok(_) => {
                tracing::warn!(dir = %dir.display(), "the mount of an earlier process was unmounted; what still uses it loses its files");
                Ok(None)
            }
            Err(ConnectionError::Gone) => Ok(None),
            Err(error) => {
                tracing::error!(%error, "the mount of an earlier process cannot be served; containers that use it lose their files");
                Ok(None)
            }
        }
    }

    /// Starts a keeper where none answers.
    fn have_keeper(&self, device: BorrowedFd<'_>) -> anyhow::Result<()> {
        let socket = self.keeper_socket();
        if keeper::fetch(&socket).is_ok_and(|kept| kept.is_some()) {
            return Ok(());
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0(KEEPER_NAME).arg(AS_KEEPER).arg(socket);
        let pid = keeper::start(command, device).context("cannot start the process that keeps the mount alive")?;
        tracing::info!(pid, "a keeper holds the mount");
        Ok(())
    }
}

/// The socket, where this process was started to be a keeper.
pub(crate) fn as_keeper() -> Option<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == AS_KEEPER).then(|| arguments.next()).flatten().map(PathBuf::from)
}

/// Holds the connection until it is gone.
pub(crate) fn keep(socket: &Path) -> ExitCode {
    // Best effort: it is for process lists.
    let _ = nix::sys::prctl::set_name(c"snap-keeper");
    match keeper::run(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", failure::text(&error.into()));
            ExitCode::FAILURE
        }
    }
}
