//! The control socket, with callers and with layers.

use std::io::{BufRead, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use snap_fs::{RemoteLayer, ServiceOptions, WantedLayer};
use snap_registry::Platform;
use snap_registry::testing::{Fault, FaultyRegistry, Matcher};

use super::*;
use crate::control::{ask, complete};
use crate::engine::{RegistryOptions, StoreOptions, open_engine};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a caller gets that says this.
async fn answer_to(path: &Path, said: &[u8]) -> Vec<String> {
    let (path, said) = (path.to_owned(), said.to_vec());
    let asking = move || {
        let mut caller = BlockingStream::connect(path).unwrap();
        // It may be refused before all of it is said.
        let _ = caller.write_all(&said);
        io::BufReader::new(caller).lines().map_while(Result::ok).collect()
    };
    tokio::task::spawn_blocking(asking).await.unwrap()
}

async fn status(path: &Path) -> anyhow::Result<Option<String>> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || ask(&path)).await.unwrap()
}

#[tokio::test]
async fn while_opening_the_answer_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let control = Control::start(&path).unwrap();
    // Callers that say nothing do not keep others from being answered.
    let _idle: Vec<_> = (1..limits::CONTROL_CALLERS_MAX).map(|_| BlockingStream::connect(&path).unwrap()).collect();
    assert_eq!(status(&path).await.unwrap(), None);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    control.tells(None, || std::future::ready("it is well"));
    assert_eq!(status(&path).await.unwrap().as_deref(), Some("it is well"));
}

#[tokio::test]
async fn what_is_not_understood_is_answered_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let control = Control::start(&path).unwrap();
    control.tells(None, || std::future::ready("it is well"));
    for (said, answer) in [
        (&b"\n"[..], "makes no sense"),
        (b"{\"dance\":{}}\n", "unknown variant `dance`"),
        (b"{\"complete\":{\"layers\":[\"md5:1\"]}}\n", "makes no sense"),
        (&vec![b' '; limits::CONTROL_REQUEST_BYTES_MAX as usize], "too long"),
        (b"{\"complete\":{\"layers\":[]}}\n", "completes no layers"),
    ] {
        let [line] = &answer_to(&path, said).await[..] else { panic!("one answer") };
        let Answer::Error(why) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
        assert!(why.contains(answer), "{why}");
    }
    assert_eq!(answer_to(&path, b"{\"status\":{}}\n").await, ["\"it is well\""]);
}

/// A registry with an image of one layer, and a service that has the layer's index and none of its data.
struct Scene {
    dir: tempfile::TempDir,
    registry: FaultyRegistry,
    layer: Digest,
    control: Control,
    service: Arc<LayerService>,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = FaultyRegistry::start().await;
        let tar = Command::new("tar").args(["--create", "--file=-", "-C"]).arg(env!("CARGO_MANIFEST_DIR")).arg("Cargo.toml").output();
        let tar = tar.expect("tar is needed to make a layer").stdout;
        let layer = Digest::of(&tar);
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        let manifest = registry.add_image("image", "latest", &[(media_type, tar.into(), layer)]).digest;
        let wanted = WantedLayer {
            chain_id: layer,
            reference: registry.reference("image:latest"),
            manifest: Some(manifest),
            layer: Some(layer),
            others: Vec::new(),
        };
        let remote: RemoteLayer = service(dir.path()).open(&wanted).await.unwrap().layer;
        std::fs::remove_file(dir.path().join("store/layers/sha256").join(layer.hex()).join("data")).unwrap();
        let service = service(dir.path());
        service.warm_up(vec![remote]).await;
        let control = Control::start(&dir.path().join("sock")).unwrap();
        control.tells(Some(Arc::clone(&service)), || std::future::ready("it is well"));
        registry.forget_requests();
        Self { dir, registry, layer, control, service }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sock")
    }
}

fn service(dir: &Path) -> Arc<LayerService> {
    let store = StoreOptions { dir: dir.join("store"), budget_bytes: None };
    let none = dir.join("none");
    let registry = RegistryOptions { plain_http: false, certs_dirs: vec![none.clone()], docker_config: Some(none), credentials: None };
    let options = ServiceOptions {
        mount_dir: dir.join("fs"),
        platform: Platform::host(),
        read_deadline: PATIENCE,
        background: false,
        keep_unused: false,
    };
    LayerService::new(open_engine(&store, &registry).unwrap(), options)
}

#[tokio::test]
async fn layers_are_completed_for_whoever_asks() {
    let scene = Scene::new().await;
    let mut last = Vec::new();
    complete(&scene.path(), &[scene.layer], |layers| last = layers.to_vec()).await.unwrap();
    assert_eq!((last.len(), last[0].digest), (1, scene.layer));
    assert!(last[0].present_bytes == last[0].total_bytes && last[0].total_bytes > 0, "{last:?}");
    assert!(scene.service.status().complete);
    assert_eq!(scene.registry.requests().len(), 1);
    // Several at once, for what is here.
    let path = scene.path();
    let waiting = (0..limits::CONTROL_CALLERS_MAX * 2).map(|_| complete(&path, &[], |_| {}));
    futures_util::future::try_join_all(waiting).await.unwrap();
}

#[tokio::test]
async fn a_layer_that_the_service_has_not_is_named() {
    let scene = Scene::new().await;
    let unknown = Digest::of(b"unknown");
    let error = complete(&scene.path(), &[scene.layer, unknown], |_| {}).await.unwrap_err();
    assert!(error.to_string().contains(&unknown.to_string()), "{error:#}");
    assert!(!error.to_string().contains(&scene.layer.to_string()), "{error:#}");
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_work_and_keeps_nobody_from_being_answered() {
    let scene = Scene::new().await;
    scene.registry.fault(Fault::NoAnswer, Matcher::blobs());
    let path = scene.path();
    let (told, progress) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    let layers = [scene.layer];
    let mut waiting = Box::pin(complete(&path, &layers, |layers| {
        if !layers.is_empty()
            && let Some(told) = told.take()
        {
            let _ = told.send(layers[0].present_bytes);
        }
    }));
    tokio::select! {
        ended = &mut waiting => panic!("{ended:?}"),
        present_bytes = progress => assert_eq!(present_bytes, Ok(0)),
    }
    let free = &scene.control.desk.waiters;
    assert_eq!(free.available_permits(), limits::CONTROL_WAITERS_MAX - 1);
    assert_eq!(status(&path).await.unwrap().as_deref(), Some("it is well"));
    drop(waiting);
    let all = free.acquire_many(limits::CONTROL_WAITERS_MAX as u32);
    let all = timeout(PATIENCE, all).await.expect("a caller that is gone is noticed").unwrap();
    let error = complete(&path, &[scene.layer], |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("too many"), "{error:#}");
    drop(all);
    scene.registry.heal();
}
