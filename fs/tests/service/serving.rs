//! What a mount shows, and what is kept of it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use snap_cache::{Cache, CacheOptions};
use snap_digest::Digest;
use snap_fs::{Below, Run, Rung, ServiceStatus, WantedLayer};
use snap_registry::testing::{Fault, Matcher};

use crate::scene::{Scene, TAR, service, tar};

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
    assert!(status.streaming.is_empty(), "what is open is not being streamed any more");
    let layers = &status.layers;
    assert!(layers.iter().all(|layer| layer.requests == 1 && layer.bytes_fetched == layer.blob_bytes), "{layers:?}");
    assert_eq!(status.costs.requests, 3);
    assert_eq!(status.costs.bytes_fetched, layers.iter().map(|layer| layer.blob_bytes).sum::<u64>());
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
    assert!(!scene.stored(&scene.layers[1]).exists(), "nothing is left of it");
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
    let stored = |layer: &Digest| scene.stored(layer).exists();
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
    let stored = scene.stored(&scene.layers[0]);
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
    scene.unmount().await;
    scene.registry.fault(Fault::Status(500, None), Matcher::path("/"));
    scene.registry.forget_requests();

    scene.service = service(scene.dir.path(), true);
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
    scene.unmount().await;
    let index = scene.stored(&scene.layers[2]).join("index");
    fs::write(&index, b"damaged").unwrap();

    scene.service = service(scene.dir.path(), true);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_says_how_it_was_opened_for_whoever_asked() {
    let mut scene = Scene::new().await;
    // The others are opened ahead by the first.
    for position in [0, 1, 2] {
        assert_eq!(scene.open(position).await.unwrap().opened_by, Rung::StreamingPass);
    }
    assert_eq!(scene.open(1).await.unwrap().opened_by, Rung::LocalIndex, "it was here already");
    scene.unmount().await;
    scene.service = service(scene.dir.path(), true);
    assert_eq!(scene.open(1).await.unwrap().opened_by, Rung::LocalIndex);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_streamed_is_told() {
    let scene = Scene::new().await;
    let blob_bytes = tar(&[("c", "c of the top"), ("dir/top", "top")]).len() as u64;
    scene.registry.fault(Fault::StallAt(5000), Matcher::path(&scene.layers[2].to_string()));
    let alone = WantedLayer { others: Vec::new(), ..scene.wanted(2) };
    let opening = tokio::spawn({
        let service = std::sync::Arc::clone(&scene.service);
        async move { service.open(&alone).await }
    });
    let halfway = async {
        loop {
            let ServiceStatus { streaming, layers, .. } = scene.service.status();
            if streaming.first().is_some_and(|layer| layer.done_bytes > 0) {
                return (streaming, layers);
            }
            tokio::task::yield_now().await;
        }
    };
    let (streaming, layers) = tokio::time::timeout(Duration::from_secs(60), halfway).await.expect("the layer is being streamed");
    assert!(layers.is_empty(), "it is not open yet");
    assert_eq!((streaming[0].digest, streaming[0].total_bytes, streaming.len()), (scene.layers[2], blob_bytes, 1));
    assert!(streaming[0].done_bytes <= 5000);
    opening.abort();
}
