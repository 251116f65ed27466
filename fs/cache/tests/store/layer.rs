//! Building, opening and storing.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Instant;

use snap_cache::{BuildOutcome, ChunkLayout as _, ChunkState, Error, limits};

use crate::COUNT;
use crate::fixture::{
    Chunks, NEXT_BOOT, begin, build_index, build_whole, chunk_bytes, complete, is_right, layer, layer_dir, open, open_data, open_in, soon,
};

#[test]
fn a_finished_build_is_verified_in_this_boot_and_stored_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    assert!(lease.read_index().unwrap().is_none());
    build_whole(&lease, COUNT);
    assert!(matches!(lease.begin_build(soon()).unwrap(), BuildOutcome::Built));
    let data = open_data(&lease, COUNT);
    assert!(data.all_verified() && data.is_complete());
    assert_eq!(data.present_bytes(), Chunks(COUNT).data_len_bytes());
    drop((data, lease));

    let lease = open_in(dir.path(), NEXT_BOOT).lease(&layer("a")).unwrap();
    let data = open_data(&lease, COUNT);
    assert!((0..COUNT).all(|chunk| data.state(chunk) == ChunkState::Stored && is_right(&data, chunk)));
    assert!(data.is_complete() && !data.all_verified());
    data.mark_verified(1);
    drop(data);
    // What was verified in this boot stays so in it.
    assert_eq!(open_data(&lease, COUNT).state(1), ChunkState::Verified);
}

#[test]
fn a_build_that_is_dropped_leaves_nothing_and_may_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    let build = begin(&lease);
    build.data().write_all_at(0, b"half").unwrap();
    assert!(matches!(lease.begin_build(Instant::now()), Err(Error::Busy { .. })));
    drop(build);
    assert!(!layer_dir(dir.path(), &layer("a")).join("data").exists());
    build_index(&lease);
    complete(&open_data(&lease, COUNT));
}

#[test]
fn chunks_are_stored_marked_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    build_index(&lease);
    let data = open_data(&lease, COUNT);
    assert_eq!(data.file().metadata().unwrap().len(), Chunks(COUNT).data_len_bytes());
    assert_eq!(data.missing().collect::<Vec<_>>(), [0, 1, 2, 3]);
    data.mark_verified(2);
    assert_eq!(data.state(2), ChunkState::Absent, "what is absent cannot be verified");
    data.store(2, &chunk_bytes(&layer("a"), 2)).unwrap();
    assert_eq!(data.state(2), ChunkState::Verified);
    assert_eq!(data.missing().collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(data.present_bytes(), chunk_bytes(&layer("a"), 2).len() as u64);

    assert!(matches!(data.store(0, b"short"), Err(Error::ChunkLength { chunk: 0, actual_bytes: 5, .. })));
    assert!(matches!(data.store(COUNT, b""), Err(Error::NoSuchChunk { count: COUNT, .. })));
    assert_eq!(data.state(0), ChunkState::Absent);
    assert_eq!(data.state(COUNT), ChunkState::Absent);
    data.mark_absent(2);
    data.mark_absent(COUNT);
    assert_eq!(data.missing().count(), 4);
    assert!(data.read_at(&mut [0; 2], Chunks(COUNT).data_len_bytes() - 1).is_err());
}

#[test]
fn a_layer_without_chunks_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("empty")).unwrap();
    build_whole(&lease, 0);
    assert!(open_data(&lease, 0).all_verified());
}

#[test]
fn two_handles_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, other) = (open(dir.path()), open(dir.path()));
    let lease = cache.lease(&layer("a")).unwrap();
    build_index(&lease);
    let data = open_data(&lease, COUNT);
    let seen = open_data(&other.lease(&layer("a")).unwrap(), COUNT);
    data.store(3, &chunk_bytes(&layer("a"), 3)).unwrap();
    assert_eq!(seen.state(3), ChunkState::Verified);
    assert!(is_right(&seen, 3));
}

#[test]
fn an_empty_index_is_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    begin(&lease).finish_index_only(b"").unwrap();
    assert!(lease.read_index().unwrap().unwrap().is_empty());
}

#[test]
fn data_is_not_opened_without_knowing_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    build_index(&cache.lease(&layer("a")).unwrap());
    let opened = cache.lease(&layer("a")).unwrap().open_data(Arc::new(Chunks(COUNT)));
    assert!(matches!(opened, Err(Error::IndexChanged { .. })));
}

#[test]
fn more_chunks_than_the_limit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    let refused = begin(&lease).finish(b"index", limits::MAX_CHUNKS + 1);
    assert!(matches!(refused, Err(Error::TooManyChunks { .. })));
    assert!(lease.read_index().unwrap().is_none());
}

#[test]
fn a_new_map_has_no_holes() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    build_index(&lease);
    let data = open_data(&lease, 100_000);
    let present = layer_dir(dir.path(), &layer("a")).join("present").metadata().unwrap();
    assert!(present.blocks() * 512 >= present.len(), "a store into a hole would need space");
    assert_eq!(data.missing().count(), 100_000);
}
