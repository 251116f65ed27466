//! The daemons and clients with containerd's own snapshotter: what the other tests stand on.

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::cri::Cri;
use crate::ctr::{Ctr, Pull};
use crate::docker::Docker;
use crate::images::image;
use crate::machine::Machine;

/// Pull, run, exec, write, remove.
fn live(containerd: &Containerd<'_>, client: &mut dyn Client) {
    let tiny = image("tiny", "gzip");
    let mounts = containerd.machine.mounts();
    client.pull(&tiny.reference).unwrap();
    assert!(tiny.layers().iter().all(|layer| containerd.blobs(client.namespace()).contains(layer)));
    let container = client.start(&tiny.reference, "short", &["/bin/sh", "-c", "cat /etc/motd; exit 3"]);
    let spoken = client.wait(&container, "short");
    assert_eq!((spoken.status, spoken.said.as_str()), (3, "Replaced by the second layer.\n"));
    client.remove(&container);
    let container = client.start(&tiny.reference, "long", &["/bin/sleep", "1000"]);
    assert_eq!(client.exec(&container, &["/bin/sh", "-c", "echo new > /etc/new && cat /etc/new"]).well(), "new\n");
    client.remove(&container);
    client.remove_image(&tiny.reference);
    client.finish();
    containerd.collect_garbage(client.namespace());
    assert_eq!(containerd.snapshots(client.namespace()), [].into());
    assert_eq!(containerd.blobs(client.namespace()), [].into());
    assert_eq!(containerd.machine.mounts(), mounts);
}

#[test]
fn cri_works_with_every_containerd() {
    for version in [Version::V1_6, Version::V1_7, Version::V2] {
        let machine = Machine::new();
        let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
        live(&containerd, &mut Cri::new(&containerd));
    }
}

#[test]
fn ctr_works_with_every_containerd() {
    for (version, pull) in [
        (Version::V1_6, Pull::Local),
        (Version::V1_6, Pull::Rpull),
        (Version::V1_7, Pull::Local),
        (Version::V1_7, Pull::Rpull),
        (Version::V2, Pull::Local),
        (Version::V2, Pull::Transfer),
    ] {
        let machine = Machine::new();
        let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
        live(&containerd, &mut Ctr::new(&containerd, pull));
    }
}

#[test]
fn docker_works_with_the_containerds_it_is_shipped_with() {
    for version in [Version::V1_7, Version::V2] {
        let machine = Machine::new();
        let containerd = Containerd::start(&machine, version, Snapshotter::Overlayfs);
        live(&containerd, &mut Docker::start(&containerd));
    }
}
