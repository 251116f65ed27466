//! The unix socket. The test of other users needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use snap_snapshotter::api::snapshots::snapshots_client::SnapshotsClient;
use snap_snapshotter::api::snapshots::{ListSnapshotsRequest, PrepareSnapshotRequest, StatSnapshotRequest};
use snap_snapshotter::{Error, Records, Server, ServerOptions, Snapshotter, routes};
use tokio::sync::oneshot;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::harness::{DirectoryLayers, code, cri_labels};

struct Listening {
    layers: Arc<DirectoryLayers>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), Error>>,
    options: ServerOptions,
    dir: tempfile::TempDir,
}

async fn listen() -> Listening {
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions { socket: dir.path().join("snap.sock") };
    let layers = Arc::new(DirectoryLayers::new(dir.path()));
    let records = Arc::new(Records::open(&dir.path().join("records")).unwrap());
    let snapshotter = Arc::new(Snapshotter::start(records, layers.clone()).await.unwrap());
    let server = Server::bind(options.clone()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server.serve(routes(snapshotter), async {
        stopped.await.unwrap();
    }));
    Listening { layers, stop, served, options, dir }
}

impl Listening {
    async fn connect(&self) -> SnapshotsClient<tonic::transport::Channel> {
        let address = format!("unix://{}", self.options.socket.display());
        SnapshotsClient::new(Endpoint::try_from(address).unwrap().connect().await.unwrap())
    }
}

#[tokio::test]
async fn a_client_is_answered_over_the_socket_until_the_server_is_stopped() {
    let listening = listen().await;
    let mut client = listening.connect().await;
    client.prepare(PrepareSnapshotRequest { key: "key".into(), ..Default::default() }).await.unwrap();
    assert_eq!(code(client.stat(StatSnapshotRequest { key: "none".into(), ..Default::default() }).await), Code::NotFound);
    let mut list = client.list(ListSnapshotsRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.message().await.unwrap().unwrap().info.len(), 1);
    let mode = fs::metadata(&listening.options.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Server::bind(listening.options.clone()), Err(Error::SocketInUse { .. })));
    listening.stop.send(()).unwrap();
    listening.served.await.unwrap().unwrap();
    // The transport's error, which one depends on how far the closing has come, and no answer of the service.
    let after = code(client.stat(StatSnapshotRequest { key: "none".into(), ..Default::default() }).await);
    assert!(matches!(after, Code::Unavailable | Code::Unknown), "{after:?}");
    // What it left behind is stale now.
    Server::bind(listening.options).unwrap();
}

#[tokio::test]
async fn a_call_in_flight_is_answered_before_the_server_ends() {
    let listening = listen().await;
    listening.layers.add(1);
    listening.layers.hold_opens();
    let mut client = listening.connect().await;
    let request = PrepareSnapshotRequest { key: "key".into(), labels: cri_labels(1), ..Default::default() };
    let call = tokio::spawn(async move { client.prepare(request).await });
    while listening.layers.opened.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    listening.stop.send(()).unwrap();
    listening.layers.permits.add_permits(1);
    assert_eq!(code(call.await.unwrap()), Code::AlreadyExists);
    listening.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn only_a_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions { socket: dir.path().join("file") };
    fs::write(&options.socket, b"precious").unwrap();
    assert!(matches!(Server::bind(options.clone()), Err(Error::NotASocket { .. })));
    assert_eq!(fs::read(&options.socket).unwrap(), b"precious");
    let nowhere = ServerOptions { socket: dir.path().join("none/snap.sock") };
    assert!(matches!(Server::bind(nowhere), Err(Error::Io { .. })));
}

#[tokio::test]
async fn another_user_is_refused_even_where_the_permissions_would_let_it_in() {
    let listening = listen().await;
    fs::set_permissions(&listening.options.socket, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(listening.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = listening.options.socket.clone();
    // Connects, and reads until the other side closes: a server that talks HTTP/2 would send its settings first.
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.settimeout(30)\nprint(len(s.recv(100)))";
    let other = tokio::task::spawn_blocking(move || {
        Command::new("python3").arg("-c").arg(script).arg(socket).uid(65534).gid(65534).output().unwrap()
    });
    let output = other.await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
    listening.connect().await.stat(StatSnapshotRequest { key: "none".into(), ..Default::default() }).await.unwrap_err();
}
