//! Every client that tells the snapshotter what it pulls, with every containerd: the image is not downloaded, and works as any other.

use std::path::PathBuf;

use serde_json::json;

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::cri::Cri;
use crate::ctr::{Ctr, Pull};
use crate::docker::Docker;
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::serve::Serve;

const VARIANTS: [&str; 2] = ["gzip", "estargz"];

/// Changes what is there in every way: a new file, one that is copied up, one that is gone, a folder that moves.
const CHANGE: &str =
    "echo new > /opt/app/new && echo more >> /opt/app/words.txt && rm /etc/debian_version && mv /usr/share/python3 /srv/moved";
/// Tells whether that was done.
const CHANGES: &str = "cat /opt/app/new && tail -n 1 /opt/app/words.txt && ls /etc/debian_version /usr/share/python3 2>/dev/null; ls /srv";
const CHANGED: &str = "new\nmore\nmoved\n";

struct Bench<'b> {
    serve: &'b Serve<'b>,
    containerd: &'b Containerd<'b>,
    mounts: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl<'b> Bench<'b> {
    fn new(serve: &'b Serve<'b>, containerd: &'b Containerd<'b>) -> Self {
        Self { serve, containerd, mounts: containerd.machine.mounts(), files: serve.open_files() }
    }

    /// Pulls, which downloads no layer.
    fn pull(&self, client: &dyn Client, image: &TestImage) {
        client.pull(&image.reference).unwrap();
        let downloaded = self.containerd.blobs(client.namespace());
        let layers = image.layers();
        assert!(!layers.iter().any(|layer| downloaded.contains(layer)), "{} was downloaded: {downloaded:?}", image.reference);
        assert_eq!(self.serve.refusals(), json!([]));
    }

    /// Runs the image's own command, and another that changes files.
    fn run(&self, client: &dyn Client, image: &TestImage) {
        let container = client.start(&image.reference, "report", &[]);
        assert_eq!(client.wait(&container, "report").well(), image.expected_output());
        client.remove(&container);
        let container = client.start(&image.reference, "long", &["/usr/bin/sleep", "1000"]);
        assert_eq!(client.exec(&container, &["/bin/sh", "-c", CHANGE]).well(), "");
        assert_eq!(client.exec(&container, &["/bin/sh", "-c", CHANGES]).well(), CHANGED);
        client.remove(&container);
    }

    /// Removes what `pull` brought, and finds nothing left.
    fn leave(&self, client: &mut dyn Client, image: &TestImage) {
        client.remove_image(&image.reference);
        client.finish();
        self.containerd.collect_garbage(client.namespace());
        assert_eq!(self.containerd.snapshots(client.namespace()), [].into());
        assert_eq!(self.containerd.blobs(client.namespace()), [].into());
        self.serve.assert_empty(&self.files);
        assert_eq!(self.containerd.machine.mounts(), self.mounts);
    }
}

fn by_cri(version: Version) {
    let machine = Machine::new();
    let serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
    let bench = Bench::new(&serve, &containerd);
    for variant in VARIANTS {
        let (image, mut cri) = (image("python", variant), Cri::new(&containerd));
        bench.pull(&cri, &image);
        bench.run(&cri, &image);
        bench.leave(&mut cri, &image);
    }
}

fn by_ctr(version: Version, pull: Pull) {
    let machine = Machine::new();
    let serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
    let bench = Bench::new(&serve, &containerd);
    for variant in VARIANTS {
        let (image, mut ctr) = (image("python", variant), Ctr::new(&containerd, pull));
        bench.pull(&ctr, &image);
        bench.run(&ctr, &image);
        let top = image.chain_ids().pop().unwrap();
        assert_eq!(ctr.commit_a_change(&top), ["etc/", "etc/.wh.debian_version", "opt/", "opt/app/", "opt/app/new", "opt/app/words.txt"]);
        bench.leave(&mut ctr, &image);
    }
}

fn by_docker(version: Version) {
    let machine = Machine::new();
    let serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
    let mut docker = Docker::start(&containerd);
    assert!(docker.info().contains("Storage Driver: snap\n"), "{}", docker.info());
    let bench = Bench::new(&serve, &containerd);
    for variant in VARIANTS {
        let image = image("python", variant);
        bench.pull(&docker, &image);
        bench.run(&docker, &image);
        commit_and_build(&docker, &image);
        bench.leave(&mut docker, &image);
    }
}

fn commit_and_build(docker: &Docker<'_, '_>, image: &TestImage) {
    let show = |reference: &str| {
        let container = docker.start(reference, "show", &["/bin/sh", "-c", CHANGES]);
        assert_eq!(docker.wait(&container, "show").well(), CHANGED, "{reference}");
        docker.remove(&container);
    };
    let container = docker.start(&image.reference, "change", &["/bin/sh", "-c", CHANGE]);
    docker.wait(&container, "change").well();
    docker.commit(&container, "made:commit");
    docker.remove(&container);
    show("made:commit");

    let folder = tempfile::tempdir().unwrap();
    for (buildkit, tag) in [(true, "made:buildkit"), (false, "made:classic")] {
        let text = format!("FROM {}\nRUN {CHANGE}\nCOPY Dockerfile /srv/\nRUN rm /srv/Dockerfile\n", image.reference);
        std::fs::write(folder.path().join("Dockerfile"), text).unwrap();
        docker.build(folder.path(), tag, buildkit);
        show(tag);
        docker.remove_image(tag);
    }
    docker.remove_image("made:commit");
    docker.prune();
}

#[test]
fn containerd_1_6_by_cri() {
    by_cri(Version::V1_6);
}

#[test]
fn containerd_1_7_by_cri() {
    by_cri(Version::V1_7);
}

#[test]
fn containerd_2_by_cri() {
    by_cri(Version::V2);
}

#[test]
fn containerd_1_6_by_rpull() {
    by_ctr(Version::V1_6, Pull::Rpull);
}

#[test]
fn containerd_1_7_by_rpull() {
    by_ctr(Version::V1_7, Pull::Rpull);
}

#[test]
fn containerd_2_by_the_transfer_service() {
    by_ctr(Version::V2, Pull::Transfer);
}

#[test]
fn containerd_1_7_by_docker() {
    by_docker(Version::V1_7);
}

#[test]
fn containerd_2_by_docker() {
    by_docker(Version::V2);
}
