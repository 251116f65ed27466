//! A snapshotter on a directory of its own, and layers that are directories.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use snap_digest::Digest;
use snap_fs::{Below, LowerDirectory, Opened, RemoteLayer, Run, Rung, WantedLayer};
use snap_snapshotter::api::snapshots::snapshots_client::SnapshotsClient;
use snap_snapshotter::api::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest, UsageResponse, ViewSnapshotRequest,
};
use snap_snapshotter::api::types::Mount;
use snap_snapshotter::{InUse, LayerUsage, Layers, OpenError, Records, Snapshotter, routes};
use tokio::sync::{Notify, Semaphore};
use tonic::service::Routes;
use tonic::{Code, Status};

pub(crate) const REF: &str = "containerd.io/snapshot.ref";
pub(crate) type Labels = BTreeMap<String, String>;

/// The layer whose run, where it is the lowest, hides everything below.
pub(crate) const HIDES_ALL: u8 = 200;

pub(crate) fn digest(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What the CRI plugin sends for layer `number`, whose chain ID is made of the same number.
pub(crate) fn cri_labels(number: u8) -> Labels {
    labels(&[
        (REF, &digest(number).to_string()),
        ("containerd.io/snapshot/cri.image-ref", "registry.example/app:1"),
        ("containerd.io/snapshot/cri.layer-digest", &digest(number).to_string()),
    ])
}

/// How a layer is opened, and what its label says.
pub(crate) fn opened_by(layer: Digest) -> (Rung, &'static str) {
    match layer {
        layer if layer == digest(1) => (Rung::StreamingPass, "streaming-pass"),
        layer if layer == digest(2) => (Rung::Estargz, "estargz"),
        _ => (Rung::LocalIndex, "local-index"),
    }
}

/// What is said of a layer that is not there.
pub(crate) const UNKNOWN_KIND: &str = "the layer is of an unknown kind";

/// Layers that are directories below `root`: `layers/<number>` holds a layer's files, `runs/<n>` what a run of them comes to.
pub(crate) struct DirectoryLayers {
    pub(crate) root: PathBuf,
    pub(crate) opened: AtomicUsize,
    /// A permit is taken by every open. Starts with more than a test uses; see [`Self::hold_opens`].
    pub(crate) permits: Semaphore,
    pub(crate) retained: Mutex<Option<InUse>>,
    pub(crate) retained_changed: Notify,
    runs: Mutex<HashMap<(Vec<Digest>, bool), PathBuf>>,
}

impl DirectoryLayers {
    pub(crate) fn new(root: &Path) -> Self {
        fs::create_dir_all(root.join("layers")).unwrap();
        fs::create_dir_all(root.join("runs")).unwrap();
        Self {
            root: root.to_path_buf(),
            opened: AtomicUsize::new(0),
            permits: Semaphore::new(1 << 20),
            retained: Mutex::default(),
            retained_changed: Notify::new(),
            runs: Mutex::default(),
        }
    }

    /// Makes layer `number` with one file of its own and one that every layer has.
    pub(crate) fn add(&self, number: u8) {
        let layer = self.layer(digest(number));
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join(format!("file-{number}")), [number]).unwrap();
        fs::write(layer.join("shared"), [number]).unwrap();
    }

    /// From now on an open waits until it is let through by `permits.add_permits`.
    pub(crate) fn hold_opens(&self) {
        self.permits.forget_permits(usize::MAX >> 4);
    }

    fn layer(&self, layer: Digest) -> PathBuf {
        self.root.join("layers").join(layer.short())
    }

    /// Waits until `wanted` holds of what was said to be in use last.
    pub(crate) async fn wait_retained(&self, wanted: impl Fn(&InUse) -> bool) {
        loop {
            let changed = self.retained_changed.notified();
            if self.retained.lock().unwrap().as_ref().is_some_and(&wanted) {
                return;
            }
            changed.await;
        }
    }
}

#[async_trait]
impl Layers for DirectoryLayers {
    async fn open(&self, wanted: &WantedLayer) -> Result<Opened, OpenError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        if wanted.reference.contains("unreachable") {
            let source = Box::new(std::io::Error::other("no route to host"));
            return Err(OpenError::Failed { doing: "cannot read the manifest".to_owned(), temporary: true, source });
        }
        assert!(!wanted.reference.contains("panic"), "as the test wants");
        match wanted.layer.filter(|layer| self.layer(*layer).exists()) {
            Some(digest) => {
                let layer = RemoteLayer {
                    digest,
                    size_bytes: 1,
                    media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
                    diff_id: digest,
                    reference: wanted.reference.clone(),
                    toc_digest: None,
                };
                Ok(Opened { layer, opened_by: opened_by(digest).0 })
            }
            None => Err(OpenError::Unservable { reason: UNKNOWN_KIND.to_owned() }),
        }
    }

    async fn lower(&self, run: &Run) -> Result<LowerDirectory, OpenError> {
        let digests: Vec<_> = run.layers.iter().map(|layer| layer.digest).collect();
        let mut runs = self.runs.lock().unwrap();
        let next = self.root.join("runs").join(runs.len().to_string());
        let directory = runs.entry((digests.clone(), run.below == Below::Nothing)).or_insert(next);
        fs::create_dir_all(&directory).unwrap();
        lchown(&directory, Some(1234), Some(4321)).unwrap();
        for digest in digests {
            for entry in fs::read_dir(self.layer(digest)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
            }
        }
        Ok(LowerDirectory { path: directory.clone(), is_opaque: run.layers[0].digest == digest(HIDES_ALL) })
    }

    async fn usage(&self, _: &RemoteLayer) -> LayerUsage {
        LayerUsage { size_bytes: 77, inodes: 7 }
    }

    async fn retain(&self, in_use: &InUse) {
        *self.retained.lock().unwrap() = Some(in_use.clone());
        self.retained_changed.notify_waiters();
    }
}

