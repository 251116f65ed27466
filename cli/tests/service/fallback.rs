//! Clients that do not say what they pull: everything is unpacked as ever, and the status says why.

use std::process::Command;

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::cri::Cri;
use crate::ctr::{Ctr, Pull};
use crate::docker::Docker;
use crate::documents::snippet;
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::process::succeed;
use crate::serve::{Serve, socket};

const ANNOTATIONS: &str = "disable_snapshot_annotations = false";

/// Pulls by downloading, runs, removes.
fn live(serve: &Serve<'_>, containerd: &Containerd<'_>, client: &mut dyn Client, tiny: &TestImage) {
    let (mounts, files) = (containerd.machine.mounts(), serve.open_files());
    client.pull(&tiny.reference).unwrap();
    assert!(tiny.layers().iter().all(|layer| containerd.blobs(client.namespace()).contains(layer)));
    let container = client.start(&tiny.reference, "short", &["/bin/sh", "-c", "cat /etc/motd; ls /opt/tool"]);
    assert_eq!(client.wait(&container, "short").well(), "Replaced by the second layer.\none\none-again\n");
    client.remove(&container);
    client.remove_image(&tiny.reference);
    client.finish();
    containerd.collect_garbage(client.namespace());
    assert_eq!(containerd.snapshots(client.namespace()), [].into());
    serve.assert_empty(&files);
    assert_eq!(containerd.machine.mounts(), mounts);
}

#[test]
fn ctr_that_unpacks_by_itself() {
    for version in [Version::V1_6, Version::V1_7, Version::V2] {
        let machine = Machine::new();
        let serve = Serve::start(&machine, "");
        let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
        live(&serve, &containerd, &mut Ctr::new(&containerd, Pull::Local), &image("tiny", "estargz"));
        assert_eq!(serve.refusals(), serde_json::json!([]));
    }
}

#[test]
fn cri_without_annotations() {
    let machine = Machine::new();
    let serve = Serve::start(&machine, "");
    let documented = snippet("CONTAINERD.md", "containerd-1.7", "toml");
    assert!(documented.contains(ANNOTATIONS));
    let config = documented.replace(ANNOTATIONS, "").replace("/run/snap/snap.sock", socket(&machine).to_str().unwrap());
    let containerd = Containerd::configured_by(&machine, Version::V1_7, &config);
    let tiny = image("tiny", "gzip");
    live(&serve, &containerd, &mut Cri::new(&containerd), &tiny);
    let refusals = serve.refusals();
    let refused = refusals.as_array().unwrap().iter().find(|refusal| refusal["chain_id"] == tiny.chain_ids()[0].as_str());
    let reason = refused.unwrap_or_else(|| panic!("no refusal of the image's lowest layer in {refusals}"))["reason"].as_str().unwrap();
    assert_eq!(reason, "the client does not say which image the layer belongs to");
    let line = serve.log().lines().find(|line| line.contains("\"remote-snapshot-prepared\":\"false\"")).unwrap().to_owned();
    assert!(line.contains(reason), "{line}");
}

#[test]
fn an_image_from_a_file_is_in_no_registry() {
    const NOWHERE: &str = "127.0.0.1:1/nowhere/tiny:1";
    let machine = Machine::new();
    let serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let docker = Docker::start(&containerd);
    let (tiny, file) = (image("tiny", "gzip"), machine.disk("tiny.tar"));
    let archive = format!("docker-archive:{}:{NOWHERE}", file.display());
    succeed(Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &tiny.layout, &archive]));
    succeed(docker.command(&["load", "--input"]).arg(&file));
    let container = docker.start(NOWHERE, "loaded", &["/bin/cat", "/etc/motd"]);
    assert_eq!(docker.wait(&container, "loaded").well(), "Replaced by the second layer.\n");
    docker.remove(&container);
    let refusals = serve.refusals();
    for refusal in refusals.as_array().unwrap() {
        assert!(refusal["reason"].as_str().unwrap().contains("nowhere/tiny"), "{refusal}");
    }
    docker.remove_image(NOWHERE);
    assert_eq!(containerd.snapshots("moby"), [].into());
}
