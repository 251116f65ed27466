//! A layer index as lines that people and tests read: what a tar of the layer would list, in the order of paths.

use std::collections::{BTreeMap, HashMap};
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::entry::Timestamp;
use crate::layer_index::{Dirent, Inode, InodeKind, LayerIndex, Target};
use crate::limits;

/// One entry of a layer, as JSON shows it. What is not UTF-8 in a name or target is shown as U+FFFD.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DumpLine {
    /// The path without a leading `/`; with one at its end for a directory. The root is `./`.
    pub name: String,
    /// `dir`, `reg`, `symlink`, `hardlink`, `char`, `block` or `fifo`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Permission bits, as `0o755`.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970: a whole number where it is one, else a fraction (in a double, so to about 0.2 microseconds).
    #[serde(serialize_with = "seconds")]
    pub mtime: Timestamp,
    /// Bytes of a regular file; 0 for the rest.
    pub size: u64,
    /// Hex digest of a regular file's bytes, if whoever asks has read them.
    pub sha256: Option<String>,
    /// Target of a symbolic link, or the first name of a hard link's inode.
    pub link: String,
    /// Major and minor number of a device.
    pub dev: [u32; 2],
    /// Values as text, or as setfattr(1) takes them (`0s` and base64) where they are none, or could be mistaken.
    pub xattrs: BTreeMap<String, String>,
}

fn seconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    match time.nanoseconds {
        0 => serializer.serialize_i64(time.seconds),
        nanoseconds => serializer.serialize_f64(time.seconds as f64 + f64::from(nanoseconds) / 1e9),
    }
}

/// Lists a layer: a directory before what is in it, names ascending by their bytes. Whiteouts and opaque markers are the empty files
/// that they are in a layer and have no inode; directories that the layer only implies have no line.
pub fn dump(index: &LayerIndex) -> impl Iterator<Item = (DumpLine, Option<Inode>)> {
    let root = index.inode(LayerIndex::ROOT);
    let mut walk = Walk { index, path: Vec::new(), open: Vec::new(), first_names: HashMap::new(), ready: Vec::new() };
    walk.enter(root, 0);
    walk
}

struct Walk<'a> {
    index: &'a LayerIndex,
    /// The path of the innermost open directory, with a `/` at its end; empty for the root.
    path: Vec<u8>,
    open: Vec<Open<'a>>,
    /// Of inodes with several names.
    first_names: HashMap<u32, Vec<u8>>,
    /// Lines to give before going on, the last one first.
    ready: Vec<(DumpLine, Option<Inode>)>,
}

struct Open<'a> {
    entries: Box<dyn Iterator<Item = Dirent<'a>> + 'a>,
    /// Length of the path of the directory around it.
    outer_bytes: usize,
}

impl Iterator for Walk<'_> {
    type Item = (DumpLine, Option<Inode>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.ready.pop() {
                return Some(line);
            }
            match self.open.last_mut()?.entries.next() {
                Some(dirent) => self.visit(dirent),
                None => {
                    let outer_bytes = self.open.pop().map_or(0, |open| open.outer_bytes);
                    self.path.truncate(outer_bytes);
                }
            }
        }
    }
}

impl<'a> Walk<'a> {
    fn visit(&mut self, dirent: Dirent<'a>) {
        let outer_bytes = self.path.len();
        let number = match dirent.target {
            Target::Whiteout => {
                let line = marker([&self.path, &b".wh."[..], dirent.name].concat());
                return self.ready.push((line, None));
            }
            Target::LowerLink(path) => {
                let name = [&self.path, dirent.name].concat();
                let line = DumpLine { kind: "hardlink", link: lossy(path), sha256: None, ..marker(name) };
                return self.ready.push((line, None));
            }
            Target::Inode(number) => number,
        };
        let inode = self.index.inode(number);
        self.path.extend_from_slice(dirent.name);
        if inode.kind() == InodeKind::Directory {
            self.path.push(b'/');
            return self.enter(inode, outer_bytes);
        }
        let mut line = self.line(&inode);
        if inode.nlink() > 1 {
            match self.first_names.get(&number) {
                Some(first) => line = DumpLine { kind: "hardlink", size: 0, link: lossy(first), ..line },
                None => {
                    self.first_names.insert(number, self.path.clone());
                }
            }
        }
        self.path.truncate(outer_bytes);
        self.ready.push((line, Some(inode)));
    }

