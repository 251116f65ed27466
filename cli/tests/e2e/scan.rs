//! Everything a program can see of a tree, to be compared with another tree.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use snap_digest::{Digest, Hasher};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Not of directories: every file system counts those its own way.
    pub(crate) size: u64,
    pub(crate) mtime: (i64, i64),
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
    pub(crate) target: Option<PathBuf>,
    pub(crate) nlink: u64,
    pub(crate) rdev: u64,
    pub(crate) content: Option<Digest>,
    /// The first path that is the same inode.
    pub(crate) same_as: PathBuf,
}

/// Entry by path, the root as the empty path; and inode number by path.
pub(crate) struct Scan {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
    pub(crate) numbers: BTreeMap<PathBuf, u64>,
}

pub(crate) fn scan(root: &Path) -> Scan {
    let mut scan = Scan { entries: BTreeMap::new(), numbers: BTreeMap::new() };
    let mut first_names = HashMap::new();
    let mut ahead = vec![PathBuf::new()];
    while let Some(path) = ahead.pop() {
        let at = root.join(&path);
        let metadata = at.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        let file_type = metadata.file_type();
        let is_directory = file_type.is_dir();
        if is_directory {
            let mut children: Vec<_> = std::fs::read_dir(&at).unwrap().map(|entry| path.join(entry.unwrap().file_name())).collect();
            // Descending, as the stack turns it round.
            children.sort();
            children.reverse();
            ahead.extend(children);
        }
        let kind = match () {
            () if is_directory => "directory",
            () if file_type.is_file() => "file",
            () if file_type.is_symlink() => "symlink",
            () if file_type.is_char_device() => "character device",
            () if file_type.is_block_device() => "block device",
            () if file_type.is_fifo() => "fifo",
            () => "socket",
        };
        let same_as = first_names.entry(metadata.ino()).or_insert_with(|| path.clone()).clone();
        let entry = Entry {
            kind,
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: if is_directory { 0 } else { metadata.size() },
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            xattrs: xattrs(&at),
            target: file_type.is_symlink().then(|| std::fs::read_link(&at).unwrap()),
            nlink: metadata.nlink(),
            rdev: metadata.rdev(),
            content: file_type.is_file().then(|| content(&at)),
            same_as,
        };
        scan.numbers.insert(path.clone(), metadata.ino());
        scan.entries.insert(path, entry);
    }
    scan
}

fn content(path: &Path) -> Digest {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if read == 0 {
            return hasher.finish();
        }
        hasher.update(&buffer[..read]);
    }
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let names = xattr::list(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    names
        .map(|name| {
            let value = xattr::get(path, &name).unwrap().unwrap_or_else(|| panic!("{}: {name:?} was listed", path.display()));
            (name, value)
        })
        .collect()
}
