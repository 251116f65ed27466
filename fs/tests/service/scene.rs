//! A registry with one image, and a service that has its layers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use snap_cache::{Cache, CacheOptions};
use snap_digest::Digest;
use snap_fs::{Below, Connection, Engine, FsError, LayerService, Opened, Run, Served, ServiceOptions, WantedLayer, unmount};
use snap_registry::limits::Limits;
use snap_registry::testing::FaultyRegistry;
use snap_registry::{Client, ClientOptions, Platform};
use tempfile::TempDir;

pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// How often one request is made before it fails.
pub(crate) const REGISTRY_ATTEMPTS: u32 = 2;

/// A registry with one image of three layers, and a service with a mount.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    pub(crate) registry: FaultyRegistry,
    pub(crate) manifest: Digest,
    /// Diff IDs, which are the blobs' digests too: the layers are not compressed.
    pub(crate) layers: Vec<Digest>,
    pub(crate) service: Arc<LayerService>,
    pub(crate) served: Option<Served>,
}

/// A layer with these files; a name that ends with `/` is a directory.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with('/') { fs::create_dir_all(path).unwrap() } else { fs::write(path, content).unwrap() }
    }
    let arguments = ["--create", "--file=-", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-C"];
    let made = Command::new("tar").args(arguments).arg(dir.path()).arg(".").output().expect("tar is needed to make a layer");
    assert!(made.status.success());
    made.stdout
}

impl Scene {
    pub(crate) async fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests mount file systems: run them as root");
        let registry = FaultyRegistry::start().await;
        let blobs = [
            tar(&[("a", "a of the bottom"), ("both", "bottom"), ("dir/low", "low")]),
            tar(&[("b", "b of the middle"), ("both", "middle"), (".wh.a", ""), ("dir/.wh..wh..opq", ""), ("dir/mid", "mid")]),
            tar(&[("c", "c of the top"), ("dir/top", "top")]),
        ];
        let layers: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
        let parts: Vec<_> = blobs.iter().zip(&layers).map(|(blob, digest)| (TAR, blob.clone().into(), *digest)).collect();
        let manifest = registry.add_image("image", "latest", &parts).digest;
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path(), true);
        let mut scene = Self { dir, registry, manifest, layers, service, served: None };
        scene.mount();
        scene
    }

    pub(crate) fn mount(&mut self) {
        let (mount_dir, saved) = (self.dir.path().join("fs"), self.dir.path().join("connection.json"));
        fs::create_dir_all(&mount_dir).unwrap();
        let connection = Connection::mount(&mount_dir, "snap", &saved).unwrap();
        self.served = Some(self.service.serve(connection).unwrap());
    }

    /// Ends the service, as far as the kernel sees it.
    pub(crate) async fn unmount(&mut self) {
        unmount(&self.dir.path().join("fs"), false).unwrap();
        self.served.take().unwrap().ended().await.unwrap();
    }

    /// Where a layer is in the store.
    pub(crate) fn stored(&self, layer: &Digest) -> PathBuf {
        self.dir.path().join("store/layers/sha256").join(layer.hex())
    }

    pub(crate) fn chain_id(&self, position: usize) -> Digest {
        let below = position.checked_sub(1).map(|below| self.chain_id(below));
        below.map_or(self.layers[0], |below| Digest::of(format!("{below} {}", self.layers[position]).as_bytes()))
    }

    pub(crate) fn wanted(&self, position: usize) -> WantedLayer {
        WantedLayer {
            chain_id: self.chain_id(position),
            reference: self.registry.reference("image:latest"),
            manifest: Some(self.manifest),
            layer: Some(self.layers[position]),
            others: self.layers[position..].to_vec(),
        }
    }

    pub(crate) async fn open(&self, position: usize) -> Result<Opened, Arc<FsError>> {
        self.service.open(&self.wanted(position)).await
    }

    pub(crate) async fn run(&self, positions: std::ops::Range<usize>, below: Below) -> Run {
        let mut layers = Vec::new();
        for position in positions {
            layers.push(self.open(position).await.unwrap().layer);
        }
        Run { layers, below }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The test may be failing already.
        let _ = unmount(&self.dir.path().join("fs"), true);
    }
}

/// Another process, with the store that is there. `background`: everything is fetched behind the reads.
pub(crate) fn service(dir: &Path, background: bool) -> Arc<LayerService> {
    let cache = Cache::open(&dir.join("store"), CacheOptions::default()).unwrap();
    let client = Client::new(ClientOptions {
        docker_config: Some(dir.join("none.json")),
        hosts_dirs: Vec::new(),
        limits: Limits { attempts: REGISTRY_ATTEMPTS, backoff_first: Duration::from_millis(10), ..Limits::default() },
        ..Default::default()
    });
    let options = ServiceOptions {
        mount_dir: dir.join("fs"),
        platform: Platform::host(),
        read_deadline: Duration::from_secs(30),
        background,
        keep_unused: false,
    };
    LayerService::new(Engine::new(client.unwrap(), cache), options)
}
