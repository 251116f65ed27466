//! Layers that someone wants to have here whole.

use std::fs;

use snap_digest::Digest;
use snap_fs::{Below, FsError, LayerPresence, ReadError, RemoteLayer};
use snap_registry::testing::{Fault, Matcher};

use crate::scene::{REGISTRY_ATTEMPTS, Scene, service};

impl Scene {
    /// A service that has the indexes of all layers, none of their data, and fetches only what is asked for. The layers are known to it
    /// and not open.
    async fn emptied() -> (Self, Vec<RemoteLayer>) {
        let mut scene = Self::new().await;
        let layers = scene.run(0..3, Below::Nothing).await.layers;
        scene.unmount().await;
        for layer in &scene.layers {
            fs::remove_file(scene.stored(layer).join("data")).unwrap();
        }
        scene.service = service(scene.dir.path(), false);
        scene.registry.forget_requests();
        (scene, layers)
    }

    async fn warm() -> Self {
        let (scene, layers) = Self::emptied().await;
        scene.service.warm_up(layers).await;
        scene
    }

    fn asked(&self, layer: &Digest) -> usize {
        self.registry.count(&layer.to_string())
    }

    fn blob(&self, position: usize) -> Matcher {
        Matcher::path(&self.layers[position].to_string())
    }
}

fn is_whole(presence: &LayerPresence) -> bool {
    presence.present_bytes == presence.total_bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_is_brought_here_whole_and_nothing_else() {
    let scene = Scene::warm().await;
    let [bottom, middle, top] = scene.layers[..] else { panic!() };
    let completing = scene.service.complete(&[bottom, top, bottom]).await.unwrap();
    let before = completing.presence();
    assert_eq!(before.iter().map(|layer| layer.digest).collect::<Vec<_>>(), [bottom, top]);
    assert!(before.iter().all(|layer| layer.present_bytes == 0 && layer.total_bytes > 0), "{before:?}");
    completing.run().await.unwrap();
    assert!(completing.presence().iter().all(is_whole));
    assert_eq!([bottom, middle, top].map(|layer| scene.asked(&layer)), [1, 0, 1]);
    for layer in scene.service.status().layers {
        assert_eq!((layer.complete, layer.requests), (layer.digest != middle, u64::from(layer.digest != middle)), "{layer:?}");
    }
    scene.service.complete(&[bottom, top]).await.unwrap().run().await.unwrap();
    assert_eq!(scene.registry.requests().len(), 2, "what is here is not asked for");
    scene.service.complete(&[]).await.unwrap().run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_who_wait_for_the_same_share_the_work() {
    let scene = Scene::warm().await;
    let completing = || async { scene.service.complete(&scene.layers).await.unwrap().run().await };
    let ended = tokio::join!(completing(), completing(), completing());
    assert!(matches!(ended, (Ok(()), Ok(()), Ok(()))), "{ended:?}");
    assert!(scene.layers.iter().all(|layer| scene.asked(layer) == 1));
    assert!(scene.service.status().complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_of_an_earlier_process_are_opened_where_they_are_not_yet() {
    let (scene, layers) = Scene::emptied().await;
    // The service has just begun to open them.
    let _warming = scene.service.warm_up(layers);
    assert!(scene.service.status().layers.is_empty());
    let completing = scene.service.complete(&scene.layers).await.unwrap();
    completing.run().await.unwrap();
    assert!(completing.presence().iter().all(is_whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_no_snapshot_has_is_named_and_nothing_is_fetched() {
    let scene = Scene::warm().await;
    let (unknown, other) = (Digest::of(b"unknown"), Digest::of(b"other"));
    let Err(error) = scene.service.complete(&[scene.layers[0], unknown, other]).await else { panic!("it knows what it cannot know") };
    assert!(matches!(&*error, FsError::UnknownLayers { layers } if layers[..] == [unknown, other]), "{error}");
    assert!(error.to_string().contains(&unknown.to_string()));
    assert_eq!(scene.registry.requests().len(), 0);
    scene.service.retain(&[scene.layers[0]].into(), &[]).await;
    assert!(scene.service.complete(&scene.layers[1..]).await.is_err(), "no snapshot has it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_at_first_is_asked_again() {
    let scene = Scene::warm().await;
    // Beyond what one request tries by itself.
    scene.registry.fault(Fault::Status(503, None), scene.blob(1).times(2 * REGISTRY_ATTEMPTS));
    let completing = scene.service.complete(&scene.layers).await.unwrap();
    completing.run().await.unwrap();
    assert!(completing.presence().iter().all(is_whole));
    assert_eq!(scene.asked(&scene.layers[1]), 2 * REGISTRY_ATTEMPTS as usize + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_the_registry_has_no_more_is_an_error_and_the_others_come() {
    let scene = Scene::warm().await;
    scene.registry.fault(Fault::Status(404, None), scene.blob(1));
    let completing = scene.service.complete(&scene.layers).await.unwrap();
    let error = completing.run().await.unwrap_err();
    assert!(matches!(&error, FsError::Incomplete { layer, source: ReadError::Fetch(_) } if *layer == scene.layers[1]), "{error}");
    assert!(!error.is_temporary() && error.to_string().contains(&scene.layers[1].short()), "{error}");
    assert_eq!(completing.presence().iter().map(is_whole).collect::<Vec<_>>(), [true, false, true]);
    scene.registry.heal();
    completing.run().await.unwrap();
    assert!(completing.presence().iter().all(is_whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_never_taken_for_the_rest() {
    let scene = Scene::warm().await;
    scene.registry.fault(Fault::AlteredByte(600), scene.blob(0));
    let completing = scene.service.complete(&scene.layers[..1]).await.unwrap();
    let error = completing.run().await.unwrap_err();
    assert!(matches!(error, FsError::Incomplete { .. }) && !error.is_temporary(), "{error}");
    assert!(!is_whole(&completing.presence()[0]));
}
