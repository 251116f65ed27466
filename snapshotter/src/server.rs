//! The unix socket that containerd connects to.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;

use crate::error::Error;
use crate::limits::{MAX_CALLS_PER_CONNECTION, SHUTDOWN_GRACE_MS};

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerOptions {
    /// The socket; at most 103 bytes long. Its directory must exist.
    pub socket: PathBuf,
}

/// A socket that is listened on. Calls wait in it until [`Self::serve`].
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
}

impl Server {
    /// Listens. A socket that a dead process left is replaced; one that answers is an error.
    ///
    /// The socket is its user's alone (0600), and never seen with other permissions. Needs a tokio runtime.
    pub fn bind(options: ServerOptions) -> Result<Self, Error> {
        let socket = options.socket;
        check_stale(&socket)?;
        // Under its name it appears with its permissions, in place of a stale one.
        let mut unready = socket.clone().into_os_string();
        unready.push(".new");
        let unready = PathBuf::from(unready);
        match fs::remove_file(&unready) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &unready)(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&unready).map_err(Error::io("listen on", &socket))?;
        fs::set_permissions(&unready, fs::Permissions::from_mode(0o600)).map_err(Error::io("change the mode of", &unready))?;
        fs::rename(&unready, &socket).map_err(Error::io("rename", &unready))?;
        Ok(Self { listener, socket })
    }

    /// Serves `routes` until `shutdown` is ready. Calls in flight then have a few seconds to end. The socket's file stays, so
    /// that a successor's is never removed.
    pub async fn serve(self, routes: Routes, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { listener, socket } = self;
        let (stop, stopped) = oneshot::channel::<()>();
        let incoming = UnixListenerStream::new(listener).filter_map(async |stream| match stream {
            Ok(stream) => is_own_user(&stream).then_some(Ok(stream)),
            // tonic goes on after those that concern one connection.
            Err(error) => Some(Err(error)),
        });
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async {
                // A sender that is dropped says the same.
                let _ = stopped.await;
            });
        let grace = async {
            shutdown.await;
            let _ = stop.send(());
            tokio::time::sleep(Duration::from_millis(SHUTDOWN_GRACE_MS)).await;
        };
        tokio::select! {
            served = server => served.map_err(|source| Error::Serve { path: socket, source }),
            () = grace => {
                tracing::warn!("calls were still running when the time to shut down was over");
                Ok(())
            }
        }
    }
}

fn check_stale(socket: &Path) -> Result<(), Error> {
    let path = || socket.to_path_buf();
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at", socket)(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Error::NotASocket { path: path() }),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => Err(Error::SocketInUse { path: path() }),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(Error::io("connect to", socket)(error)),
    }
}

/// The socket's permissions keep others out already, unless somebody changes them: whoever mounts snapshots is the same user.
fn is_own_user(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "refused a connection of another user");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "refused a connection whose user is unknown");
            false
        }
    }
}
