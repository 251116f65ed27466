//! Every entry of a mounted image is what another tool makes of the same image.

use std::path::{Path, PathBuf};

use crate::harness::{Mount, TestImage, images, scratch};
use crate::scan::{Entry, scan};

/// An eStargz table of contents holds whole seconds of time, rounded half up; the tar stream of the same layer may hold more.
fn comparable(variant: &str, mut entry: Entry) -> Entry {
    if variant == "estargz" {
        let (seconds, nanoseconds) = entry.mtime;
        entry.mtime = (if nanoseconds >= 500_000_000 { seconds + 1 } else { seconds }, 0);
    }
    entry
}

fn assert_same(image: &TestImage, found: &Path) {
    let found = scan(found);
    let expected = scan(&image.tree);
    let missing: Vec<_> = expected.entries.keys().filter(|path| !found.entries.contains_key(*path)).take(10).collect();
    let extra: Vec<_> = found.entries.keys().filter(|path| !expected.entries.contains_key(*path)).take(10).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
    let mut different = Vec::new();
    for (path, expected) in &expected.entries {
        let expected = comparable(&image.variant, expected.clone());
        let mut entry = comparable(&image.variant, found.entries[path].clone());
        if path == &PathBuf::new() {
            // No layer has an entry for the root, so no time of it is the image's.
            entry.mtime = expected.mtime;
        }
        if entry != expected {
            different.push(format!("{}: {entry:#?}\nexpected {expected:#?}", path.display()));
        }
    }
    assert!(different.is_empty(), "{} entries differ, the first: {}", different.len(), different[0]);
}

fn check(name: &str, variant: &str) {
    let image = images().into_iter().find(|image| image.name == name && image.variant == variant).unwrap();
    let scratch = scratch();
    let cache = scratch.path().join("cache");
    let mount = Mount::new(&image.reference, &cache, &scratch.path().join("root"), &[]);
    assert_same(&image, &mount.dir);
    let numbers = scan(&mount.dir).numbers;
    drop(mount);
    // Again, by the local index alone; and at another place.
    let again = Mount::new(&image.reference, &cache, &scratch.path().join("again"), &[]);
    assert_same(&image, &again.dir);
    assert_eq!(scan(&again.dir).numbers, numbers, "inode numbers changed with the mount");
}

macro_rules! variants {
    ($($test:ident: $name:literal, $variant:literal;)*) => {
        $(#[test] fn $test() { check($name, $variant); })*

        #[test]
        fn every_variant_that_was_built_is_tested() {
            let tested = [$(($name, $variant)),*];
            for image in images() {
                assert!(tested.contains(&(&image.name, &image.variant)), "{}:{} has no test", image.name, image.variant);
            }
        }
    };
}

variants! {
    tiny_gzip: "tiny", "gzip";
    tiny_tar: "tiny", "tar";
    tiny_zstd: "tiny", "zstd";
    tiny_estargz: "tiny", "estargz";
    python_gzip: "python", "gzip";
    python_tar: "python", "tar";
    python_zstd: "python", "zstd";
    python_estargz: "python", "estargz";
}

#[test]
fn an_oci_layout_is_as_good_as_a_registry() {
    for image in images().into_iter().filter(|image| image.name == "tiny") {
        let scratch = scratch();
        let mount = Mount::new(&image.layout, &scratch.path().join("cache"), &scratch.path().join("root"), &[]);
        assert_same(&image, &mount.dir);
    }
}

#[test]
fn dot_and_dot_dot_are_where_they_must_be() {
    use std::os::unix::fs::MetadataExt;
    let image = crate::harness::image("tiny", "gzip");
    let scratch = scratch();
    let mount = Mount::new(&image.reference, &scratch.path().join("cache"), &scratch.path().join("root"), &[]);
    for (path, number) in scan(&mount.dir).numbers {
        let at = mount.dir.join(&path);
        if !at.is_dir() || at.is_symlink() {
            continue;
        }
        let listed = nix::dir::Dir::open(&at, nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty()).unwrap();
        let listed: Vec<_> = listed.into_iter().map(Result::unwrap).collect();
        let number_of = |name: &str| listed.iter().find(|entry| entry.file_name().to_bytes() == name.as_bytes()).unwrap().ino();
        assert_eq!(number_of("."), number, "{}", at.display());
        if path != PathBuf::new() {
            assert_eq!(number_of(".."), at.parent().unwrap().metadata().unwrap().ino(), "{}", at.display());
        }
    }
}
