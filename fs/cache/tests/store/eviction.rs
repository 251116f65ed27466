//! What is listed, evicted and swept.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use snap_cache::{Cache, CacheOptions, ChunkLayout as _, Error};

use crate::COUNT;
use crate::fixture::{BOOT, Chunks, begin, build_index, build_whole, complete, index_bytes, layer, layer_dir, leftovers, open, open_data};

/// A cache with layers a, b and c, each used later than the one before.
fn three_layers(dir: &Path) -> Cache {
    let cache = open(dir);
    let start = SystemTime::now();
    for (age, name) in ["c", "b", "a"].iter().enumerate() {
        build_whole(&cache.lease(&layer(name)).unwrap(), COUNT);
        let used = File::options().write(true).open(layer_dir(dir, &layer(name)).join("used")).unwrap();
        used.set_modified(start - Duration::from_secs(age as u64)).unwrap();
    }
    cache
}

#[test]
fn prune_evicts_the_data_used_least_recently_and_then_whole_layers() {
    let dir = tempfile::tempdir().unwrap();
    let cache = three_layers(dir.path());
    let has = |name: &str, file: &str| layer_dir(dir.path(), &layer(name)).join(file).exists();
    let usage_bytes = cache.usage_bytes().unwrap();
    assert_eq!(cache.prune(usage_bytes).unwrap().freed_bytes, 0);

    let pruned = cache.prune(usage_bytes - 1).unwrap();
    assert_eq!((pruned.data_evicted, pruned.layers_evicted, pruned.leftovers_removed), (1, 0, 0));
    assert!(!has("a", "data") && has("a", "index") && has("b", "data") && has("c", "data"));
    assert_eq!(pruned.remaining_bytes, cache.usage_bytes().unwrap());
    assert_eq!(usage_bytes - pruned.remaining_bytes, pruned.freed_bytes);

    // The evicted layer opens as before, without a build.
    complete(&open_data(&cache.lease(&layer("a")).unwrap(), COUNT));
    let lease = cache.lease(&layer("b")).unwrap();
    let pruned = cache.prune(0).unwrap();
    assert_eq!((pruned.data_evicted, pruned.layers_evicted), (2, 2));
    assert_eq!(pruned.remaining_bytes, cache.usage_bytes().unwrap());
    let left = cache.layers().unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].in_use && left[0].has_index && left[0].digest == layer("b"));
    assert!(open_data(&lease, COUNT).all_verified());
}

#[test]
fn the_budget_is_enforced_if_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let cache = three_layers(dir.path());
    assert_eq!(cache.enforce_budget().unwrap().freed_bytes, 0);
    let budget_bytes = cache.usage_bytes().unwrap() - 1;
    let cache = Cache::open_in_boot(dir.path(), CacheOptions { budget_bytes: Some(budget_bytes) }, BOOT).unwrap();
    assert_eq!(cache.enforce_budget().unwrap().data_evicted, 1);
    assert!(cache.usage_bytes().unwrap() <= budget_bytes);
}

#[test]
fn layers_are_listed_with_what_they_take() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    fs::create_dir(dir.path().join("layers/sha256/not-a-digest")).unwrap();
    let before = SystemTime::now();
    let lease = cache.lease(&layer("a")).unwrap();
    let listed = cache.layers().unwrap();
    assert_eq!((listed[0].has_index, listed[0].index_bytes, listed[0].bytes_on_disk), (false, 0, 0));
    build_whole(&lease, COUNT);
    drop(lease);
    let listed = cache.layers().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].has_index && !listed[0].in_use && listed[0].last_used >= before);
    assert_eq!(listed[0].index_bytes, index_bytes(&layer("a")).len() as u64);
    assert!(listed[0].data_bytes_on_disk >= Chunks(COUNT).data_len_bytes());
    assert!(listed[0].bytes_on_disk > listed[0].data_bytes_on_disk);
}

#[test]
fn what_is_opened_through_a_lease_keeps_the_layer_too() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let lease = cache.lease(&layer("a")).unwrap();
    let build = begin(&lease);
    drop(lease);
    assert!(matches!(cache.remove(&layer("a")), Err(Error::InUse { .. })));
    drop(build);
    let lease = cache.lease(&layer("a")).unwrap();
    build_index(&lease);
    let data = open_data(&lease, COUNT);
    drop(lease);
    let error = cache.remove(&layer("a")).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }) && error.to_string().contains("hint: "));
    drop(data);
    assert!(cache.remove(&layer("a")).unwrap().freed_bytes > 0);
    assert!(!layer_dir(dir.path(), &layer("a")).exists());
}

#[test]
fn prune_removes_what_killed_processes_left() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    fs::write(dir.path().join("staging/1-0"), "half a document").unwrap();
    fs::create_dir(dir.path().join("removed/1-0")).unwrap();
    fs::write(dir.path().join("removed/1-0/data"), "bytes").unwrap();
    let abandoned = layer_dir(dir.path(), &layer("a"));
    fs::create_dir(&abandoned).unwrap();
    fs::write(abandoned.join("data"), "bytes").unwrap();
    let used = cache.lease(&layer("b")).unwrap();
    fs::write(layer_dir(dir.path(), &layer("b")).join("data"), "bytes").unwrap();

    let pruned = cache.enforce_budget().unwrap();
    assert_eq!(pruned.leftovers_removed, 4);
    assert!(pruned.freed_bytes > 0);
    assert_eq!(leftovers(dir.path()), 0);
    assert!(!abandoned.exists());
    assert!(!layer_dir(dir.path(), &layer("b")).join("data").exists());
    build_whole(&used, COUNT);
    assert_eq!(cache.enforce_budget().unwrap().leftovers_removed, 0);
}

#[test]
fn giving_a_lease_back_counts_as_a_use() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let lease = cache.lease(&layer("a")).unwrap();
    let used = File::options().write(true).open(layer_dir(dir.path(), &layer("a")).join("used")).unwrap();
    used.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(cache.layers().unwrap()[0].last_used, SystemTime::UNIX_EPOCH);
    drop(lease);
    assert!(cache.layers().unwrap()[0].last_used > SystemTime::UNIX_EPOCH);
}
