//! Many images by several clients at once.

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::cri::Cri;
use crate::ctr::{Ctr, Pull};
use crate::docker::Docker;
use crate::images::image;
use crate::machine::Machine;
use crate::serve::Serve;

const IMAGES: usize = 50;
const CLIENTS: usize = 4;

/// Images that share all layers but the topmost, each with a client that uses it.
fn publish() -> Vec<(String, String)> {
    let tiny = image("tiny", "estargz");
    let publish_one = |number| {
        let said = format!("image {number}\n");
        (tiny.publish(&format!("crowd-{number}"), &["/bin/cat", "/etc/number"], Some(("etc/number", &said))), said)
    };
    (0..IMAGES).map(publish_one).collect()
}

/// Pulls, runs and removes every fourth image.
fn use_images(client: &mut dyn Client, images: &[(String, String)], mine: usize) {
    for (number, (reference, said)) in images.iter().enumerate().filter(|(number, _)| number % CLIENTS == mine) {
        client.pull(reference).unwrap();
        let name = format!("c{number}");
        let container = client.start(reference, &name, &[]);
        assert_eq!(client.wait(&container, &name).well(), *said);
        client.remove(&container);
        client.remove_image(reference);
    }
    client.finish();
}

#[test]
fn fifty_images_by_four_clients_leave_nothing() {
    let images = publish();
    let machine = Machine::new();
    let serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let mut docker = Docker::start(&containerd);
    let (mounts, files) = (machine.mounts(), serve.open_files());
    std::thread::scope(|scope| {
        scope.spawn(|| use_images(&mut Cri::new(&containerd), &images, 0));
        scope.spawn(|| use_images(&mut docker, &images, 1));
        scope.spawn(|| use_images(&mut Ctr::new(&containerd, Pull::Transfer), &images, 2));
        scope.spawn(|| use_images(&mut Ctr::in_namespace(&containerd, Pull::Rpull, "other"), &images, 3));
    });
    for namespace in ["k8s.io", "moby", "default", "other"] {
        containerd.collect_garbage(namespace);
        assert_eq!(containerd.snapshots(namespace), [].into(), "of {namespace}");
        assert_eq!(containerd.blobs(namespace), [].into(), "of {namespace}");
    }
    assert_eq!(serve.refusals(), serde_json::json!([]));
    serve.assert_empty(&files);
    assert_eq!(machine.mounts(), mounts);
}