    /// Opens the directory whose path is `self.path`.
    fn enter(&mut self, inode: Inode, outer_bytes: usize) {
        self.open.push(Open { entries: Box::new(self.index.entries(&inode)), outer_bytes });
        if inode.is_opaque() {
            self.ready.push((marker([&self.path, &b".wh..wh..opq"[..]].concat()), None));
        }
        if !inode.is_implied() {
            let mut line = self.line(&inode);
            if self.path.is_empty() {
                line.name = "./".to_owned();
            }
            self.ready.push((line, Some(inode)));
        }
    }

    fn line(&self, inode: &Inode) -> DumpLine {
        let (kind, size) = match inode.kind() {
            InodeKind::Directory => ("dir", 0),
            InodeKind::File => ("reg", inode.size_bytes()),
            InodeKind::Symlink => ("symlink", 0),
            InodeKind::CharDevice => ("char", 0),
            InodeKind::BlockDevice => ("block", 0),
            InodeKind::Fifo => ("fifo", 0),
        };
        let rdev = inode.rdev();
        DumpLine {
            name: lossy(&self.path),
            kind,
            mode: format!("{:#o}", inode.mode() & 0o7777),
            uid: inode.uid(),
            gid: inode.gid(),
            mtime: inode.mtime(),
            size,
            sha256: None,
            link: lossy(self.index.symlink_target(inode)),
            dev: [rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xfff00],
            xattrs: self.index.xattrs(inode).map(|(name, value)| (lossy(name), xattr_text(value))).collect(),
        }
    }
}

/// An empty file of root's, which is what whiteouts are in a layer.
fn marker(name: Vec<u8>) -> DumpLine {
    DumpLine {
        name: lossy(&name),
        kind: "reg",
        mode: "0o644".to_owned(),
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        size: 0,
        sha256: None,
        link: String::new(),
        dev: [0, 0],
        xattrs: BTreeMap::new(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn xattr_text(value: &[u8]) -> String {
    let is_encoding = |text: &str| ["0s", "0S", "0x", "0X"].iter().any(|prefix| text.starts_with(prefix));
    match std::str::from_utf8(value) {
        Ok(text) if !is_encoding(text) => text.to_owned(),
        _ => format!("0s{}", STANDARD.encode(value)),
    }
}

/// Gives all bytes of a regular file to `each`, in order and in pieces of at most 128 KiB, holes as zeros. `read_at` must fill its
/// buffer from an offset in data space.
///
/// # Errors
/// Whatever `read_at` and `each` give, at once. A file of holes can be very long, so `each` should know where to stop.
pub fn read_file(
    index: &LayerIndex,
    inode: &Inode,
    mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    if inode.kind() != InodeKind::File {
        return Ok(());
    }
    let mut buffer = vec![0; limits::READ_BUFFER_BYTES];
    let mut at = 0;
    for extent in index.extents(inode) {
        zeros(&mut buffer, extent.file_offset - at, &mut each)?;
        let mut done = 0;
        while done < extent.bytes {
            let piece = (extent.bytes - done).min(buffer.len() as u64);
            let bytes = &mut buffer[..piece as usize];
            read_at(extent.data_offset + done, bytes)?;
            each(bytes)?;
            done += piece;
        }
        at = extent.file_offset + extent.bytes;
    }
    zeros(&mut buffer, inode.size_bytes() - at, &mut each)
}

fn zeros(buffer: &mut [u8], mut bytes: u64, each: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    buffer.fill(0);
    while bytes > 0 {
        let piece = bytes.min(buffer.len() as u64);
        each(&buffer[..piece as usize])?;
        bytes -= piece;
    }
    Ok(())
}
