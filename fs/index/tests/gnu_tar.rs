//! Trees that GNU tar packs, in each of its formats, against the file system that they were packed from.
//! Needs root (for devices and owners) and the programs `tar` and `setfattr`; fails without them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blobs;
mod tar_writer;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use blobs::{check_points, gzip, open, stream};
use snap_index::{Inode, InodeKind, LayerIndex, Target};

fn run(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn run_words(words: &str, path: &Path) {
    let (program, arguments) = words.split_once(' ').unwrap();
    let arguments: Vec<_> = arguments.split(' ').map(|word| if word == "{}" { path.as_os_str() } else { OsStr::new(word) }).collect();
    run(program, &arguments);
}

/// What a format can carry.
#[derive(Clone, Copy)]
struct Format {
    arguments: &'static [&'static str],
    names_bytes_max: usize,
    has_devices: bool,
    has_nanoseconds: bool,
    has_xattrs: bool,
}

const V7: Format =
    Format { arguments: &["--format=v7"], names_bytes_max: 90, has_devices: false, has_nanoseconds: false, has_xattrs: false };
const USTAR: Format = Format { arguments: &["--format=ustar"], names_bytes_max: 150, has_devices: true, ..V7 };
const GNU: Format = Format { arguments: &["--format=gnu"], names_bytes_max: usize::MAX, ..USTAR };
const POSIX: Format = Format { arguments: &["--format=posix", "--xattrs"], has_nanoseconds: true, has_xattrs: true, ..GNU };

/// A tree of everything that the format can carry.
fn make_tree(root: &Path, format: Format) {
    let file = |name: &str, bytes: usize| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, blobs::mixed(bytes as u64, bytes)).unwrap();
        path
    };
    for bytes in [0, 1, 511, 512, 513, 100_000] {
        file(&format!("sizes/{bytes}"), bytes);
    }
    fs::set_permissions(file("bin/suid", 700), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(root.join("bin"), fs::Permissions::from_mode(0o3770)).unwrap();
    fs::hard_link(root.join("bin/suid"), root.join("bin/hard")).unwrap();
    fs::hard_link(root.join("bin/suid"), root.join("another")).unwrap();
    symlink("../bin/./suid", root.join("sizes/link")).unwrap();
    run_words("chown 1234:5678 {}", &file("owned", 10));
    run_words("touch -d 2001-02-03T04:05:06.123456789Z {}", &file("times", 10));
    let deep = format!("{}/{}", "directory".repeat(6), "name".repeat(9));
    file(&deep, 33);
    if format.names_bytes_max == usize::MAX {
        // Together over what a prefix and a name field hold, and names of 255 bytes.
        let long = file(&format!("{}/{}", ["d".repeat(200).as_str(); 3].join("/"), "n".repeat(255)), 44);
        fs::hard_link(&long, root.join("hard-to-long")).unwrap();
        symlink("t".repeat(300), root.join("long-link")).unwrap();
        run_words("chown 3000000000:3000000001 {}", &file("large-owner", 1));
        file("nicht-\u{e4}scii \"'\n", 5);
        fs::write(root.join(OsStr::from_bytes(b"not-utf8-\xff")), b"x").unwrap();
        run_words("touch -d 1960-01-01T00:00:00Z {}", &file("before-1970", 1));
    }
    run_words("mkfifo {}", &root.join("fifo"));
    if format.has_devices {
        run_words("mknod {} c 1 3", &root.join("char"));
        run_words("mknod {} b 7 300", &root.join("block"));
    } else {
        fs::remove_file(root.join("fifo")).unwrap();
    }
    if format.has_xattrs {
        let path = file("xattrs", 5);
        run_words("setfattr -n user.text -v hello {}", &path);
        run_words("setfattr -n user.bytes -v 0x003d0aff {}", &path);
        run_words("setfattr -n trusted.kept -v 1 {}", &path);
    }
}

/// Files with data between holes: at the start, at the end, nowhere, and in more parts than a header holds.
fn make_sparse_files(root: &Path) {
    for (name, size, parts) in [
        ("start", 3 << 20, vec![0]),
        ("end", 3 << 20, vec![(3 << 20) - 4096]),
        ("none", 1 << 20, vec![]),
        ("many", 8 << 20, (0..100).map(|part| part * 81_920).collect()),
    ] {
        let file = File::create(root.join(format!("sparse-{name}"))).unwrap();
        file.set_len(size).unwrap();
        for at in parts {
            file.write_all_at(&blobs::mixed(at, 4096), at).unwrap();
        }
    }
}

struct Found<'a> {
    index: &'a LayerIndex,
    data: &'a [u8],
    format: Format,
    /// Index inode by the file system's.
    numbers: BTreeMap<u64, u32>,
    compared: usize,
}

