//! A thin coat over fuser: every answer is [`ImageFs`]'s, or that of the directory that holds the trees.
//!
//! What is cached is answered on the thread that the kernel's request came on; a read that misses takes its reply into a task. Entries,
//! attributes and absences are given to the kernel for ever, and OPEN and OPENDIR are answered with ENOSYS, after which the kernel sends
//! neither any more.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session,
    SessionACL,
};
use snap_index::{DirectoryId, Node, Timestamp};

use crate::counters::Counters;
use crate::forest::{Forest, Trees};
use crate::image_fs::{ImageFs, ReadPlan, Stat};
use crate::limits;
use crate::numbers::{Prefix, ROOT, WHITEOUT};

const FOR_EVER: Duration = Duration::from_secs(limits::CACHE_SECONDS);
/// Nodes are never reused for something else, so one generation is enough.
const GENERATION: Generation = Generation(0);
const BLOCK_BYTES: u32 = 4096;

/// The names in the directory that holds the trees come and go.
const NEVER: Duration = Duration::ZERO;

/// Serves one tree, or a directory of them, on one FUSE connection.
pub(crate) struct Coat {
    pub(crate) forest: Forest,
    /// The file system whose free space is shown; without one the mount shows its image's size, and is full.
    pub(crate) space: Option<PathBuf>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) read_deadline: Duration,
}

/// Takes a connection that is mounted already and serves it until it ends. Blocks.
pub(crate) fn serve(coat: Coat, device: OwnedFd) -> std::io::Result<()> {
    session(coat, device, limits::FUSE_THREADS)?.run()
}

/// A session of `threads` threads that answers what comes from `device`.
pub(crate) fn session<F: Filesystem>(filesystem: F, device: OwnedFd, threads: usize) -> std::io::Result<Session<F>> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    // A request that was read through a cloned descriptor would die with it.
    config.clone_fd = false;
    Session::from_fd(filesystem, device, SessionACL::All, config)
}

fn system_time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds.into()))).unwrap_or(UNIX_EPOCH)
}

fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        libc::S_IFIFO => FileType::NamedPipe,
        _ => FileType::RegularFile,
    }
}

