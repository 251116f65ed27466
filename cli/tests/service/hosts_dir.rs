//! A folder that tells clients how registries are reached: `hosts.toml`, as containerd has it and `snap` too.

use std::path::{Path, PathBuf};

use crate::authority::Authority;
use crate::machine::Machine;

pub(crate) struct HostsDir(PathBuf);

impl HostsDir {
    pub(crate) fn new(machine: &Machine) -> Self {
        Self(machine.disk("certs.d"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, registry: &str, text: &str) {
        std::fs::create_dir_all(self.0.join(registry)).unwrap();
        std::fs::write(self.0.join(registry).join("hosts.toml"), text).unwrap();
    }

    /// A registry with a certificate of an authority.
    pub(crate) fn trust(&self, registry: &str, authority: &Authority) {
        self.write(registry, &format!("server = \"https://{registry}\"\n[host.\"https://{registry}\"]\nca = {:?}\n", authority.file()));
    }

    /// A registry without TLS, and what is to be asked before it.
    pub(crate) fn mirror(&self, registry: &str, mirrors: &[&str]) {
        let hosts = mirrors.iter().map(|mirror| format!("[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"));
        self.write(registry, &format!("server = \"http://{registry}\"\n{}", hosts.collect::<String>()));
    }
}