/// A snapshotter with its client. Dropping it is what a crash leaves: nothing is shut down in order.
pub(crate) struct Rig {
    pub(crate) layers: Arc<DirectoryLayers>,
    pub(crate) snapshotter: Arc<Snapshotter>,
    pub(crate) client: SnapshotsClient<Routes>,
    pub(crate) dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = Arc::new(DirectoryLayers::new(dir.path()));
        Self::start_in(dir, layers).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, layers: Arc<DirectoryLayers>) -> Self {
        let records = Arc::new(open_released(&dir.path().join("records")).await);
        let snapshotter = Arc::new(Snapshotter::start(records, layers.clone()).await.unwrap());
        let client = SnapshotsClient::new(routes(snapshotter.clone()));
        Self { layers, snapshotter, client, dir }
    }

    pub(crate) async fn restart(self) -> Self {
        let Self { layers, snapshotter, client, dir } = self;
        drop((snapshotter, client));
        Self::start_in(dir, layers).await
    }

    /// Names in the folder of the ordinary snapshots' directories.
    pub(crate) fn directories(&self) -> Vec<String> {
        let list = fs::read_dir(self.dir.path().join("records/s")).unwrap();
        let mut names: Vec<_> = list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) async fn prepare(&mut self, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest { key: key.to_owned(), parent: parent.to_owned(), labels, ..Default::default() };
        Ok(self.client.prepare(request).await?.into_inner().mounts)
    }

    pub(crate) async fn view(&mut self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let request = ViewSnapshotRequest { key: key.to_owned(), parent: parent.to_owned(), ..Default::default() };
        Ok(self.client.view(request).await?.into_inner().mounts)
    }

    pub(crate) async fn mounts(&mut self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = MountsRequest { key: key.to_owned(), ..Default::default() };
        Ok(self.client.mounts(request).await?.into_inner().mounts)
    }

    pub(crate) async fn commit(&mut self, key: &str, name: &str, labels: Labels) -> Result<(), Status> {
        let request = CommitSnapshotRequest { key: key.to_owned(), name: name.to_owned(), labels, ..Default::default() };
        self.client.commit(request).await.map(|_| ())
    }

    pub(crate) async fn remove(&mut self, key: &str) -> Result<(), Status> {
        self.client.remove(RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() }).await.map(|_| ())
    }

    pub(crate) async fn stat(&mut self, key: &str) -> Result<Info, Status> {
        let request = StatSnapshotRequest { key: key.to_owned(), ..Default::default() };
        Ok(self.client.stat(request).await?.into_inner().info.unwrap())
    }

    pub(crate) async fn update(&mut self, name: &str, labels: Labels, paths: &[&str]) -> Result<Info, Status> {
        let info = Info { name: name.to_owned(), labels, ..Default::default() };
        self.update_with(info, paths).await
    }

    pub(crate) async fn update_with(&mut self, info: Info, paths: &[&str]) -> Result<Info, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = UpdateSnapshotRequest { info: Some(info), update_mask: Some(prost_types::FieldMask { paths }), ..Default::default() };
        Ok(self.client.update(request).await?.into_inner().info.unwrap())
    }

    pub(crate) async fn list(&mut self, filters: &[&str]) -> Result<Vec<Info>, Status> {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let mut stream = self.client.list(ListSnapshotsRequest { filters, ..Default::default() }).await?.into_inner();
        let mut found = Vec::new();
        while let Some(message) = stream.message().await? {
            found.extend(message.info);
        }
        Ok(found)
    }

    pub(crate) async fn usage(&mut self, key: &str) -> Result<UsageResponse, Status> {
        Ok(self.client.usage(UsageRequest { key: key.to_owned(), ..Default::default() }).await?.into_inner())
    }

    pub(crate) async fn cleanup(&mut self) -> Result<(), Status> {
        self.client.cleanup(CleanupRequest::default()).await.map(|_| ())
    }

    /// Makes the committed ordinary snapshot `name`.
    pub(crate) async fn committed(&mut self, name: &str, parent: &str) {
        self.prepare("making", parent, Labels::new()).await.unwrap();
        self.commit("making", name, Labels::new()).await.unwrap();
    }

    /// Has layer `number` served on `parent`, as containerd would ask for it.
    pub(crate) async fn served(&mut self, number: u8, parent: &str) {
        self.layers.add(number);
        let answer = self.prepare("asking", parent, cri_labels(number)).await;
        assert_eq!(code(answer), Code::AlreadyExists);
    }
}

/// The records, as soon as the process before has let go of them: its last blocking work may still run.
async fn open_released(path: &Path) -> Records {
    for _ in 0..100_000 {
        match Records::open(path) {
            Err(snap_snapshotter::Error::DatabaseInUse { .. }) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the records were never let go of");
}

/// The code of an answer that is an error.
pub(crate) fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}
