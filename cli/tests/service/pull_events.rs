//! containerd tells everyone of the image, as it does whoever pulls it.

use crate::containerd::Containerd;
use crate::images::image;
use crate::process::{Process, stdout, succeed, wait_until};
use crate::pull_bench::{NAMESPACE, each_containerd};

/// `ctr events`, from now on.
fn listen(containerd: &Containerd<'_>) -> Process {
    let listening = Process::spawn("ctr events", containerd.ctr(NAMESPACE).arg("events"), &containerd.machine.disk("events.log"));
    let mut count = 0;
    // It does not say when it begins.
    wait_until("events are told", || {
        count += 1;
        succeed(containerd.ctr(NAMESPACE).args(["namespaces", "label", NAMESPACE, &format!("count={count}")]));
        listening.log().contains("/namespaces/update")
    });
    listening
}

/// What was told of an image so far.
fn topics(listening: &Process, name: &str) -> Vec<String> {
    let log = listening.log();
    let told = log.lines().filter(|line| line.contains(&format!("{{\"name\":{name:?}")));
    let topic = |line: &str| line.split_whitespace().find(|word| word.starts_with("/images/")).unwrap_or_default().to_owned();
    told.map(topic).collect()
}

#[test]
fn the_image_is_created_and_then_updated_and_keeps_what_others_noted() {
    let tiny = image("tiny", "gzip");
    each_containerd(|bench| {
        let listening = listen(&bench.containerd);
        bench.pull(&[&tiny.reference]);
        wait_until("it is created", || topics(&listening, &tiny.reference) == ["/images/create"]);
        let shown = || stdout(bench.containerd.ctr(NAMESPACE).args(["images", "ls"]));
        assert!(!shown().contains("noted=by-others"));
        bench.pull(&[&tiny.reference]);
        wait_until("it is updated", || topics(&listening, &tiny.reference) == ["/images/create", "/images/update"]);
        succeed(bench.containerd.ctr(NAMESPACE).args(["images", "label", &tiny.reference, "noted=by-others"]));
        bench.pull(&[&tiny.reference]);
        assert!(shown().contains("noted=by-others"), "{}", shown());
    });
}
