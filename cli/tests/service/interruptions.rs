//! Daemons that come late, go away in the middle, or are two.

use nix::sys::signal::Signal;

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::cri::use_lazily;
use crate::ctr::{Ctr, Pull};
use crate::door::Door;
use crate::images::image;
use crate::machine::Machine;
use crate::serve::Serve;

/// So much of an image's manifest, configuration and first layer that the layer is being read.
const SOME_BYTES: usize = 1 << 20;

#[test]
fn a_service_that_starts_after_containerd_is_used() {
    for version in [Version::V1_6, Version::V1_7, Version::V2] {
        let machine = Machine::new();
        let mut serve = Serve::new(&machine, "");
        let containerd = Containerd::start(&machine, version, Snapshotter::Snap);
        serve.resume();
        use_lazily(&containerd);
    }
}

/// Ends a daemon while a layer is on its way, and pulls again.
fn interrupted_pull(interrupt: impl FnOnce(&mut Serve<'_>, &mut Containerd<'_>)) {
    let image = image("python", "gzip");
    let door = Door::to(image.registry());
    let reference = image.at(&door.address);
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, "");
    let mut containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let files = serve.open_files();
    door.hold_after(SOME_BYTES);
    let mut pulling = Ctr::new(&containerd, Pull::Transfer).begin_pull(&reference);
    door.wait_holding();
    interrupt(&mut serve, &mut containerd);
    let ended = pulling.wait().unwrap();
    assert!(!ended.success(), "the pull did not notice");
    door.open();

    let mut ctr = Ctr::new(&containerd, Pull::Transfer);
    ctr.pull(&reference).unwrap();
    assert!(!image.layers().iter().any(|layer| containerd.blobs("default").contains(layer)));
    let container = ctr.start(&reference, "report", &[]);
    assert_eq!(ctr.wait(&container, "report").well(), image.expected_output());
    ctr.remove(&container);
    ctr.remove_image(&reference);
    ctr.finish();
    // Those that the interrupted pull held would hold what it had for a day.
    containerd.drop_leases("default");
    assert_eq!(containerd.snapshots("default"), [].into());
    serve.assert_empty(&files);
}

#[test]
fn containerd_is_killed_in_the_middle_of_a_pull() {
    interrupted_pull(|_, containerd| {
        containerd.end(Signal::SIGKILL);
        containerd.resume();
    });
}

#[test]
fn the_service_is_killed_in_the_middle_of_a_pull() {
    interrupted_pull(|serve, _| {
        serve.kill();
        serve.resume();
    });
}

#[test]
fn a_second_service_is_refused() {
    let machine = Machine::new();
    let serve = Serve::start(&machine, "");
    let pid = serve.count("pid");
    for arguments in [vec![], vec!["--root".into(), machine.disk("other")], vec!["--state".into(), machine.run("other")]] {
        let output = serve.command().args(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("another snap serve uses") && said.contains("hint: "), "{said}");
    }
    assert_eq!(serve.count("pid"), pid);
    // The third had a mount of its own to make, had it got so far.
    assert_eq!(machine.mounts(), [machine.run("snap/fs")]);
}
