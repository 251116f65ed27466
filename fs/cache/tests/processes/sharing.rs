//! Processes that share a cache.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use snap_cache::{BuildOutcome, Error};

use crate::actor::{self, CHUNKS, the_layer};
use crate::fixture::{begin, build_index, build_whole, complete, layer_dir, leftovers, open, open_data, soon};

/// Waits for a child that must succeed, and gives what it said.
fn finish(mut child: Child) -> String {
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    said
}

/// Waits until a child has reached its point.
fn wait_until_there(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
}

pub(crate) fn a_layer_is_built_by_one_process_and_used_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..6).map(|_| actor::start("fetch", dir.path())).collect();
    let builders = children.into_iter().map(finish).filter(|said| said == "built\n").count();
    assert_eq!(builders, 1);
    let cache = open(dir.path());
    let lease = cache.lease(&the_layer()).unwrap();
    let data = open_data(&lease, CHUNKS);
    assert!(data.all_verified());
    complete(&data);
}

pub(crate) fn readers_survive_an_evictor() {
    let dir = tempfile::tempdir().unwrap();
    let roles = ["fetch-often", "prune-often", "fetch-often", "prune-often"];
    let children: Vec<Child> = roles.iter().map(|role| actor::start(role, dir.path())).collect();
    let built: usize = children.into_iter().map(finish).map(|said| said.lines().count()).sum();
    assert!(built >= 1);
    let cache = open(dir.path());
    cache.prune(0).unwrap();
    assert_eq!(cache.layers().unwrap(), []);
    assert_eq!(leftovers(dir.path()), 0);
}

pub(crate) fn a_killed_builder_is_followed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = actor::start("build-and-wait", dir.path());
    wait_until_there(&mut builder);
    let cache = open(dir.path());
    let lease = cache.lease(&the_layer()).unwrap();
    assert!(matches!(lease.begin_build(Instant::now()), Err(Error::Busy { .. })));
    // Its files are no leftovers while it lives.
    assert_eq!(cache.prune(0).unwrap().leftovers_removed, 0);
    assert!(layer_dir(dir.path(), &the_layer()).join("data").exists());

    builder.kill().unwrap();
    builder.wait().unwrap();
    let build = begin(&lease);
    assert_eq!(build.data().file().metadata().unwrap().len(), 0, "the killed builder's bytes are gone");
    drop(build);
    build_whole(&lease, CHUNKS);
    complete(&open_data(&lease, CHUNKS));
}

pub(crate) fn a_waiting_builder_finds_the_layer_built() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = actor::start("build-and-wait", dir.path());
    wait_until_there(&mut builder);
    let cache = open(dir.path());
    let lease = cache.lease(&the_layer()).unwrap();
    let (sender, started) = mpsc::channel();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            sender.send(()).unwrap();
            lease.begin_build(soon()).unwrap()
        });
        started.recv().unwrap();
        drop(builder.stdin.take());
        assert!(matches!(waiting.join().unwrap(), BuildOutcome::Built));
    });
    assert!(builder.wait().unwrap().success());
    assert!(open_data(&lease, CHUNKS).all_verified());
}

pub(crate) fn a_lease_in_another_process_keeps_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    build_index(&cache.lease(&the_layer()).unwrap());
    let mut holder = actor::start("lease-and-wait", dir.path());
    wait_until_there(&mut holder);
    assert!(cache.layers().unwrap()[0].in_use);
    assert!(matches!(cache.remove(&the_layer()), Err(Error::InUse { .. })));
    cache.prune(0).unwrap();
    assert_eq!(cache.layers().unwrap().len(), 1);

    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(!cache.layers().unwrap()[0].in_use);
    cache.remove(&the_layer()).unwrap();
    assert!(matches!(cache.remove(&the_layer()), Err(Error::NotCached { .. })));
}

pub(crate) fn new_caches_are_claimed_by_many_at_once() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("not/yet");
        let children: Vec<Child> = (0..4).map(|_| actor::start("open", &root)).collect();
        children.into_iter().for_each(|child| drop(finish(child)));
        assert_eq!(std::fs::read_to_string(root.join("version")).unwrap(), "snap-cache 1\n");
    }
}
