//! A registry that asks for a password, which changes.

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::cri::Cri;
use crate::images::image;
use crate::machine::Machine;
use crate::registry::Registry;
use crate::serve::{Serve, socket};

const READ_NOISE: [&str; 3] = ["/bin/sh", "-c", "sha256sum /usr/share/noise"];

/// The kubelet's credentials reach the layers; once they have expired, what is present starts, and a new pull brings new ones.
#[test]
fn what_is_present_starts_with_expired_credentials() {
    let (whole, part) = (image("tiny", "gzip"), image("tiny", "estargz"));
    let mut registry = Registry::start("first");
    let machine = Machine::new();
    let tables = format!("[fetch]\nbackground = false\nread_timeout_s = 1\n[cri]\ncontainerd = {:?}", machine.run("containerd.sock"));
    let mut serve = Serve::start(&machine, &tables);
    let containerd = Containerd::start(&machine, Version::V1_7, Snapshotter::Snap);
    let mut cri = Cri::with_images_at(&containerd, &socket(&machine));
    let (whole_reference, part_reference) = (registry.reference(&whole), registry.reference(&part));
    assert!(cri.pull_as(&whole_reference, None).is_err());
    cri.pull_as(&whole_reference, Some(("user", "first"))).unwrap();
    cri.pull_as(&part_reference, Some(("user", "first"))).unwrap();
    for layers in [whole.layers(), part.layers()] {
        assert!(!layers.iter().any(|layer| containerd.blobs("k8s.io").contains(layer)));
    }
    let run = |reference: &str, name: &str, command: &[&str]| {
        let container = cri.start(reference, name, command);
        let spoken = cri.wait(&container, name);
        cri.remove(&container);
        spoken
    };
    // All of the program, and nothing else.
    run(&part_reference, "some", &["/bin/sha256sum", "/bin/busybox"]);
    let noise = run(&whole_reference, "noise", &READ_NOISE).well();

    registry.change_password("second");
    serve.kill();
    serve.resume();
    assert_eq!(run(&whole_reference, "whole", &READ_NOISE).well(), noise);
    assert_eq!(run(&part_reference, "part", &["/bin/cat", "/etc/motd"]).well(), "Replaced by the second layer.\n");
    assert_ne!(run(&part_reference, "lacks", &READ_NOISE).status, 0);

    cri.pull_as(&part_reference, Some(("user", "second"))).unwrap();
    assert_eq!(run(&part_reference, "again", &READ_NOISE).well(), noise);
    assert!(!serve.log().contains("second"), "the log tells the password");
    cri.finish();
}
