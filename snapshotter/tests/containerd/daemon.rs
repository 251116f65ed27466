//! containerd with the service as proxy plugin, on a folder of its own.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use snap_fs::{LowerDirectory, RemoteLayer, Run, WantedLayer};
use snap_snapshotter::{Error, InUse, LayerUsage, Layers, OpenError, Opened, Records, Server, ServerOptions, Snapshotter, Status, routes};
use tokio::sync::oneshot;

/// How long containerd may take to be ready, and to collect its garbage.
const TRIES: usize = 600;
const POLL: Duration = Duration::from_millis(50);

/// Serves no layer at all.
struct Nothing;

#[async_trait]
impl Layers for Nothing {
    async fn open(&self, _: &WantedLayer) -> Result<Opened, OpenError> {
        Err(OpenError::Unservable { reason: "this test serves nothing".to_owned() })
    }

    async fn lower(&self, _: &Run) -> Result<LowerDirectory, OpenError> {
        Err(OpenError::Unservable { reason: "this test serves nothing".to_owned() })
    }

    async fn usage(&self, _: &RemoteLayer) -> LayerUsage {
        LayerUsage::default()
    }

    async fn retain(&self, in_use: &InUse) {
        assert_eq!(*in_use, InUse::default());
    }
}

/// The service, while it runs.
struct Service {
    snapshotter: Arc<Snapshotter>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), Error>>,
}

pub(crate) struct Daemon {
    pub(crate) dir: tempfile::TempDir,
    /// None only while it is restarted.
    service: Option<Service>,
    containerd: Child,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let parent = std::env::var("SNAP_E2E_CACHE").expect("SNAP_E2E_CACHE is not set: run these tests with ci/test");
        let dir = tempfile::tempdir_in(parent).unwrap();
        let service = Some(serve(dir.path()).await);
        let config = dir.path().join("config.toml");
        std::fs::write(&config, config_text(dir.path())).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let containerd = Command::new("containerd").arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let daemon = Self { dir, service, containerd };
        daemon.wait("containerd is ready", || daemon.try_ctr(&["version"]).status.success()).await;
        daemon
    }

    /// Stops the service and starts another on the same directory and socket.
    pub(crate) async fn restart_service(&mut self) {
        let Service { snapshotter, stop, served } = self.service.take().unwrap();
        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
        drop(snapshotter);
        let path = self.dir.path().join("records");
        // They are free when the last call has let go of them.
        self.wait("the records are free", || !matches!(Records::open(&path), Err(Error::DatabaseInUse { .. }))).await;
        self.service = Some(serve(self.dir.path()).await);
    }

    pub(crate) async fn status(&self) -> Status {
        self.service.as_ref().unwrap().snapshotter.status().await.unwrap()
    }

    /// Asks again and again until it is so.
    pub(crate) async fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let mut poll = tokio::time::interval(POLL);
        for _ in 0..TRIES {
            poll.tick().await;
            if done() {
                return;
            }
        }
        panic!("waited in vain until {what}\n{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    /// Waits until containerd has collected what nothing refers to any more.
    pub(crate) async fn collected(&self) {
        let mut poll = tokio::time::interval(POLL);
        for _ in 0..TRIES {
            poll.tick().await;
            if self.status().await == Status::default() && self.directories().is_empty() {
                return;
            }
        }
        panic!("snapshots are left: {:?} {:?}", self.status().await, self.directories());
    }

    pub(crate) fn try_ctr(&self, arguments: &[&str]) -> Output {
        Command::new("ctr").arg("--address").arg(self.dir.path().join("containerd.sock")).args(arguments).output().unwrap()
    }

    /// Runs ctr, which must succeed, and gives what it printed.
    #[track_caller]
    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        succeed(Command::new("ctr").arg("--address").arg(self.dir.path().join("containerd.sock")).args(arguments))
    }

    #[track_caller]
    pub(crate) fn snapshots(&self, arguments: &[&str]) -> String {
        self.ctr(&[&["snapshots", "--snapshotter", "snap"], arguments].concat())
    }

    /// Names in the folder of the snapshots' directories.
    pub(crate) fn directories(&self) -> Vec<String> {
        let list = std::fs::read_dir(self.dir.path().join("records/s")).unwrap();
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that failed may have left a container.
        let left = String::from_utf8(self.try_ctr(&["tasks", "ls", "-q"]).stdout).unwrap_or_default();
        for task in left.lines() {
            self.try_ctr(&["tasks", "kill", "--signal", "SIGKILL", task]);
            self.try_ctr(&["tasks", "delete", "--force", task]);
        }
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
    }
}

async fn serve(dir: &Path) -> Service {
    let records = Arc::new(Records::open(&dir.join("records")).unwrap());
    let snapshotter = Arc::new(Snapshotter::start(records, Arc::new(Nothing)).await.unwrap());
    let server = Server::bind(ServerOptions { socket: dir.join("snap.sock") }).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server.serve(routes(snapshotter.clone()), async {
        let _ = stopped.await;
    }));
    Service { snapshotter, stop, served }
}

fn config_text(dir: &Path) -> String {
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]

[grpc]
  address = "{dir}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"

[proxy_plugins.snap]
  type = "snapshot"
  address = "{dir}/snap.sock"
"#,
        dir = dir.display()
    )
}

/// Runs to the end; panics with everything it said unless it succeeded.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\nstdout: {out}\nstderr: {err}", output.status);
    out.into_owned()
}
