//! Opening a directory as a cache.

use std::fs;

use snap_cache::{Cache, CacheOptions, Error};

use crate::COUNT;
use crate::fixture::{build_whole, layer, open, open_data};

#[test]
fn a_missing_or_empty_directory_becomes_a_cache_and_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    for root in [dir.path().to_owned(), dir.path().join("layers/new")] {
        open(&root);
        assert_eq!(fs::read_to_string(root.join("version")).unwrap(), "snap-cache 1\n");
        open(&root);
    }
}

#[test]
fn a_directory_with_something_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter"), "dear").unwrap();
    let error = Cache::open(dir.path(), CacheOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotACache { .. }), "{error}");
    assert!(error.to_string().contains("not a snap cache") && error.to_string().contains("hint: "));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_version_is_named_and_nonsense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let version = dir.path().join("version");
    fs::write(&version, "snap-cache 7\n").unwrap();
    let error = Cache::open(dir.path(), CacheOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NewerVersion { found: 7, supported: 1, .. }), "{error}");
    assert!(error.to_string().contains("hint: "));
    for nonsense in ["", "snap-cache 1", "snap-cache 0\n", "snap-cache 1\n\n", "snap-cache x\n", &"snap-cache 1".repeat(1000)] {
        fs::write(&version, nonsense).unwrap();
        let error = Cache::open(dir.path(), CacheOptions::default()).unwrap_err();
        assert!(matches!(error, Error::BadVersionFile { .. }), "{nonsense:?}: {error}");
    }
}

#[test]
fn a_process_killed_while_claiming_the_directory_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("version.new"), "snap").unwrap();
    open(dir.path());
}

#[test]
fn the_boot_of_the_running_kernel_is_taken_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let reopen = || Cache::open(dir.path(), CacheOptions::default()).unwrap().lease(&layer("a")).unwrap();
    build_whole(&reopen(), COUNT);
    assert!(open_data(&reopen(), COUNT).all_verified());
}
