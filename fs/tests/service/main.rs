//! Layers served to containerd, on a real mount, from a registry that can be told to fail. Needs root and /dev/fuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use snap_cache::{Cache, CacheOptions};
use snap_digest::Digest;
use snap_fs::{Below, Connection, Engine, FsError, LayerService, RemoteLayer, Run, Served, ServiceOptions, WantedLayer, unmount};
use snap_registry::testing::{Fault, FaultyRegistry, Matcher};
use snap_registry::{Client, ClientOptions, Platform};
use tempfile::TempDir;

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A registry with one image of three layers, and a service with a mount.
struct Scene {
    dir: TempDir,
    registry: FaultyRegistry,
    manifest: Digest,
    /// Diff IDs, which are the blobs' digests too: the layers are not compressed.
    layers: Vec<Digest>,
    service: Arc<LayerService>,
    served: Option<Served>,
}

/// A layer with these files; a name that ends with `/` is a directory.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
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
    async fn new() -> Self {
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
        let service = service(dir.path(), Duration::from_secs(30));
        let mut scene = Self { dir, registry, manifest, layers, service, served: None };
        scene.mount();
        scene
    }

    fn mount(&mut self) {
        let (mount_dir, saved) = (self.dir.path().join("fs"), self.dir.path().join("connection.json"));
        fs::create_dir_all(&mount_dir).unwrap();
        let connection = Connection::mount(&mount_dir, "snap", &saved).unwrap();
        self.served = Some(self.service.serve(connection).unwrap());
    }

    fn chain_id(&self, position: usize) -> Digest {
        let below = position.checked_sub(1).map(|below| self.chain_id(below));
        below.map_or(self.layers[0], |below| Digest::of(format!("{below} {}", self.layers[position]).as_bytes()))
    }

    fn wanted(&self, position: usize) -> WantedLayer {
        WantedLayer {
            chain_id: self.chain_id(position),
            reference: self.registry.reference("image:latest"),
            manifest: Some(self.manifest),
            layer: Some(self.layers[position]),
            others: self.layers[position..].to_vec(),
        }
    }

    async fn open(&self, position: usize) -> Result<RemoteLayer, Arc<FsError>> {
        self.service.open(&self.wanted(position)).await
    }

    async fn run(&self, positions: std::ops::Range<usize>, below: Below) -> Run {
        let mut layers = Vec::new();
        for position in positions {
            layers.push(self.open(position).await.unwrap());
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

fn service(dir: &Path, read_deadline: Duration) -> Arc<LayerService> {
    let cache = Cache::open(&dir.join("store"), CacheOptions::default()).unwrap();
    let client = Client::new(ClientOptions { docker_config: Some(dir.join("none.json")), hosts_dirs: Vec::new(), ..Default::default() });
    let options =
        ServiceOptions { mount_dir: dir.join("fs"), platform: Platform::host(), read_deadline, background: true, keep_unused: false };
    LayerService::new(Engine::new(client.unwrap(), cache), options)
}

/// Looks into the mount off the runtime's threads, which answer it.
async fn look<T: Send + 'static>(path: PathBuf, look: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(move || look(&path)).await.unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_one_directory() {
    let scene = Scene::new().await;
    let run = scene.run(0..3, Below::Nothing).await;
    let lower = scene.service.lower(&run).await.unwrap().path;
    assert_eq!(scene.service.lower(&run).await.unwrap().path, lower, "the same run has the same directory");
    look(lower.clone(), |lower| {
        assert_eq!(names(lower), ["b", "both", "c", "dir"]);
        assert_eq!(names(&lower.join("dir")), ["mid", "top"]);
        assert_eq!(fs::read_to_string(lower.join("both")).unwrap(), "middle");
        assert!(lower.parent().unwrap().join("0000000000").symlink_metadata().is_err());
    })
    .await;
    let status = scene.service.status();
    assert!(status.complete && status.layers.len() == 3 && status.trees.len() == 1);
    assert_eq!(lower.file_name().unwrap().to_str().unwrap(), status.trees[0].name);
    assert!(scene.service.usage(&scene.layers[0]).0 > 0);
    // Each blob once, though every layer was opened and named by the others before.
    assert_eq!(
        scene.registry.requests().iter().filter(|request| request.path.contains("/blobs/")).count(),
        4,
        "three and the configuration"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_share_their_files() {
    let scene = Scene::new().await;
    let (whole, part) = (scene.run(0..3, Below::Nothing).await, scene.run(0..2, Below::Nothing).await);
    let (whole, part) = (scene.service.lower(&whole).await.unwrap().path, scene.service.lower(&part).await.unwrap().path);
    assert_ne!(whole, part);
    look(whole, move |whole| {
        let (one, other) = (fs::metadata(whole.join("b")).unwrap(), fs::metadata(part.join("b")).unwrap());
        assert_eq!((one.dev(), one.ino()), (other.dev(), other.ino()));
        assert_ne!(fs::metadata(whole.join("dir")).unwrap().ino(), fs::metadata(part.join("dir")).unwrap().ino());
        assert_eq!(names(whole.parent().unwrap()).len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_over_other_layers_shows_what_it_hides() {
    let scene = Scene::new().await;
    let run = scene.run(1..3, Below::Layers).await;
    let lower = scene.service.lower(&run).await.unwrap().path;
    look(lower, |lower| {
        assert_eq!(names(lower), ["a", "b", "both", "c", "dir"]);
        let whiteout = fs::symlink_metadata(lower.join("a")).unwrap();
        assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        assert_eq!(xattr::get(lower.join("dir"), "trusted.overlay.opaque").unwrap().as_deref(), Some(&b"y"[..]));
        assert_eq!(xattr::get(lower, "trusted.overlay.opaque").unwrap(), None);
        // And overlayfs makes of it what it should.
        let other = tempfile::tempdir().unwrap();
        for (name, content) in [("a", "hidden"), ("below", "seen"), ("dir/gone", "hidden")] {
            fs::create_dir_all(other.path().join(name).parent().unwrap()).unwrap();
            fs::write(other.path().join(name), content).unwrap();
        }
        let point = tempfile::tempdir().unwrap();
        let options = format!("lowerdir={}:{}", lower.display(), other.path().display());
        let flags = nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(Some("overlay"), point.path(), Some("overlay"), flags, Some(options.as_str())).unwrap();
        let seen = std::panic::catch_unwind(|| (names(point.path()), names(&point.path().join("dir"))));
        nix::mount::umount(point.path()).unwrap();
        let (root, dir) = seen.unwrap();
        assert_eq!(root, ["b", "below", "both", "c", "dir"]);
        assert_eq!(dir, ["mid", "top"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_hides_everything_below_says_so() {
    let mut scene = Scene::new().await;
    let blob = tar(&[(".wh..wh..opq", ""), ("only", "this")]);
    scene.layers = vec![Digest::of(&blob)];
    scene.manifest = scene.registry.add_image("image", "opaque", &[(TAR, blob.into(), scene.layers[0])]).digest;
    let run = scene.run(0..1, Below::Layers).await;
    assert!(scene.service.lower(&run).await.unwrap().is_opaque);
    let run = Run { below: Below::Nothing, ..run };
    assert!(!scene.service.lower(&run).await.unwrap().is_opaque);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_image_is_left_to_others() {
    let scene = Scene::new().await;
    let unknown = WantedLayer { chain_id: Digest::of(b"unknown"), ..scene.wanted(0) };
    let crossed = WantedLayer { layer: Some(scene.layers[1]), ..scene.wanted(0) };
    let elsewhere = WantedLayer { reference: "oci:/etc".to_owned(), ..scene.wanted(0) };
    let nonsense = WantedLayer { reference: "no reference!".to_owned(), ..scene.wanted(0) };
    let missing = WantedLayer { manifest: Some(Digest::of(b"missing")), ..scene.wanted(0) };
    for wanted in [unknown, crossed, elsewhere, nonsense, missing] {
        let error = scene.service.open(&wanted).await.unwrap_err();
        assert!(error.is_unservable(), "{wanted:?}: {error}");
    }
    let asked = scene.registry.count("/manifests/");
    let again = WantedLayer { manifest: Some(Digest::of(b"missing")), ..scene.wanted(0) };
    assert!(scene.service.open(&again).await.is_err());
    assert_eq!(scene.registry.count("/manifests/"), asked, "what is not there is not asked for by every layer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_cannot_be_had_is_the_pulls_error() {
    let scene = Scene::new().await;
    scene.registry.fault(Fault::Status(500, None), Matcher::path(&scene.layers[1].to_string()));
    let error = scene.open(1).await.unwrap_err();
    assert!(!error.is_unservable() && error.is_temporary(), "{error}");
    assert!(!scene.dir.path().join("store/layers/sha256").join(scene.layers[1].hex()).exists(), "nothing is left of it");
    scene.registry.heal();
    scene.open(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_will_be_asked_for_are_there_already_and_stay() {
    let scene = Scene::new().await;
    scene.open(0).await.unwrap();
    let all = async {
        while scene.service.status().layers.len() < 3 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the others are opened ahead");
    scene.service.retain(&HashSet::from([scene.layers[0]]), &[]).await;
    let asked = scene.registry.requests().len();
    for position in [1, 2] {
        let alone = WantedLayer { others: Vec::new(), ..scene.wanted(position) };
        scene.service.open(&alone).await.unwrap();
    }
    assert_eq!(scene.registry.requests().len(), asked);
    scene.service.retain(&HashSet::from([scene.layers[0]]), &[]).await;
    assert_eq!(scene.service.status().layers.len(), 1, "what was asked for and is in no snapshot goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_snapshot_has_is_given_back() {
    let scene = Scene::new().await;
    let run = scene.run(0..3, Below::Nothing).await;
    let lower = scene.service.lower(&run).await.unwrap().path;
    look(lower.clone(), |lower| assert_eq!(names(lower).len(), 4)).await;
    let stored = |layer: &Digest| scene.dir.path().join("store/layers/sha256").join(layer.hex()).exists();
    assert!(scene.layers.iter().all(stored));

    let keep = HashSet::from([scene.layers[0], scene.layers[1]]);
    let part = Run { layers: run.layers[..2].to_vec(), below: Below::Nothing };
    scene.service.retain(&keep, std::slice::from_ref(&part)).await;
    assert_eq!(scene.layers.iter().map(stored).collect::<Vec<_>>(), [true, true, false]);
    look(lower, |lower| assert!(lower.symlink_metadata().is_err())).await;

    scene.service.retain(&HashSet::new(), &[]).await;
    assert!(!scene.layers.iter().any(stored));
    assert!(scene.service.status().layers.is_empty() && scene.service.status().trees.is_empty());

    let lower = scene.service.lower(&part).await.unwrap().path;
    look(lower, |lower| assert_eq!(fs::read_to_string(lower.join("both")).unwrap(), "middle")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_still_in_use_is_given_back_when_it_is_not() {
    let scene = Scene::new().await;
    scene.open(0).await.unwrap();
    // As a process that has the layer mounted holds it.
    let elsewhere = Cache::open(&scene.dir.path().join("store"), CacheOptions::default()).unwrap();
    let lease = elsewhere.lease(&scene.layers[0]).unwrap();
    scene.service.retain(&HashSet::new(), &[]).await;
    let stored = scene.dir.path().join("store/layers/sha256").join(scene.layers[0].hex());
    assert!(stored.exists(), "it is in use");
    drop(lease);
    let freed = async {
        while stored.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("it is removed as soon as nobody uses it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_goes_on_without_a_registry() {
    let mut scene = Scene::new().await;
    let run = scene.run(0..3, Below::Nothing).await;
    let lower = scene.service.lower(&run).await.unwrap().path;
    let before = look(lower.clone(), |lower| fs::metadata(lower.join("b")).unwrap().ino()).await;
    unmount(&scene.dir.path().join("fs"), false).unwrap();
    scene.served.take().unwrap().ended().await.unwrap();
    scene.registry.fault(Fault::Status(500, None), Matcher::path("/"));
    scene.registry.forget_requests();

    scene.service = service(scene.dir.path(), Duration::from_secs(30));
    scene.service.restore(std::slice::from_ref(&run));
    scene.mount();
    assert!(scene.service.status().trees.iter().all(|tree| !tree.open), "nothing is opened before someone looks");
    look(lower, move |lower| {
        assert_eq!(fs::read_to_string(lower.join("c")).unwrap(), "c of the top");
        assert_eq!(fs::metadata(lower.join("b")).unwrap().ino(), before, "numbers are a function of the content");
    })
    .await;
    scene.service.warm_up(run.layers.clone()).await;
    assert!(scene.service.status().complete);
    assert_eq!(scene.registry.requests().len(), 0, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_whose_layer_is_gone_is_an_error_and_the_rest_serves() {
    let mut scene = Scene::new().await;
    let (whole, part) = (scene.run(0..3, Below::Nothing).await, scene.run(0..2, Below::Nothing).await);
    let (lower, other) = (scene.service.lower(&whole).await.unwrap().path, scene.service.lower(&part).await.unwrap().path);
    unmount(&scene.dir.path().join("fs"), false).unwrap();
    scene.served.take().unwrap().ended().await.unwrap();
    let index = scene.dir.path().join("store/layers/sha256").join(scene.layers[2].hex()).join("index");
    fs::write(&index, b"damaged").unwrap();

    scene.service = service(scene.dir.path(), Duration::from_secs(30));
    scene.service.restore(&[whole.clone(), part]);
    scene.mount();
    let broken = lower.clone();
    look(other, move |other| {
        assert_eq!(fs::read_dir(&broken).err().and_then(|error| error.raw_os_error()), Some(libc::EIO));
        assert_eq!(fs::read_to_string(other.join("both")).unwrap(), "middle");
    })
    .await;
    // The next container that wants it makes the index anew.
    assert_eq!(scene.service.lower(&whole).await.unwrap().path, lower);
    look(lower, |lower| assert_eq!(fs::read_to_string(lower.join("c")).unwrap(), "c of the top")).await;
}