impl Found<'_> {
    fn compare_directory(&mut self, path: &Path, number: u32) {
        let directory = self.index.inode(number);
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let found: Vec<_> = self.index.entries(&directory).map(|entry| OsStr::from_bytes(entry.name).to_owned()).collect();
        assert_eq!(found, names, "{}", path.display());
        for entry in self.index.entries(&directory) {
            let Target::Inode(number) = entry.target else { panic!("{:?}", entry.target) };
            self.compare(&path.join(OsStr::from_bytes(entry.name)), number);
        }
    }

    fn compare(&mut self, path: &Path, number: u32) {
        let (expected, found) = (path.symlink_metadata().unwrap(), self.index.inode(number));
        let at = path.display();
        self.compared += 1;
        assert_eq!(found.kind(), kind(&expected), "{at}");
        assert_eq!(u64::from(found.nlink()), expected.nlink(), "{at}");
        assert_eq!((found.uid(), found.gid()), (expected.uid(), expected.gid()), "{at}");
        assert_eq!(found.mtime().seconds, expected.mtime(), "{at}");
        let nanoseconds = if self.format.has_nanoseconds { expected.mtime_nsec() } else { 0 };
        assert_eq!(i64::from(found.mtime().nanoseconds), nanoseconds, "{at}");
        if found.kind() != InodeKind::Symlink {
            assert_eq!(found.mode(), expected.mode(), "{at}");
        }
        assert_eq!(*self.numbers.entry(expected.ino()).or_insert(number), number, "{at}: names of one inode");
        match found.kind() {
            InodeKind::Directory => self.compare_directory(path, number),
            InodeKind::File => {
                let content = fs::read(path).unwrap();
                assert_eq!(found.size_bytes(), content.len() as u64, "{at}");
                assert!(self.content(&found) == content, "{at} differs");
            }
            InodeKind::Symlink => {
                assert_eq!(self.index.symlink_target(&found), fs::read_link(path).unwrap().as_os_str().as_bytes(), "{at}");
            }
            // The kernel's numbers in stat(2) are wider, but the same for those that fit.
            InodeKind::CharDevice | InodeKind::BlockDevice => assert_eq!(u64::from(found.rdev()), expected.rdev(), "{at}"),
            InodeKind::Fifo => {}
        }
    }

    fn content(&self, file: &Inode) -> Vec<u8> {
        let mut bytes = vec![0; file.size_bytes() as usize];
        for extent in self.index.extents(file) {
            let from = &self.data[extent.data_offset as usize..][..extent.bytes as usize];
            bytes[extent.file_offset as usize..][..from.len()].copy_from_slice(from);
        }
        bytes
    }
}

fn kind(metadata: &Metadata) -> InodeKind {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => InodeKind::Directory,
        () if kind.is_symlink() => InodeKind::Symlink,
        () if kind.is_char_device() => InodeKind::CharDevice,
        () if kind.is_block_device() => InodeKind::BlockDevice,
        () if kind.is_fifo() => InodeKind::Fifo,
        () => InodeKind::File,
    }
}

/// Packs the tree, streams it and compares. Returns the index and the tree's folder for more.
fn compare(format: Format, more: &[&str], make: impl Fn(&Path)) -> (LayerIndex, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    make_tree(&root, format);
    make(&root);
    let archive = folder.path().join("layer.tar");
    let mut arguments: Vec<&OsStr> = format.arguments.iter().chain(more).map(OsStr::new).collect();
    arguments.extend([OsStr::new("-cf"), archive.as_os_str(), OsStr::new("-C"), root.as_os_str(), OsStr::new(".")]);
    run("tar", &arguments);
    let tar = fs::read(&archive).unwrap();
    let blob = gzip(&tar, 1);
    let (layer, data) = stream(&blob, 50_000).unwrap();
    assert!(data == tar);
    let index = open(&layer, &blob);
    check_points(&index, &blob, &tar);
    let mut found = Found { index: &index, data: &data, format, numbers: BTreeMap::new(), compared: 0 };
    found.compare(&root, LayerIndex::ROOT);
    assert!(found.compared > 15);
    (index, data)
}

#[test]
fn v7() {
    compare(V7, &[], |_| {});
}

#[test]
fn ustar() {
    compare(USTAR, &[], |_| {});
}

#[test]
fn gnu() {
    compare(GNU, &[], |_| {});
}

#[test]
fn old_gnu_and_what_it_does_to_holes() {
    compare(GNU, &["--sparse"], make_sparse_files);
    compare(Format { arguments: &["--format=oldgnu"], ..GNU }, &["--sparse"], make_sparse_files);
}

#[test]
fn posix_with_xattrs() {
    let (index, _) = compare(POSIX, &[], |_| {});
    let Some(Target::Inode(number)) = index.lookup(&index.inode(LayerIndex::ROOT), b"xattrs") else { panic!("it is missing") };
    let xattrs: Vec<_> = index.xattrs(&index.inode(number)).filter(|(name, _)| !name.starts_with(b"security.")).collect();
    assert_eq!(xattrs, [(&b"trusted.kept"[..], &b"1"[..]), (b"user.bytes", b"\0=\n\xff"), (b"user.text", b"hello")]);
}

#[test]
fn posix_with_holes_in_every_version() {
    for version in ["0.0", "0.1", "1.0"] {
        compare(POSIX, &["--sparse", &format!("--sparse-version={version}")], make_sparse_files);
    }
}

#[test]
fn an_appended_file_replaces_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, file): (PathBuf, PathBuf) = (folder.path().join("a.tar"), folder.path().join("f"));
    for (mode, text) in [("-cf", "first"), ("-rf", "second, which is longer")] {
        fs::write(&file, text).unwrap();
        run("tar", &[mode.as_ref(), archive.as_os_str(), "-C".as_ref(), folder.path().as_os_str(), "f".as_ref()]);
    }
    let tar = fs::read(&archive).unwrap();
    let (layer, data) = stream(&tar, 4096).unwrap();
    let index = open(&layer, &tar);
    let Some(Target::Inode(number)) = index.lookup(&index.inode(LayerIndex::ROOT), b"f") else { panic!("it is missing") };
    let found = Found { index: &index, data: &data, format: GNU, numbers: BTreeMap::new(), compared: 0 };
    assert_eq!(found.content(&index.inode(number)), b"second, which is longer");
}
