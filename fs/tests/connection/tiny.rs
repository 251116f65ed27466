//! A file system with so many files that every reader has one that the kernel has not cached.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};

pub(crate) const FILE_BYTES: usize = 256 * 1024;
const FILES: u64 = 1000;
const TTL: Duration = Duration::from_secs(3600);

/// What it does with requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Answer,
    /// Reads, and lookups of names that begin with `slow`, get no answer; standard output is told how many files are waited for.
    Withhold,
    /// Asks the kernel for nothing.
    Plain,
    /// Refuses an offer that is more than was agreed with [`Self::Plain`].
    AfterPlain,
    /// Refuses the kernel's offer.
    Fail,
}

pub(crate) struct Tiny {
    mode: Mode,
    withheld: Mutex<Withheld>,
}

#[derive(Default)]
struct Withheld {
    numbers: HashSet<u64>,
    reads: Vec<ReplyData>,
    lookups: Vec<ReplyEntry>,
}

impl Tiny {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, withheld: Mutex::default() }
    }

    fn withhold(&self, number: u64, keep: impl FnOnce(&mut Withheld)) {
        let mut withheld = self.withheld.lock().unwrap();
        keep(&mut withheld);
        if withheld.numbers.insert(number) {
            println!("withheld {}", withheld.numbers.len());
        }
    }
}

/// The file's content, a function of its number and the offset.
pub(crate) fn content(number: u64, offset: usize, length: usize) -> Vec<u8> {
    let end = (offset + length).min(FILE_BYTES);
    (offset.min(end)..end).map(|at| (at as u64).wrapping_mul(2_654_435_761).wrapping_add(number * 97).to_be_bytes()[4]).collect()
}

/// `f17` and `slow17` are the file with this number.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("slow").or(name.strip_prefix('f'))?;
    digits.parse().ok().filter(|number| *number < FILES).map(|number: u64| number + 2)
}

fn attributes(number: u64) -> FileAttr {
    let is_root = number == 1;
    FileAttr {
        ino: INodeNo(number),
        size: if is_root { 0 } else { FILE_BYTES as u64 },
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_root { FileType::Directory } else { FileType::RegularFile },
        perm: if is_root { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Tiny {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        match self.mode {
            Mode::Fail => return Err(std::io::Error::from_raw_os_error(libc::EPROTO)),
            Mode::Plain => {}
            Mode::AfterPlain => {
                if config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok() {
                    return Err(std::io::Error::from_raw_os_error(libc::EPROTO));
                }
            }
            Mode::Answer | Mode::Withhold => {
                // Without the second, a lookup that is not answered holds up all others in its directory.
                config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_PARALLEL_DIROPS).unwrap();
            }
        }
        config.set_max_background(64).unwrap();
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_str().unwrap();
        match number(name) {
            Some(number) if name.starts_with("slow") && self.mode == Mode::Withhold => {
                self.withhold(number, |withheld| withheld.lookups.push(reply));
            }
            Some(number) => reply.entry(&TTL, &attributes(number), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(number.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.mode {
            Mode::Plain | Mode::AfterPlain => reply.opened(FileHandle(0), FopenFlags::empty()),
            _ => reply.error(Errno::ENOSYS),
        }
    }

    fn read(&self, _: &Request, file: INodeNo, _: FileHandle, at: u64, size: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        match self.mode {
            Mode::Withhold => self.withhold(file.0, |withheld| withheld.reads.push(reply)),
            _ => reply.data(&content(file.0, usize::try_from(at).unwrap(), size as usize)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
