//! `snap serve`: containerd's snapshotter over layers that are mounted instead of unpacked.
//!
//! The order of the start is what makes it survive: the records are read first, so that every tree that the kernel may ask about is known
//! before the connection is taken over; nothing is opened and nobody is asked before containerd can be answered.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use snap_fs::{LayerService, Served, ServiceOptions, ServiceStatus, fd_store};
use snap_registry::{CredentialProvider, Platform};
use snap_snapshotter::{CriCredentials, CriProxy, Records, Server, ServerOptions, Snapshotter, routes};

use crate::args::ServeArgs;
use crate::config::Config;
use crate::connection::{Keeping, Place};
use crate::control::Control;
use crate::engine::{RegistryOptions, StoreOptions, open_engine};
use crate::limits;
use crate::process::{keep_memory_small, trim_memory};
use crate::signals::Signals;

/// What the control socket tells of the service.
#[derive(Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) pid: u32,
    pub(crate) socket: PathBuf,
    #[serde(flatten)]
    pub(crate) layers: ServiceStatus,
    /// Counts of snapshots, and the layers that were left to containerd; or why that is not known.
    pub(crate) snapshots: Result<snap_snapshotter::Status, String>,
}

/// The control socket of a service with this state directory.
pub(crate) fn control_socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = configuration(args)?;
    if args.print_config {
        print!("{}", config.text());
        return Ok(ExitCode::SUCCESS);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("snap serve needs root: it mounts, and makes snapshots with the owners that images have");
    }
    keep_memory_small();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.clamp(limits::WORKER_THREADS, limits::SERVICE_WORKER_THREADS_MAX))
        .max_blocking_threads(limits::SERVICE_BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start")?;
    let ended = runtime.block_on(run(&config));
    // Blocking threads may be in the middle of a download; store and records are made for processes that end at any moment.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

fn configuration(args: &ServeArgs) -> anyhow::Result<Config> {
    let mut config = Config::read(args.config.as_deref())?;
    let absolute = |path: &PathBuf| crate::engine::absolute(path);
    if let Some(root) = &args.root {
        config.root = absolute(root)?;
    }
    if let Some(state) = &args.state {
        config.state = absolute(state)?;
    }
    if let Some(socket) = &args.socket {
        config.socket = Some(absolute(socket)?);
    }
    config.check()?;
    Ok(config)
}

/// Refuses a second service on the same root or state, for as long as this lives.
struct Alone {
    _locks: [File; 2],
}

impl Alone {
    fn claim(config: &Config) -> anyhow::Result<Self> {
        let lock = |dir: &Path| {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let path = dir.join("serve.lock");
            let file = File::options().create(true).append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => Ok(file),
                Err(TryLockError::WouldBlock) => {
                    bail!("another snap serve uses {}\nhint: stop it, or give this one a --root and a --state of its own", dir.display())
                }
                Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
            }
        };
        Ok(Self { _locks: [lock(&config.root)?, lock(&config.state)?] })
    }
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let credentials = config.cri.containerd.as_ref().map(|_| Arc::new(CriCredentials::new(config.cri.keep_credentials.clone())));
    let place = Place::new(&config.state);
    // The store comes first: it makes the root what it is, and takes no directory that already holds something else.
    let layers = layer_service(config, &place, credentials.clone())?;
    let _alone = Alone::claim(config)?;
    let records = Arc::new(Records::open(&config.root.join("snapshotter"))?);
    let in_use = records.in_use()?;
    layers.restore(&in_use.runs);
    let (mut served, keeping) = serve_mount(&layers, &place)?;
    tokio::spawn(place.keep(served.device(), keeping)?);
    let warming_up = layers.warm_up(in_use.layers);
    tokio::spawn(async move {
        warming_up.await;
        trim_memory();
    });
    let snapshotter = Arc::new(Snapshotter::start(records, layers.clone()).await?);
    let mut routes = routes(Arc::clone(&snapshotter));
    if let (Some(containerd), Some(credentials)) = (&config.cri.containerd, credentials) {
        routes = CriProxy::new(containerd.clone(), credentials).add_to(routes);
    }
    let socket = config.socket();
    let server =
        Server::bind(ServerOptions { socket: socket.clone() }).with_context(|| format!("cannot listen at {}", socket.display()))?;
    let control = Control::start_anew(&control_socket(&config.state)).context("cannot open the control socket")?;
    control.tells(Some(Arc::clone(&layers)), {
        let (layers, socket) = (Arc::clone(&layers), socket.clone());
        move || {
            let (layers, socket, snapshotter) = (Arc::clone(&layers), socket.clone(), Arc::clone(&snapshotter));
            async move {
                let snapshots = snapshotter.status().await.map_err(|error| error.to_string());
                Status { pid: std::process::id(), socket, layers: layers.status(), snapshots }
            }
        }
    });
    fd_store::ready()?;
    tracing::info!(socket = %socket.display(), "serving");
    let stopped = async {
        let stop = signals.next().await;
        tracing::info!(?stop, "stopping; the mount stays for the containers that use it");
        // Best effort: the service manager sees the end anyway.
        let _ = fd_store::stopping();
    };
    tokio::select! {
        ended = server.serve(routes, stopped) => Ok(ended?),
        ended = served.ended() => {
            ended?;
            bail!("the mount at {} was taken away\nhint: start snap serve again", place.mount_dir().display())
        }
    }
}

/// Serves the mount that an earlier process left, or a new one. What running containers lose is logged.
fn serve_mount(layers: &LayerService, place: &Place) -> anyhow::Result<(Served, Keeping)> {
    if let Some((connection, keeping)) = place.take_over()? {
        match layers.serve(connection) {
            Ok(served) => return Ok((served, keeping)),
            Err(error) => {
                tracing::error!(%error, "the mount of an earlier process cannot be served; containers that use it lose their files");
            }
        }
    }
    let (connection, keeping) = place.mount()?;
    Ok((layers.serve(connection).context("cannot serve the mount")?, keeping))
}

fn layer_service(config: &Config, place: &Place, credentials: Option<Arc<CriCredentials>>) -> anyhow::Result<Arc<LayerService>> {
    let store = StoreOptions { dir: config.root.clone(), budget_bytes: config.store.budget };
    let registry = RegistryOptions {
        plain_http: config.registry.plain_http,
        certs_dirs: config.registry.certs_dirs.clone(),
        docker_config: config.registry.docker_config.clone(),
        credentials: credentials.map(|credentials| credentials as Arc<dyn CredentialProvider>),
    };
    let options = ServiceOptions {
        mount_dir: place.mount_dir(),
        platform: Platform::host(),
        read_deadline: Duration::from_secs(config.fetch.read_timeout_s),
        background: config.fetch.background,
        keep_unused: config.store.budget.is_some(),
    };
    Ok(LayerService::new(open_engine(&store, &registry)?, options))
}
