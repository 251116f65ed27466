//! A containerd of its own, in one of the versions that `ci/daemons` installs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::documents::snippet;
use crate::images::{Daemon, daemon, pause};
use crate::machine::Machine;
use crate::process::{Process, stdout, succeed};
use crate::serve::socket;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    V1_6,
    V1_7,
    V2,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd-1.6",
            Self::V1_7 => "containerd-1.7",
            Self::V2 => "containerd-2",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Snapshotter {
    /// containerd's own.
    Overlayfs,
    /// `snap serve`, configured as the documents say.
    Snap,
}

impl Snapshotter {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::Snap => "snap",
        }
    }
}

pub(crate) struct Containerd<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) version: Version,
    pub(crate) snapshotter: Snapshotter,
    daemon: Daemon,
    process: Option<Process>,
}

impl<'m> Containerd<'m> {
    pub(crate) fn start(machine: &'m Machine, version: Version, snapshotter: Snapshotter) -> Self {
        let documented = match snapshotter {
            Snapshotter::Overlayfs => String::new(),
            Snapshotter::Snap => {
                let text = snippet("CONTAINERD.md", version.name(), "toml");
                text.replace("/run/snap/snap.sock", socket(machine).to_str().unwrap())
            }
        };
        Self::start_on(machine, version, snapshotter, &documented)
    }

    /// With `snap serve`, in another way than the documents for containerd say.
    pub(crate) fn configured_by(machine: &'m Machine, version: Version, text: &str) -> Self {
        Self::start_on(machine, version, Snapshotter::Snap, text)
    }

    /// What any containerd needs here is laid over `config`.
    fn start_on(machine: &'m Machine, version: Version, snapshotter: Snapshotter, config: &str) -> Self {
        let mut containerd = Self { machine, version, snapshotter, daemon: daemon(version.name()), process: None };
        let mut config: toml::Table = config.parse().unwrap();
        merge(&mut config, containerd.base_config().parse().unwrap());
        std::fs::write(machine.disk("containerd.toml"), config.to_string()).unwrap();
        containerd.resume();
        containerd
    }

    /// Starts it again after `end`.
    pub(crate) fn resume(&mut self) {
        let mut command = self.machine.command("containerd", &[&self.daemon.bin]);
        command.arg("--config").arg(self.machine.disk("containerd.toml"));
        let mut process = Process::spawn("containerd", &mut command, &self.machine.disk("containerd.log"));
        process.wait_ready(|| self.ctr("default").arg("version").output().unwrap().status.success());
        self.process = Some(process);
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        self.process.take().unwrap().end(signal);
    }

    /// After a machine's power has gone: the process is dead already.
    pub(crate) fn forget(&mut self) {
        self.process = None;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.machine.run("containerd.sock")
    }

    pub(crate) fn bin(&self) -> &Path {
        &self.daemon.bin
    }

    /// Its own `ctr`.
    pub(crate) fn ctr(&self, namespace: &str) -> Command {
        let mut command = self.machine.command("ctr", &[&self.daemon.bin]);
        command.arg("--address").arg(self.socket()).args(["--namespace", namespace]);
        command
    }

    /// Digests of the blobs that it has.
    pub(crate) fn blobs(&self, namespace: &str) -> BTreeSet<String> {
        stdout(self.ctr(namespace).args(["content", "ls", "--quiet"])).lines().map(str::to_owned).collect()
    }

    /// Keys of the snapshots in the snapshotter under test.
    pub(crate) fn snapshots(&self, namespace: &str) -> BTreeSet<String> {
        let listed = stdout(self.ctr(namespace).args(["snapshots", "--snapshotter", self.snapshotter.name(), "ls"]));
        listed.lines().skip(1).map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    }

    /// Makes its garbage collector run, and waits until it has: that is what deleting with `--sync` does.
    pub(crate) fn collect_garbage(&self, namespace: &str) {
        succeed(self.ctr(namespace).args(["images", "rm", "--sync", "of/nothing:at-all"]));
    }

    /// Ends all leases at once, and collects what they held.
    pub(crate) fn drop_leases(&self, namespace: &str) {
        for lease in stdout(self.ctr(namespace).args(["leases", "ls", "--quiet"])).lines() {
            succeed(self.ctr(namespace).args(["leases", "rm", "--sync", lease]));
        }
        self.collect_garbage(namespace);
    }

    /// What any containerd needs here, whatever its snapshotter.
    fn base_config(&self) -> String {
        let (root, state, socket) = (self.machine.disk("containerd"), self.machine.run("containerd"), self.socket());
        let (opt, nowhere, runc) = (self.machine.disk("opt"), self.machine.disk("cni"), self.machine.run("runc"));
        let common = format!(
            r#"
            root = {root:?}
            state = {state:?}
            grpc.address = {socket:?}
            [plugins."io.containerd.internal.v1.opt"]
            path = {opt:?}
            # Its socket is the same for every containerd of a machine.
            [plugins."io.containerd.nri.v1.nri"]
            disable = true
            "#
        );
        let pause = pause();
        if self.version == Version::V2 {
            format!(
                r#"
                version = 3
                {common}
                [plugins."io.containerd.cri.v1.images".pinned_images]
                sandbox = {pause:?}
                [plugins."io.containerd.cri.v1.runtime"]
                restrict_oom_score_adj = true
                cni.bin_dirs = [{nowhere:?}]
                cni.conf_dir = {nowhere:?}
                [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
                runtime_type = "io.containerd.runc.v2"
                options.Root = {runc:?}
                [plugins."io.containerd.grpc.v1.cri"]
                stream_server_address = "127.0.0.1"
                stream_server_port = "0"
                "#
            )
        } else {
            format!(
                r#"
                version = 2
                {common}
                [plugins."io.containerd.grpc.v1.cri"]
                restrict_oom_score_adj = true
                sandbox_image = {pause:?}
                stream_server_address = "127.0.0.1"
                stream_server_port = "0"
                cni.bin_dir = {nowhere:?}
                cni.conf_dir = {nowhere:?}
                [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
                runtime_type = "io.containerd.runc.v2"
                options.Root = {runc:?}
                "#
            )
        }
    }
}

/// The tables of `over` laid over those of `config`, key by key.
fn merge(config: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (config.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                config.insert(key, value);
            }
        }
    }
}
