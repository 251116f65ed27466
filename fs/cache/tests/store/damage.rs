//! What damage does: never wrong bytes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use snap_cache::{ChunkLayout as _, ChunkState, Error};

use crate::COUNT;
use crate::fixture::{Chunks, begin, build_whole, chunk_bytes, complete, index_bytes, layer, layer_dir, open, open_data};

/// Offsets in the presence map, as the crate's documentation gives them.
const VERSION_OFFSET: u64 = 8;
const COUNT_OFFSET: u64 = 12;
const BOOT_ID_OFFSET: u64 = 16;
const STATES_OFFSET: u64 = 32;

/// A way to damage a file.
type Damage<'a> = &'a dyn Fn(&Path);

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_damaged_map_is_replaced_and_the_one_in_use_is_left_to_its_user() {
    let damages: [(&str, Damage<'_>); 6] = [
        ("magic", &|path| overwrite(path, 0, b"x")),
        ("version", &|path| overwrite(path, VERSION_OFFSET, &[9])),
        ("count", &|path| overwrite(path, COUNT_OFFSET, &[9])),
        ("longer", &|path| overwrite(path, STATES_OFFSET + u64::from(COUNT), &[2])),
        ("empty", &|path| fs::write(path, b"").unwrap()),
        ("gone", &|path| fs::remove_file(path).unwrap()),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let lease = open(dir.path()).lease(&layer("a")).unwrap();
        build_whole(&lease, COUNT);
        let present = layer_dir(dir.path(), &layer("a")).join("present");
        let old = (name != "empty").then(|| open_data(&lease, COUNT));
        damage(&present);
        let data = open_data(&lease, COUNT);
        assert_eq!(data.missing().count(), COUNT as usize, "{name}");
        if let Some(old) = old {
            assert!(old.all_verified(), "{name}");
            old.store(0, &chunk_bytes(&layer("a"), 0)).unwrap();
            complete(&old);
        }
        complete(&data);
        assert!(open_data(&lease, COUNT).all_verified(), "{name}");
    }
}

#[test]
fn an_unknown_boot_id_or_state_vouches_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    build_whole(&lease, COUNT);
    let present = layer_dir(dir.path(), &layer("a")).join("present");
    // Half of a boot ID, as a killed process may leave it.
    overwrite(&present, BOOT_ID_OFFSET, &[2; 8]);
    overwrite(&present, STATES_OFFSET + 3, &[0xff]);
    let data = open_data(&lease, COUNT);
    let states: Vec<ChunkState> = (0..COUNT).map(|chunk| data.state(chunk)).collect();
    assert_eq!(states, [ChunkState::Stored, ChunkState::Stored, ChunkState::Stored, ChunkState::Absent]);
    complete(&data);
}

#[test]
fn what_was_cut_off_the_data_file_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    build_whole(&lease, COUNT);
    let path = layer_dir(dir.path(), &layer("a")).join("data");
    File::options().write(true).open(&path).unwrap().set_len(Chunks(COUNT).range(2).end - 1).unwrap();
    let data = open_data(&lease, COUNT);
    assert_eq!(data.missing().collect::<Vec<_>>(), [2, 3]);
    complete(&data);
}

#[test]
fn data_that_is_gone_takes_its_map_along() {
    let dir = tempfile::tempdir().unwrap();
    let lease = open(dir.path()).lease(&layer("a")).unwrap();
    build_whole(&lease, COUNT);
    let old = open_data(&lease, COUNT);
    fs::remove_file(layer_dir(dir.path(), &layer("a")).join("data")).unwrap();
    let data = open_data(&lease, COUNT);
    assert_eq!(data.missing().count(), COUNT as usize);
    assert!(old.all_verified(), "the unlinked data keeps its own map");
    data.store(0, &chunk_bytes(&layer("a"), 0)).unwrap();
    old.mark_absent(0);
    assert_eq!(data.state(0), ChunkState::Verified);
}

#[test]
fn a_discarded_index_is_built_again_and_old_handles_keep_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let (lease, other) = (cache.lease(&layer("a")).unwrap(), cache.lease(&layer("a")).unwrap());
    build_whole(&lease, COUNT);
    let old = open_data(&other, COUNT);
    lease.discard_index().unwrap();
    assert!(lease.read_index().unwrap().is_none());
    assert!(matches!(other.open_data(Arc::new(Chunks(COUNT))), Err(Error::IndexChanged { .. })));

    let build = begin(&lease);
    build.data().write_all_at(0, &[0xee; 9000]).unwrap();
    complete(&old);
    build.finish_index_only(&index_bytes(&layer("a"))).unwrap();
    // The other lease read the index before; it must neither discard nor use the new one.
    other.discard_index().unwrap();
    assert!(matches!(other.open_data(Arc::new(Chunks(COUNT))), Err(Error::IndexChanged { .. })));
    assert_eq!(open_data(&lease, COUNT).missing().count(), COUNT as usize);
    assert_eq!(open_data(&other, COUNT).missing().count(), COUNT as usize);
    complete(&old);
}
