//! The commands of docs/PULL.md, as they are written there: on a machine whose containerd, docker and service are where they always are,
//! and to which this registry is docker.io and ghcr.io.

use std::fs::create_dir_all;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use crate::containerd::{Containerd, Snapshotter, Version};
use crate::docker::Docker;
use crate::documents::snippet;
use crate::hosts_dir::HostsDir;
use crate::images::{daemon, image};
use crate::machine::Machine;
use crate::process::stdout;
use crate::recipe::Recipe;
use crate::repository::Repository;
use crate::scenes;
use crate::serve::{Serve, program};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TAG: &str = "3.13-slim";
const NAME: &str = "docker.io/library/python:3.13-slim\n";

/// Shows a program the machine's places where it would look for those of this one. What containerd and its clients share of /run is left
/// as it is.
const ENTER: &str = r#"
    set -e
    mount -t overlay -o "lowerdir=/etc,upperdir=$MACHINE/disk/etc,workdir=$MACHINE/disk/etc-work" none /etc
    mkdir -p /etc/containerd/certs.d /run/snap
    mount --bind "$MACHINE/disk/certs.d" /etc/containerd/certs.d
    mount --bind "$MACHINE/run/snap" /run/snap
    cd "$MACHINE/disk"
    set -x
"#;

/// An image of python for two kinds of machine, with what the documents do with it; and a repository with several tags.
fn publish() {
    let python = image("python", "gzip");
    let repository = Repository::new(python.registry(), "library/python");
    let for_machine = |architecture: &str| {
        let recipe = Recipe::like(&python, &repository).command(&["python3"]).variable("PATH=/usr/bin:/bin");
        let mut entry = recipe.architecture(architecture).publish(None).descriptor;
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [for_machine("amd64"), for_machine("arm64")] });
    repository.document(Some(TAG), OCI_INDEX, &index);
    let app = Repository::new(python.registry(), "org/app");
    for tag in scenes::TAGS {
        scenes::saying(tag, &app).publish(Some(tag));
    }
}

struct Desk<'d, 'm> {
    docker: &'d Docker<'d, 'm>,
    containerd: &'d Containerd<'m>,
}

impl Desk<'_, '_> {
    /// What the commands of a block print.
    fn follow(&self, name: &str) -> String {
        let machine = self.containerd.machine;
        let block = snippet("PULL.md", name, "console");
        let commands: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix("$ "))).collect();
        assert!(!commands.is_empty(), "{block}");
        // All that the daemon's command line needs, and the mounts' end with the last process.
        let mut enter = self.docker.command(&[]);
        let environment: Vec<_> = enter.get_envs().map(|(key, value)| (key.to_owned(), value.unwrap().to_owned())).collect();
        enter = Command::new("unshare");
        enter.envs(environment.into_iter().filter(|(key, _)| key != "PATH"));
        let bin = [machine.disk("bin"), self.containerd.bin().to_owned(), daemon("docker").bin];
        let path = std::env::var_os("PATH").unwrap();
        enter.env("PATH", std::env::join_paths(bin.into_iter().chain(std::env::split_paths(&path))).unwrap());
        enter.env("CONTAINERD_ADDRESS", self.containerd.socket()).env("MACHINE", machine.path());
        let script = format!("{ENTER}\n{}\n", commands.join("\n"));
        stdout(enter.args(["--mount", "--propagation", "private", "/bin/sh", "-c", &script]))
    }
}

#[test]
fn every_command_does_what_the_document_says() {
    publish();
    let machine = Machine::new();
    let (python, hosts) = (image("python", "gzip"), HostsDir::new(&machine));
    for registry in ["docker.io", "ghcr.io"] {
        hosts.mirror(registry, &[python.registry()]);
    }
    for folder in ["etc", "etc-work", "bin"] {
        create_dir_all(machine.disk(folder)).unwrap();
    }
    symlink(program(), machine.disk("bin/snap")).unwrap();
    let _serve = Serve::start(&machine, &format!("[registry]\ncerts_dirs = [{:?}]", hosts.path()));
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let docker = Docker::start(&containerd);
    let desk = Desk { docker: &docker, containerd: &containerd };

    let pulled = desk.follow("pull");
    let lines: Vec<&str> = pulled.lines().collect();
    let shown = snippet("PULL.md", "pull", "console");
    let shown: Vec<&str> = shown.lines().skip(1).collect();
    assert_eq!((lines[0], &lines[lines.len() - 2..]), (shown[0], &shown[shown.len() - 2..]));
    assert!(lines.iter().any(|line| line.ends_with(": Indexed while streaming")), "{pulled}");
    let version = desk.follow("pull-run");
    assert!(version.starts_with("Python 3."), "{version}");
    let for_docker = desk.follow("pull-for-docker");
    assert!(for_docker.ends_with(&format!("{NAME}{version}")), "{for_docker}");
    assert!(for_docker.contains("Status: Downloaded newer image for python:3.13-slim\n"), "{for_docker}");

    let others = desk.follow("pull-others");
    for tag in scenes::TAGS {
        assert!(others.contains(&format!("Status: Downloaded newer image for ghcr.io/org/app:{tag}\n")), "{others}");
    }
    assert!(others.ends_with(NAME), "{others}");
    let digest = desk.follow("pull-json");
    assert!(digest.starts_with("sha256:") && pulled.contains(&format!("Digest: {digest}")), "{digest}");
    let plain = desk.follow("pull-overlayfs");
    assert!(plain.contains(": Pull complete\n") && plain.ends_with(NAME), "{plain}");

    desk.follow("fetch-content");
    let saved = stdout(Command::new("tar").arg("--list").arg("--file").arg(machine.disk("python.tar")));
    for layer in python.layers() {
        assert!(saved.contains(&layer.replace(':', "/")), "{saved}");
    }
}