fn attributes(stat: &Stat) -> FileAttr {
    let attributes = &stat.attributes;
    let mtime = system_time(attributes.mtime);
    FileAttr {
        ino: INodeNo(stat.number),
        size: attributes.size_bytes,
        blocks: attributes.size_bytes.div_ceil(512),
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(attributes.mode),
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// Attributes of what belongs to no layer.
fn bare(number: u64, kind: FileType, perm: u16) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// The answer for a name that is not there: node 0, which the kernel remembers as an absence.
fn absence() -> FileAttr {
    bare(0, FileType::RegularFile, 0)
}

/// What a number of the kernel's stands for.
enum At {
    /// The directory that holds the trees.
    Top(Arc<Trees>),
    /// A whiteout, of any tree.
    Whiteout,
    /// A node of a tree.
    Node(Arc<ImageFs>, Node),
}

impl At {
    fn attributes(&self) -> FileAttr {
        match self {
            Self::Top(_) => bare(ROOT, FileType::Directory, 0o755),
            Self::Whiteout => bare(WHITEOUT, FileType::CharDevice, 0),
            Self::Node(fs, node) => attributes(&fs.stat(*node)),
        }
    }
}

thread_local! {
    /// One buffer per event thread: no allocation per read.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn answer_read(plan: &ReadPlan, counters: &Counters, reply: ReplyData) {
    BUFFER.with_borrow_mut(|buffer| match plan.read(buffer) {
        Ok(()) => reply.data(buffer),
        Err(error) => {
            Counters::add(&counters.reads_failed, 1);
            tracing::error!(layer = %plan.layer().digest(), %error, "a read failed");
            reply.error(Errno::from_i32(error.errno()));
        }
    });
}

impl Coat {
    /// What a number stands for.
    fn at(&self, number: INodeNo) -> Result<At, Errno> {
        Counters::add(&self.counters.kernel_requests, 1);
        match (&self.forest, number.0) {
            (Forest::Directory(trees), ROOT) => Ok(At::Top(Arc::clone(trees))),
            (_, WHITEOUT) => Ok(At::Whiteout),
            (forest, number) => {
                let (fs, node) = forest.node(number).map_err(|errno| Errno::from_i32(errno as i32))?;
                Ok(At::Node(fs, node))
            }
        }
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<(Duration, FileAttr), Errno> {
        match self.at(parent)? {
            At::Top(trees) => {
                let Some(tree) = Prefix::parse(name.as_bytes()).and_then(|prefix| trees.get(prefix)) else {
                    return Ok((NEVER, absence()));
                };
                let fs = trees.open(&tree).map_err(|errno| Errno::from_i32(errno as i32))?;
                Ok((NEVER, attributes(&fs.stat(Node::Directory(DirectoryId::ROOT)))))
            }
            At::Node(fs, Node::Directory(directory)) => match fs.lookup(directory, name.as_bytes()) {
                Some(node) => Ok((FOR_EVER, attributes(&fs.stat(node)))),
                None => Ok((FOR_EVER, absence())),
            },
            At::Node(..) | At::Whiteout => Err(Errno::ENOTDIR),
        }
    }

    /// Gives the entries of a directory from a position on, until `add` (name, position after it, attributes and for how long they hold)
    /// says that there is no more room.
    fn list(&self, number: INodeNo, from: u64, mut add: impl FnMut(&OsStr, u64, &FileAttr, Duration) -> bool) -> Result<(), Errno> {
        match self.at(number)? {
            At::Top(trees) => {
                let top = bare(ROOT, FileType::Directory, 0o755);
                let dots = [".".to_owned(), "..".to_owned()].map(|name| (name, top));
                // One that cannot be opened is not listed: the log says why.
                let trees = trees.all().into_iter().filter_map(|(prefix, tree)| {
                    let fs = trees.open(&tree).ok()?;
                    Some((prefix.to_string(), attributes(&fs.stat(Node::Directory(DirectoryId::ROOT)))))
                });
                for ((name, attributes), next) in dots.into_iter().chain(trees).zip(1..).skip(usize::try_from(from).unwrap_or(usize::MAX)) {
                    if add(OsStr::new(&name), next, &attributes, NEVER) {
                        break;
                    }
                }
                Ok(())
            }
            At::Node(fs, Node::Directory(directory)) => {
                for entry in fs.entries(directory, from) {
                    if add(OsStr::from_bytes(entry.name), entry.next, &attributes(&fs.stat(entry.node)), FOR_EVER) {
                        break;
                    }
                }
                Ok(())
            }
            At::Node(..) | At::Whiteout => Err(Errno::ENOTDIR),
        }
    }

    /// Whether no extended attribute can ever be asked for with success.
    fn is_without_xattrs(&self) -> bool {
        matches!(&self.forest, Forest::Tree(fs) if fs.is_without_xattrs())
    }

    /// The miss: waits for the fetch in a task, so that the event thread goes on.
    fn read_later(&self, plan: ReadPlan, reply: ReplyData) {
        let counters = Arc::clone(&self.counters);
        let started = Instant::now();
        let deadline = started + self.read_deadline;
        Counters::add(&counters.reads_waited, 1);
        self.runtime.spawn(async move {
            let ensured = plan.ensure(deadline).await;
            Counters::add(&counters.read_wait_us, started.elapsed().as_micros() as u64);
            match ensured {
                Ok(()) => answer_read(&plan, &counters, reply),
                Err(error) => {
                    Counters::add(&counters.reads_failed, 1);
                    tracing::error!(layer = %plan.layer().digest(), %error, "a read failed");
                    reply.error(Errno::from_i32(error.errno()));
                }
            }
        });
    }

    fn fill_statfs(&self, reply: ReplyStatfs) {
        match (&self.forest, &self.space) {
            (_, Some(dir)) => match nix::sys::statvfs::statvfs(dir) {
                Ok(space) => reply.statfs(
                    space.blocks(),
                    space.blocks_free(),
                    space.blocks_available(),
                    space.files(),
                    space.files_free(),
                    space.block_size() as u32,
                    255,
                    space.fragment_size() as u32,
                ),
                Err(errno) => reply.error(Errno::from_i32(errno as i32)),
            },
            (Forest::Tree(fs), None) => {
                let blocks = fs.total_bytes().div_ceil(BLOCK_BYTES.into());
                reply.statfs(blocks, 0, 0, fs.name_count(), 0, BLOCK_BYTES, 255, BLOCK_BYTES);
            }
            (Forest::Directory(_), None) => reply.error(Errno::ENOSYS),
        }
    }
}

/// Runs a handler. A panic must not end the thread that answers the kernel; the reply is dropped on the way, which answers EIO.
fn guarded(handler: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(handler)).is_err() {
        tracing::error!("a request of the kernel made its handler panic and was answered with EIO");
    }
}

impl Filesystem for Coat {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each alone: an older kernel refuses the whole set for one that it lacks.
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            if config.add_capabilities(wanted).is_err() {
                tracing::debug!(?wanted, "the kernel lacks a capability");
            }
        }
        // Both only lower what the kernel offers, or are within its bounds.
        let _ = config.set_max_readahead(limits::READ_AHEAD_KIB * 1024);
        let _ = config.set_max_background(limits::FUSE_MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| match self.find(parent, name) {
            Ok((valid, attributes)) => reply.entry(&valid, &attributes, GENERATION),
            Err(errno) => reply.error(errno),
        });
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| match self.at(number) {
            Ok(at) => reply.attr(&FOR_EVER, &at.attributes()),
            Err(errno) => reply.error(errno),
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        guarded(|| match self.at(number) {
            Ok(At::Node(fs, node)) => match fs.symlink_target(node) {
                Some(target) => reply.data(target),
                None => reply.error(Errno::EINVAL),
            },
            Ok(At::Top(_) | At::Whiteout) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        Counters::add(&self.counters.kernel_requests, 1);
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        Counters::add(&self.counters.kernel_requests, 1);
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded(|| match self.at(number) {
            Ok(At::Node(fs, node)) => match fs.plan_read(node, offset, size.min(limits::READ_BYTES_MAX)) {
                Some(plan) if plan.is_ready() => answer_read(&plan, &self.counters, reply),
                Some(plan) => self.read_later(plan, reply),
                None => reply.error(Errno::EINVAL),
            },
            Ok(At::Top(_) | At::Whiteout) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        });
    }

    /// Sent at every close; nothing here is ever written.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        guarded(|| {
            let listed = self.list(number, offset, |name, next, attributes, _| reply.add(attributes.ino, next, attributes.kind, name));
            match listed {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        guarded(|| {
            let listed = self.list(number, offset, |name, next, attributes, valid| {
                reply.add(attributes.ino, next, name, &valid, attributes, GENERATION)
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        guarded(|| {
            Counters::add(&self.counters.kernel_requests, 1);
            self.fill_statfs(reply);
        });
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded(|| {
            // The kernel asks no more once it was told that there is no such operation.
            if self.is_without_xattrs() {
                return reply.error(Errno::ENOSYS);
            }
            match self.at(number) {
                Ok(At::Node(fs, node)) => match fs.xattr(node, name.as_bytes()) {
                    Some(value) => answer_xattr(value, size, reply),
                    None => reply.error(Errno::ENODATA),
                },
                Ok(At::Top(_) | At::Whiteout) => reply.error(Errno::ENODATA),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        guarded(|| {
            if self.is_without_xattrs() {
                return reply.error(Errno::ENOSYS);
            }
            match self.at(number) {
                Ok(At::Node(fs, node)) => answer_xattr(&fs.xattr_names(node), size, reply),
                Ok(At::Top(_) | At::Whiteout) => answer_xattr(&[], size, reply),
                Err(errno) => reply.error(errno),
            }
        });
    }
}

/// Size 0 asks how long the value is.
fn answer_xattr(value: &[u8], size: u32, reply: ReplyXattr) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() <= size as usize {
        reply.data(value);
    } else {
        reply.error(Errno::ERANGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_handler_leaves_its_thread_alive() {
        guarded(|| panic!("on purpose"));
    }

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        let time = system_time(Timestamp { seconds: -2, nanoseconds: 250_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::from_millis(1750));
    }
}
