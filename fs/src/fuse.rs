//! A thin coat over fuser: every answer is [`ImageFs`]'s. The only file that names the `fuser` crate.
//!
//! What is cached is answered on the thread that the kernel's request came on; a read that misses takes its reply into a task. Entries,
//! attributes and absences are given to the kernel for ever, and OPEN and OPENDIR are answered with ENOSYS, after which the kernel sends
//! neither any more.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session,
    SessionACL,
};
use snap_index::{DirectoryId, Node, Timestamp};

use crate::counters::Counters;
use crate::image_fs::{ImageFs, ReadPlan, Stat};
use crate::limits;

const FOR_EVER: Duration = Duration::from_secs(limits::CACHE_SECONDS);
/// Nodes are never reused for something else, so one generation is enough.
const GENERATION: Generation = Generation(0);
const BLOCK_BYTES: u32 = 4096;

/// Serves one image on one FUSE connection.
pub(crate) struct Coat {
    pub(crate) fs: Arc<ImageFs>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) read_deadline: Duration,
}

/// Takes a connection that is mounted already and serves it until it ends. Blocks.
pub(crate) fn serve(coat: Coat, device: OwnedFd) -> std::io::Result<()> {
    let mut config = Config::default();
    config.n_threads = Some(limits::FUSE_THREADS);
    // A request that was read through a cloned descriptor would die with it.
    config.clone_fd = false;
    Session::from_fd(coat, device, SessionACL::All, config)?.run()
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

/// The answer for a name that is not there: node 0, which the kernel remembers as an absence.
fn absence() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
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
    fn directory(&self, number: INodeNo) -> Result<DirectoryId, Errno> {
        match self.node(number)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) | Node::Relinked(_) => Err(Errno::ENOTDIR),
        }
    }

    fn node(&self, number: INodeNo) -> Result<Node, Errno> {
        Counters::add(&self.counters.kernel_requests, 1);
        self.fs.node(number.0).ok_or(Errno::ESTALE)
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
        let blocks = self.fs.total_bytes().div_ceil(BLOCK_BYTES.into());
        reply.statfs(blocks, 0, 0, self.fs.name_count(), 0, BLOCK_BYTES, 255, BLOCK_BYTES);
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
        guarded(|| match self.directory(parent) {
            Ok(directory) => match self.fs.lookup(directory, name.as_bytes()) {
                Some(node) => reply.entry(&FOR_EVER, &attributes(&self.fs.stat(node)), GENERATION),
                None => reply.entry(&FOR_EVER, &absence(), GENERATION),
            },
            Err(errno) => reply.error(errno),
        });
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| match self.node(number) {
            Ok(node) => reply.attr(&FOR_EVER, &attributes(&self.fs.stat(node))),
            Err(errno) => reply.error(errno),
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        guarded(|| match self.node(number).map(|node| self.fs.symlink_target(node)) {
            Ok(Some(target)) => reply.data(target),
            Ok(None) => reply.error(Errno::EINVAL),
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
        guarded(|| match self.node(number).map(|node| self.fs.plan_read(node, offset, size.min(limits::READ_BYTES_MAX))) {
            Ok(Some(plan)) if plan.is_ready() => answer_read(&plan, &self.counters, reply),
            Ok(Some(plan)) => self.read_later(plan, reply),
            Ok(None) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        });
    }

    /// Sent at every close; nothing here is ever written.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        guarded(|| {
            let directory = match self.directory(number) {
                Ok(directory) => directory,
                Err(errno) => return reply.error(errno),
            };
            for entry in self.fs.entries(directory, offset) {
                let stat = self.fs.stat(entry.node);
                if reply.add(INodeNo(stat.number), entry.next, file_type(stat.attributes.mode), OsStr::from_bytes(entry.name)) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        guarded(|| {
            let directory = match self.directory(number) {
                Ok(directory) => directory,
                Err(errno) => return reply.error(errno),
            };
            for entry in self.fs.entries(directory, offset) {
                let stat = self.fs.stat(entry.node);
                let name = OsStr::from_bytes(entry.name);
                if reply.add(INodeNo(stat.number), entry.next, name, &FOR_EVER, &attributes(&stat), GENERATION) {
                    break;
                }
            }
            reply.ok();
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
            if self.fs.is_without_xattrs() {
                return reply.error(Errno::ENOSYS);
            }
            match self.node(number).map(|node| self.fs.xattr(node, name.as_bytes())) {
                Ok(Some(value)) => answer_xattr(value, size, reply),
                Ok(None) => reply.error(Errno::ENODATA),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        guarded(|| {
            if self.fs.is_without_xattrs() {
                return reply.error(Errno::ENOSYS);
            }
            match self.node(number).map(|node| self.fs.xattr_names(node)) {
                Ok(names) => answer_xattr(&names, size, reply),
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
