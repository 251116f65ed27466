//! The commands for k3s, on the file that it writes: containerd 2 with what comes of it pulls lazily.

use std::process::Command;

use crate::containerd::{Containerd, Version};
use crate::cri::use_lazily;
use crate::documents::snippet;
use crate::machine::Machine;
use crate::process::succeed;
use crate::serve::{Serve, socket};

const WRITTEN_BY_K3S: &str = include_str!("k3s.toml");

#[test]
fn the_file_that_is_made_of_that_of_k3s_is_lazy() {
    let machine = Machine::new();
    let folder = machine.disk("k3s");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), WRITTEN_BY_K3S).unwrap();
    let script = snippet("KUBERNETES.md", "k3s", "sh").replace("/var/lib/rancher/k3s/agent/etc/containerd", folder.to_str().unwrap());
    let script = script.replace("/run/snap/snap.sock", socket(&machine).to_str().unwrap());
    let (script, restart) = script.split_at(script.find("systemctl").unwrap());
    assert_eq!(restart, "systemctl restart k3s\n");
    succeed(Command::new("/bin/sh").args(["-euc", script]));
    let config = std::fs::read_to_string(folder.join("config-v3.toml.tmpl")).unwrap();
    assert!(!config.contains("{{"), "k3s would take it for a template");

    let serve = Serve::start(&machine, "");
    let containerd = Containerd::configured_by(&machine, Version::V2, &config);
    use_lazily(&containerd);
    assert_eq!(serve.refusals(), serde_json::json!([]));
}
