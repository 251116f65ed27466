//! A process is killed before and after every system call it makes; what it leaves must be right each time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use snap_cache::BootId;
use snap_digest::Digest;

use crate::actor::{self, CHUNKS, DOCUMENT, REFERENCE, the_layer};
use crate::fixture::{BOOT, NEXT_BOOT, build_whole, complete, index_bytes, layer_dir, leftovers, open, open_data, open_in};

/// A run has at least so many stops; fewer would mean that nothing was traced.
const MIN_STOPS: usize = 40;
/// Where the data file is cut off: inside a chunk.
const CUT_BYTES: u64 = 3500;

pub(crate) fn a_fetch_may_be_killed_at_every_system_call() {
    kill_everywhere("traced-fetch", BOOT, |_| {});
}

pub(crate) fn an_indexed_fetch_may_be_killed_at_every_system_call() {
    kill_everywhere("traced-indexed-fetch", BOOT, |_| {});
}

pub(crate) fn a_return_after_a_reboot_may_be_killed_at_every_system_call() {
    kill_everywhere("traced-return", NEXT_BOOT, |dir| {
        prepare(dir);
        // What a crash of the machine may leave: a tail and a part of a chunk that never reached the disk.
        let data = data_file(dir);
        data.write_all_at(&[0; 100], 1200).unwrap();
        data.set_len(CUT_BYTES).unwrap();
    });
}

pub(crate) fn a_restoration_of_cut_data_may_be_killed_at_every_system_call() {
    kill_everywhere("traced-restoration", BOOT, |dir| {
        prepare(dir);
        data_file(dir).set_len(CUT_BYTES).unwrap();
    });
}

pub(crate) fn a_repair_may_be_killed_at_every_system_call() {
    kill_everywhere("traced-repair", BOOT, prepare);
}

pub(crate) fn an_eviction_may_be_killed_at_every_system_call() {
    kill_everywhere("traced-eviction", BOOT, prepare);
}

fn prepare(dir: &Path) {
    build_whole(&open(dir).lease(&the_layer()).unwrap(), CHUNKS);
}

fn data_file(dir: &Path) -> File {
    File::options().write(true).open(layer_dir(dir, &the_layer()).join("data")).unwrap()
}

/// Runs `role` once for each of its system calls, killed there, and looks at what is left.
fn kill_everywhere(role: &str, boot: BootId, prepare: impl Fn(&Path)) {
    let mut stops = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let killed = run_until_stop(role, dir.path(), stops);
        check(dir.path(), boot);
        if !killed {
            break;
        }
        stops += 1;
    }
    assert!(stops >= MIN_STOPS, "only {stops} stops");
    println!("  killed at {stops} points");
}

/// Lets the process go on until its `stop`th entry to or return from a system call and kills it there. False if it ended
/// before; then it must have succeeded.
#[allow(clippy::zombie_processes, reason = "waited for by waitpid, which sees a traced process stop")]
fn run_until_stop(role: &str, dir: &Path, stop: usize) -> bool {
    let child = actor::start(role, dir);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(pid, Signal::SIGSTOP));
    ptrace::setoptions(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL).unwrap();
    for _ in 0..=stop {
        ptrace::syscall(pid, None).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => {}
            WaitStatus::Exited(_, 0) => return false,
            other => panic!("{role} ended with {other:?}"),
        }
    }
    kill(pid, Signal::SIGKILL).unwrap();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    true
}

/// Whatever is there is right; what is missing can be made; and no leftover outlives a prune.
fn check(dir: &Path, boot: BootId) {
    let cache = open_in(dir, boot);
    assert!(cache.document(&Digest::of(DOCUMENT)).is_none_or(|found| found == DOCUMENT));
    assert!(cache.reference(REFERENCE).is_none_or(|found| found == "{}"));
    let lease = cache.lease(&the_layer()).unwrap();
    let index = lease.read_index().unwrap();
    match index {
        Some(index) => assert_eq!(index.to_vec(), index_bytes(&the_layer())),
        None => build_whole(&lease, CHUNKS),
    }
    complete(&open_data(&lease, CHUNKS));
    drop(lease);
    cache.enforce_budget().unwrap();
    assert_eq!(leftovers(dir), 0);
    assert_eq!(cache.layers().unwrap().len(), 1, "the whole layer is no leftover");
    cache.prune(0).unwrap();
    assert_eq!(cache.layers().unwrap(), []);
}
