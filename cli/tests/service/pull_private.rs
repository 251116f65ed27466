//! Registries that do not let everybody in, and mirrors that are down.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::authority::Authority;
use crate::containerd::Snapshotter;
use crate::door::{Answer, Door};
use crate::hosts_dir::HostsDir;
use crate::images::image;
use crate::machine::Machine;
use crate::pull_bench::{PullBench, VERSIONS, id, newer};
use crate::registry::Registry;
use crate::token_server::TokenServer;

/// Where nothing listens.
const NOWHERE: &str = "127.0.0.1:1";

/// Logs in as `docker login` does, whoever that is.
fn log_in(machine: &Machine, registry: &str, password: &str) {
    let config = json!({ "auths": { registry: { "auth": STANDARD.encode(format!("user:{password}")) } } });
    std::fs::create_dir_all(machine.disk("docker-config")).unwrap();
    std::fs::write(machine.disk("docker-config/config.json"), config.to_string()).unwrap();
}

/// Every containerd with each snapshotter, which are told of registries what `hosts` says; the service has the logins of its user.
fn everywhere_with(prepare: impl Fn(&HostsDir), work: impl Fn(&PullBench<'_>, &str)) {
    for version in VERSIONS {
        for snapshotter in [Snapshotter::Overlayfs, Snapshotter::Snap] {
            let machine = Machine::new();
            let hosts = HostsDir::new(&machine);
            prepare(&hosts);
            let (config, certs_dir) = (machine.disk("docker-config/config.json"), hosts.path());
            let tables = format!("[registry]\ndocker_config = {config:?}\ncerts_dirs = [{certs_dir:?}]\n");
            let bench = PullBench::serving_with(&machine, version, snapshotter, &tables);
            eprintln!("{version:?}, {}", snapshotter.name());
            work(&bench, certs_dir.to_str().unwrap());
        }
    }
}

/// Pulls without credentials, with wrong ones and with the right ones. `without` is what is said in the first case.
fn let_in(registry: &str, authority: &Authority, without: &str) {
    let tiny = image("tiny", "gzip");
    let reference = tiny.at(registry);
    let denied =
        format!("error: pull access denied for {registry}/tiny, repository does not exist or may require 'snap login' or 'docker login'\n");
    everywhere_with(
        |hosts| hosts.trust(registry, authority),
        |bench, certs_dir| {
            let arguments = ["--certs-dir", certs_dir, reference.as_str()];
            let complained = bench.fail(&arguments);
            assert!(complained.starts_with(if without.is_empty() { &denied } else { without }), "{complained}");
            log_in(bench.containerd.machine, registry, "not-this-one");
            let complained = bench.fail(&arguments);
            assert!(complained.starts_with(&denied) && !complained.contains("not-this-one"), "{complained}");
            bench.assert_empty();
            log_in(bench.containerd.machine, registry, "first");
            let told = bench.pull(&arguments);
            assert_eq!(told.remarks(), newer(&tiny.digest(), &reference));
            assert_eq!(bench.says(&reference), tiny.expected_output());
            bench.snap().assert_tidy();
        },
    );
}

#[test]
fn a_registry_that_wants_a_password() {
    let authority = Authority::new();
    let registry = Registry::secure(&authority, "first");
    let_in(&registry.address, &authority, "error: no basic auth credentials\n");
}

#[test]
fn a_registry_that_wants_a_token() {
    let authority = Arc::new(Authority::new());
    let tokens = TokenServer::start(&authority, ("user", "first"));
    let registry = Registry::with_tokens(&authority, &tokens);
    let_in(&registry.address, &authority, "");
    assert!(tokens.given() > 0);
}

/// The pull is let in, and the service that would serve the layers is not: it says so, and they are unpacked.
#[test]
fn a_service_without_the_login_is_told_of() {
    let authority = Authority::new();
    let registry = Registry::secure(&authority, "first");
    let tiny = image("tiny", "gzip");
    let reference = tiny.at(&registry.address);
    for version in VERSIONS {
        let machine = Machine::new();
        let hosts = HostsDir::new(&machine);
        hosts.trust(&registry.address, &authority);
        let tables = format!("[registry]\ndocker_config = {:?}\ncerts_dirs = [{:?}]\n", machine.disk("other.json"), hosts.path());
        let bench = PullBench::serving_with(&machine, version, Snapshotter::Snap, &tables);
        log_in(&machine, &registry.address, "first");
        let told = bench.pull(&["--certs-dir", hosts.path().to_str().unwrap(), &reference]);
        let steps = told.steps();
        for layer in tiny.layers() {
            let last = steps[id(&layer)].last().unwrap();
            assert!(last.starts_with("Unpacked: ") && last.contains("no basic auth credentials"), "{last}");
        }
        assert_eq!(bench.says(&reference), tiny.expected_output());
    }
}

#[test]
fn mirrors_that_are_down_are_passed_over() {
    let tiny = image("tiny", "gzip");
    let (registry, broken) = (Door::to(tiny.registry()), Door::to(tiny.registry()));
    broken.answer("/v2/", Answer { status: 503, media_type: "text/plain", body: b"no\n".to_vec() });
    let reference = tiny.at(&registry.address);
    everywhere_with(
        |hosts| hosts.mirror(&registry.address, &[NOWHERE, &broken.address]),
        |bench, certs_dir| {
            broken.forget();
            let (told, spoken) = bench.snap().run_telling(&["--certs-dir", certs_dir, &reference]);
            assert_eq!((spoken.status, told.error()), (0, None), "{spoken:?}");
            assert_eq!(told.remarks(), newer(&tiny.digest(), &reference));
            assert!(broken.asked().iter().any(|asked| asked.target.contains("/manifests/gzip")), "{:?}", broken.asked());
            assert_eq!(bench.says(&reference), tiny.expected_output());
            bench.snap().assert_tidy();
        },
    );
}
