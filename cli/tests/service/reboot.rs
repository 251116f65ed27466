//! The power goes, and the registry with it.

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::docker::Docker;
use crate::door::Door;
use crate::images::image;
use crate::machine::Machine;
use crate::process::stdout;
use crate::serve::Serve;

/// The largest file of the tiny image, which no start of a program reads.
const NOISE: &str = "/usr/share/noise";
const EIO_TEXT: &str = "Input/output error";

/// The daemons that ran before the power went.
fn power_on(serve: &mut Serve<'_>, containerd: &mut Containerd<'_>) {
    serve.forget();
    serve.resume();
    containerd.forget();
    containerd.resume();
}

#[test]
fn a_complete_image_starts_without_its_registry() {
    let image = image("python", "gzip");
    let door = Door::to(image.registry());
    let reference = image.at(&door.address);
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, "");
    let mut containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    Ctr::new(&containerd, Pull::Transfer).pull(&reference).unwrap();
    serve.wait_complete();

    door.shut();
    machine.power_off();
    power_on(&mut serve, &mut containerd);
    assert_eq!(serve.status()["complete"], true);
    let ctr = Ctr::new(&containerd, Pull::Transfer);
    let container = ctr.start(&reference, "report", &[]);
    assert_eq!(ctr.wait(&container, "report").well(), image.expected_output());
    assert_eq!(serve.count("bytes_fetched"), 0);
    ctr.remove(&container);
}

#[test]
fn a_container_of_docker_starts_again_without_its_registry() {
    let image = image("tiny", "estargz");
    let door = Door::to(image.registry());
    let reference = image.at(&door.address);
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, "");
    let mut containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    {
        let docker = Docker::start(&containerd);
        docker.pull(&reference).unwrap();
        let script = format!("echo again >>/kept; cat /kept; sha256sum {NOISE}");
        let container = docker.start(&reference, "kept", &["/bin/sh", "-c", &script]);
        docker.wait(&container, "kept").well();
        serve.wait_complete();
        door.shut();
        machine.power_off();
    }
    power_on(&mut serve, &mut containerd);
    let docker = Docker::start(&containerd);
    stdout(&mut docker.command(&["start", "kept"]));
    let said = docker.wait("kept", "kept").well();
    let digest = stdout(std::process::Command::new("sha256sum").arg(image.tree.join(&NOISE[1..])));
    let line = format!("{}  {NOISE}\n", digest.split(' ').next().unwrap());
    assert_eq!(said, format!("again\n{line}again\nagain\n{line}"));
    docker.remove("kept");
}

#[test]
fn an_incomplete_image_starts_and_lacks_only_what_is_missing() {
    let image = image("tiny", "estargz");
    let door = Door::to(image.registry());
    let reference = image.at(&door.address);
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, "[fetch]\nbackground = false\nread_timeout_s = 1");
    let mut containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let read_noise = ["/bin/sh", "-c", "cat /usr/share/noise >/tmp/copy && sha256sum </tmp/copy"];
    {
        let ctr = Ctr::new(&containerd, Pull::Transfer);
        ctr.pull(&reference).unwrap();
        // All of the program, so that all that it can do is here.
        let container = ctr.start(&reference, "some", &["/bin/sha256sum", "/bin/busybox"]);
        ctr.wait(&container, "some");
        ctr.remove(&container);
        assert_eq!(serve.status()["complete"], false);
        door.shut();
        machine.power_off();
    }
    power_on(&mut serve, &mut containerd);
    let ctr = Ctr::new(&containerd, Pull::Transfer);
    let container = ctr.start(&reference, "lacks", &read_noise);
    let spoken = ctr.wait(&container, "lacks");
    ctr.remove(&container);
    assert_ne!(spoken.status, 0);
    assert!(spoken.said.contains(EIO_TEXT), "{}", spoken.said);
    assert!(serve.count("reads_failed") > 0);
    assert!(serve.log().contains("\"a read failed\"") && serve.log().contains("no data within 10"), "the log does not say why");

    door.open();
    let container = ctr.start(&reference, "whole", &read_noise);
    let digest = stdout(std::process::Command::new("sha256sum").arg(image.tree.join(&NOISE[1..])));
    assert_eq!(ctr.wait(&container, "whole").well(), format!("{}  -\n", digest.split(' ').next().unwrap()));
    ctr.remove(&container);
}
