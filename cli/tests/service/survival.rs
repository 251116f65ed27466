//! `snap serve` is killed, stopped and replaced under a container that reads everything.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::minor;

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::images::{TestImage, image};
use crate::machine::Machine;
use crate::process::{stdout, wait_until};
use crate::serve::{Serve, program};

const KILLS: usize = 20;
/// From the first request that a new process answers to its end, at most.
const LIFE_MAX: Duration = Duration::from_millis(150);
/// What the kernel serves without asking has to be forgotten, or nothing would be read but once.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// One line with the hash of every file's hash; what the daemon and runc put into a root is left out. Fails as soon as any read does.
pub(crate) const HASH: &str = "set -o pipefail; cd /; find bin/ etc/ opt/ usr/ var/ -type f ! -path etc/hosts ! -path etc/hostname \
    ! -path etc/resolv.conf -print0 | LC_ALL=C sort --zero-terminated | xargs --null sha256sum | sha256sum";

pub(crate) fn expected_hash(image: &TestImage) -> String {
    stdout(Command::new("chroot").arg(&image.tree).args(["/bin/bash", "-c", HASH]))
}

fn forget_what_was_read() {
    std::fs::write(DROP_CACHES, "3").unwrap();
}

/// A container that hashes its root again and again until it is told to stop, with `disturb` done meanwhile.
fn hash_while(variant: &str, tables: &str, disturb: impl FnOnce(&mut Serve<'_>, &FuseConnection)) {
    let image = image("python", variant);
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, tables);
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let ctr = Ctr::new(&containerd, Pull::Transfer);
    ctr.pull(&image.reference).unwrap();
    let script = format!("until [ -e /stop ]; do ({HASH}) || exit 1; done");
    let container = ctr.start(&image.reference, "hash", &["/bin/bash", "-c", &script]);
    let connection = FuseConnection::of(&machine);
    let mounts = (machine.mounts(), device(&machine));

    disturb(&mut serve, &connection);

    assert_eq!((machine.mounts(), device(&machine)), mounts, "something was mounted anew");
    // Once more from the beginning.
    forget_what_was_read();
    ctr.exec(&container, &["/bin/bash", "-c", "touch /stop"]).well();
    let hashes = ctr.wait(&container, "hash").well();
    let expected = expected_hash(&image);
    assert!(!hashes.is_empty());
    for hash in hashes.lines() {
        assert_eq!(format!("{hash}\n"), expected, "of {hashes}");
    }
    assert_eq!(serve.count("reads_failed"), 0);
    ctr.remove(&container);
}

/// The number of the file system that shows the layers: another for every mount.
fn device(machine: &Machine) -> u64 {
    machine.run("snap/fs").metadata().unwrap().dev()
}

/// What the kernel tells of a connection.
struct FuseConnection(PathBuf);

impl FuseConnection {
    fn of(machine: &Machine) -> Self {
        let control = machine.run("fusectl");
        std::fs::create_dir(&control).unwrap();
        mount(Some("none"), &control, Some("fusectl"), MsFlags::empty(), None::<&str>).unwrap();
        Self(control.join(minor(device(machine)).to_string()))
    }

    /// Requests without an answer.
    fn waiting(&self) -> u64 {
        std::fs::read_to_string(self.0.join("waiting")).unwrap().trim().parse().unwrap()
    }
}

/// Waits until the process has answered the kernel, as it would hardly be disturbed by a signal before, and then for a random time.
fn await_a_moment(serve: &Serve<'_>, random: &mut Random) {
    wait_until("a request of the kernel is answered", || serve.count("kernel_requests") > 0);
    std::thread::sleep(LIFE_MAX.mul_f64(random.fraction()));
}

/// A generator of Marsaglia's (xorshift64), good enough to choose moments.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// At least 0, less than 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn end_twenty_times(serve: &mut Serve<'_>, connection: &FuseConnection, signal: Signal) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..KILLS {
        forget_what_was_read();
        await_a_moment(serve, &mut random);
        serve.end(signal);
        wait_until("someone waits for an answer", || connection.waiting() > 0);
        serve.resume();
    }
}

#[test]
fn killed_twenty_times_while_everything_is_fetched() {
    hash_while("estargz", "", |serve, connection| end_twenty_times(serve, connection, Signal::SIGKILL));
}

#[test]
fn killed_twenty_times_where_nothing_is_fetched_but_what_is_read() {
    hash_while("estargz", "[fetch]\nbackground = false", |serve, connection| end_twenty_times(serve, connection, Signal::SIGKILL));
}

#[test]
fn stopped_twenty_times() {
    hash_while("gzip", "", |serve, connection| {
        end_twenty_times(serve, connection, Signal::SIGTERM);
        let status = serve.end(Signal::SIGTERM);
        assert!(status.success(), "{status}");
        serve.resume();
    });
}

#[test]
fn replaced_by_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("snap-of-tomorrow");
    std::fs::copy(program(), &other).unwrap();
    hash_while("gzip", "", |serve, connection| {
        let mut random = Random(1);
        for program in [other.as_path(), &program(), &other] {
            forget_what_was_read();
            await_a_moment(serve, &mut random);
            serve.replace_program(program.to_owned());
            serve.end(Signal::SIGTERM);
            wait_until("someone waits for an answer", || connection.waiting() > 0);
            serve.resume();
            assert_eq!(std::fs::read_link(format!("/proc/{}/exe", serve.count("pid"))).unwrap(), canonical(program));
        }
    });
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap()
}

#[test]
fn another_keeper_follows_one_that_dies() {
    hash_while("estargz", "", |serve, connection| {
        let keeper = serve.keeper().unwrap();
        kill(keeper, Signal::SIGKILL).unwrap();
        wait_until("there is another keeper", || serve.keeper().is_some_and(|next| next != keeper));
        end_twenty_times(serve, connection, Signal::SIGKILL);
    });
}

/// What nobody can survive is told, and the next start has a mount again.
#[test]
fn a_mount_that_was_taken_away_ends_the_service() {
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, "");
    umount2(&machine.run("snap/fs"), MntFlags::MNT_DETACH).unwrap();
    let status = serve.wait();
    assert_eq!(status.code(), Some(1));
    assert!(serve.log().contains("was taken away") && serve.log().contains("hint: start snap serve again"), "{}", serve.log());
    serve.resume();
    assert_eq!(machine.mounts(), [machine.run("snap/fs")]);
    let tiny = image("tiny", "estargz");
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let ctr = Ctr::new(&containerd, Pull::Transfer);
    ctr.pull(&tiny.reference).unwrap();
    let container = ctr.start(&tiny.reference, "short", &["/bin/cat", "/etc/motd"]);
    assert_eq!(ctr.wait(&container, "short").well(), "Replaced by the second layer.\n");
    ctr.remove(&container);
}
