//! The process that holds the connection.

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snap_fs::{KeepError, keeper, unmount};

use crate::scene::{Actor, PATIENCE, Scene, command, socket};
use crate::tiny::Mode;

const NOBODY: u32 = 65534;
const FETCHES: usize = 20;

fn keep(scene: &Scene, device: BorrowedFd<'_>) -> Pid {
    Pid::from_raw(keeper::start(command("keeper", scene.dir()), device).unwrap().cast_signed())
}

/// Waits for the end of a process. One that is not there any more has ended.
fn wait_ended(id: Pid) {
    // SAFETY: takes two numbers and gives a new descriptor, which nothing else owns.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, id.as_raw(), 0) };
    if let Ok(process @ 0..) = i32::try_from(process) {
        // SAFETY: as above.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout), Ok(1), "it does not end");
    }
}

fn is_kept(scene: &Scene) -> bool {
    keeper::fetch(&socket(scene.dir())).unwrap().is_some()
}

pub(crate) fn a_keeper_ends_with_its_connection() {
    let scene = Scene::new();
    let (served, device) = scene.serve(Mode::Answer);
    let keeper = keep(&scene, device.as_fd());
    assert!(is_kept(&scene));
    unmount(&scene.mount_point(), false).unwrap();
    wait_ended(keeper);
    assert!(!is_kept(&scene), "nobody listens");
    drop((served, device));
}

pub(crate) fn a_keeper_survives_what_ends_daemons() {
    let scene = Scene::new();
    let (_served, device) = scene.serve(Mode::Answer);
    let id = keep(&scene, device.as_fd());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(id, signal).unwrap();
        assert!(is_kept(&scene), "{signal}");
    }
    assert_eq!(nix::unistd::getsid(Some(id)).unwrap(), id, "a session of its own");
}

pub(crate) fn a_keeper_takes_the_place_of_a_dead_one() {
    let scene = Scene::new();
    assert!(!is_kept(&scene), "no socket");
    drop(UnixListener::bind(socket(scene.dir())).unwrap());
    assert!(!is_kept(&scene), "a socket without a listener");
    let (_served, device) = scene.serve(Mode::Answer);
    let first = keep(&scene, device.as_fd());
    assert!(is_kept(&scene));
    kill(first, Signal::SIGKILL).unwrap();
    wait_ended(first);
    assert!(!is_kept(&scene));
    let _second = keep(&scene, device.as_fd());
    assert!(is_kept(&scene));
}

pub(crate) fn a_keeper_gives_nothing_to_others() {
    let scene = Scene::new();
    let (_served, device) = scene.serve(Mode::Answer);
    let _keeper = keep(&scene, device.as_fd());
    let mode = fs::metadata(socket(scene.dir())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Even where the file would let them.
    fs::set_permissions(scene.dir(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(socket(scene.dir()), Permissions::from_mode(0o666)).unwrap();
    let program = scene.dir().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut fetcher = std::process::Command::new(program);
    fetcher.args(command("fetcher", scene.dir()).get_args()).uid(NOBODY).gid(NOBODY).current_dir("/");
    let fetcher = Actor::start(&mut fetcher, &scene);
    fetcher.says(&format!("Err(\"the socket of the FUSE connection's keeper, {}: {}\")", socket(scene.dir()).display(), protocol_error()));
    assert!(fetcher.ends().success());
    assert!(is_kept(&scene));
}

/// The socket closes without a descriptor.
fn protocol_error() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::EPROTO)
}

pub(crate) fn a_keeper_holds_the_device_and_nothing_else() {
    let scene = Scene::new();
    let (_served, device) = scene.serve(Mode::Answer);
    // As a shell's `9>file` leaves it.
    let inherited = File::create(scene.dir().join("inherited")).unwrap();
    fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let keeper = keep(&scene, device.as_fd());
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    for _ in 0..FETCHES {
        assert!(is_kept(&scene));
    }
    assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), before);
    // It has closed its end when this returns.
    UnixStream::connect(socket(scene.dir())).unwrap().read_to_end(&mut Vec::new()).unwrap();
    let process = format!("/proc/{keeper}");
    let mut held: Vec<String> = fs::read_dir(format!("{process}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().to_str().unwrap().split(':').next().unwrap().to_owned())
        .collect();
    held.sort();
    assert_eq!(held, ["/dev/fuse", "/dev/null", "/dev/null", "/dev/null", "socket"]);
    assert_eq!(fs::read_link(format!("{process}/cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(fs::read(format!("{process}/environ")).unwrap(), b"");
}

pub(crate) fn a_keeper_without_a_device_does_not_start() {
    let scene = Scene::new();
    let null = File::open("/dev/null").unwrap();
    let started = keeper::start(command("keeper", scene.dir()), null.as_fd());
    assert!(matches!(started, Err(KeepError::NotReady(status)) if !status.success()), "{started:?}");
    assert!(!is_kept(&scene));
}

pub(crate) fn a_mute_keeper_is_given_up() {
    let scene = Scene::new();
    let _mute = UnixListener::bind(socket(scene.dir())).unwrap();
    let fetched = keeper::fetch(&socket(scene.dir()));
    assert!(matches!(&fetched, Err(KeepError::Socket { source, .. }) if source.raw_os_error() == Some(libc::EAGAIN)), "{fetched:?}");
}
