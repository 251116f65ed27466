//! File systems that are full or read-only. These tests mount a tmpfs in a mount namespace of their own and need root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use fixture::{begin, build_index, chunk_bytes, complete, is_right, layer, layer_dir, leftovers, open, open_data};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use snap_cache::{Cache, CacheOptions, ChunkLayout, ChunkState, Error};
use snap_digest::Digest;

/// Runs `test` on a tmpfs of `size_bytes`, which goes away with the thread.
fn on_tmpfs(size_bytes: u64, test: impl FnOnce(&Path) + Send + 'static) {
    assert!(geteuid().is_root(), "this test mounts a tmpfs: run it as root");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let mounted = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some(format!("size={size_bytes}").as_str())).unwrap();
        test(&root);
    };
    if let Err(panic) = std::thread::spawn(mounted).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Takes every byte that is left.
fn fill(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("filler");
    let mut filler = File::create(&path).unwrap();
    loop {
        match filler.write_all(&[1; 4096]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return path,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_chunk_that_does_not_fit_is_absent_and_fits_later() {
    on_tmpfs(256 << 10, |dir| {
        let lease = open(dir).lease(&layer("a")).unwrap();
        build_index(&lease);
        let data = open_data(&lease, 9);
        data.store(0, &chunk_bytes(&layer("a"), 0)).unwrap();
        let filler = fill(dir);
        let error = data.store(8, &chunk_bytes(&layer("a"), 8)).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }) && error.to_string().contains("hint: "), "{error}");
        assert_eq!(data.state(8), ChunkState::Absent);
        assert!(data.state(0) == ChunkState::Verified && is_right(&data, 0));
        fs::remove_file(&filler).unwrap();
        complete(&data);

        // A chunk that was there and lost its blocks, and then the space for them.
        let len_bytes = data.file().metadata().unwrap().len();
        data.file().set_len(0).unwrap();
        data.file().set_len(len_bytes).unwrap();
        fill(dir);
        assert!(matches!(data.store(8, &chunk_bytes(&layer("a"), 8)), Err(Error::NoSpace { .. })));
        assert_eq!(data.state(8), ChunkState::Absent);
    });
}

#[test]
fn a_build_that_does_not_fit_leaves_nothing() {
    on_tmpfs(256 << 10, |dir| {
        let lease = open(dir).lease(&layer("a")).unwrap();
        let build = begin(&lease);
        let error = build.data().write_all_at(0, &vec![1; 512 << 10]).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        drop(build);
        let build = begin(&lease);
        build.data().write_all_at(0, &[1; 1000]).unwrap();
        let error = build.finish(&vec![1; 512 << 10], 1).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(lease.read_index().unwrap().is_none());
        assert_eq!(leftovers(dir), 0);
        for gone in ["data", "present", "index"] {
            assert!(!layer_dir(dir, &layer("a")).join(gone).exists(), "{gone}");
        }
        fixture::build_whole(&lease, 3);
        complete(&open_data(&lease, 3));
    });
}

#[test]
fn documents_that_do_not_fit_leave_the_old_ones() {
    on_tmpfs(256 << 10, |dir| {
        let cache = open(dir);
        cache.set_reference("app", "old").unwrap();
        let filler = fill(dir);
        let large = vec![7; 8192];
        assert!(matches!(cache.put_document(&Digest::of(&large), &large), Err(Error::NoSpace { .. })));
        assert!(matches!(cache.set_reference("app", "new"), Err(Error::NoSpace { .. })));
        assert_eq!(cache.reference("app").unwrap(), "old");
        assert_eq!(leftovers(dir), 0);
        fs::remove_file(filler).unwrap();
        cache.put_document(&Digest::of(&large), &large).unwrap();
    });
}

/// Many chunks of one byte: a map of many pages over a small data file.
struct Bytes;

impl ChunkLayout for Bytes {
    fn count(&self) -> u32 {
        100_000
    }

    fn data_len_bytes(&self) -> u64 {
        100_000
    }

    fn range(&self, chunk: u32) -> Range<u64> {
        u64::from(chunk)..u64::from(chunk) + 1
    }
}

#[test]
fn setting_states_needs_no_space() {
    on_tmpfs(1 << 20, |dir| {
        let lease = open(dir).lease(&layer("a")).unwrap();
        build_index(&lease);
        lease.read_index().unwrap().unwrap();
        let data = lease.open_data(Arc::new(Bytes)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(data.file(), &[1; 100_000], 0).unwrap();
        fill(dir);
        // A map with holes would end this process with SIGBUS here.
        for chunk in 0..Bytes.count() {
            data.store(chunk, &[1]).unwrap();
        }
        assert!(data.all_verified());
    });
}

#[test]
fn a_read_only_cache_is_refused_with_a_hint() {
    on_tmpfs(1 << 20, |dir| {
        let (cache, empty) = (dir.join("cache"), dir.join("empty"));
        open(&cache);
        fs::create_dir(&empty).unwrap();
        mount(None::<&str>, dir, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>).unwrap();
        for root in [cache, empty, dir.join("missing")] {
            let error = Cache::open(&root, CacheOptions::default()).unwrap_err();
            assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
            assert!(error.to_string().contains("hint: "));
        }
    });
}
