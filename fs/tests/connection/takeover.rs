//! One daemon ends, the next takes its connection over.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use snap_fs::{Connection, ConnectionError, keeper, limits, unmount};

use crate::scene::{Scene, THREADS, saved, socket, wait};
use crate::tiny::{FILE_BYTES, Mode, Tiny, content, number};

const ROUNDS: usize = 5;
const READERS: usize = 6;

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) fn killed_daemons_lose_no_read() {
    let scene = Scene::new();
    for round in 0..ROUNDS {
        let first = scene.start("daemon", "withhold");
        if round == 0 {
            first.says("mounted");
        }
        first.says("serving");
        let names = (0..READERS).map(|reader| format!("f{}", round * 10 + reader)).chain([format!("slow{}", round * 10 + 8)]);
        let mut readers: Vec<_> = names.map(|name| scene.start("reader", &name)).collect();
        first.says(&format!("withheld {}", readers.len()));
        first.kill();
        // While nobody serves, too.
        let late = scene.start("reader", &format!("f{}", round * 10 + 9));
        late.says("reading");
        readers.push(late);

        let second = scene.start("daemon", "answer");
        second.says("serving");
        for reader in readers {
            assert!(reader.ends().success(), "round {round}");
        }
        second.kill();
    }
    assert!(keeper::fetch(&socket(scene.dir())).unwrap().is_some(), "one keeper for all of them");
    assert_eq!(scene.mounts(), 1);
}

pub(crate) fn a_connection_that_was_unmounted_is_gone() {
    let scene = Scene::new();
    let (mut served, device) = scene.serve(Mode::Answer);
    assert_eq!(fs::metadata(scene.file("f1")).unwrap().len(), FILE_BYTES as u64);
    unmount(&scene.mount_point(), false).unwrap();
    wait(served.ended()).unwrap();
    wait(served.ended()).unwrap();
    let adopted = Connection::adopt(device, &scene.mount_point(), &saved(scene.dir()));
    assert!(matches!(adopted, Err(ConnectionError::Gone)), "{adopted:?}");
}

pub(crate) fn a_lazily_unmounted_connection_is_adopted_and_told_apart() {
    let scene = Scene::new();
    let (mut served, device) = scene.serve(Mode::Answer);
    let file = File::open(scene.file("f1")).unwrap();
    unmount(&scene.mount_point(), true).unwrap();
    let adopted = Connection::adopt(device, &scene.mount_point(), &saved(scene.dir())).unwrap();
    assert!(!adopted.is_mounted().unwrap());
    let mut bytes = [0; 10];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 5).unwrap();
    assert_eq!(bytes[..], content(number("f1").unwrap(), 5, 10));
    drop(file);
    wait(served.ended()).unwrap();
}

pub(crate) fn a_daemon_that_agrees_to_less_is_refused() {
    let scene = Scene::new();
    let (_served, device) = scene.serve(Mode::Answer);
    let adopted = Connection::adopt(device, &scene.mount_point(), &saved(scene.dir())).unwrap();
    let served = adopted.serve(Tiny::new(Mode::Plain), THREADS);
    let no_open = fuser::InitFlags::FUSE_NO_OPEN_SUPPORT.bits();
    assert!(matches!(served, Err(ConnectionError::Renegotiated { dropped_flags, .. }) if dropped_flags & no_open != 0), "{served:?}");
    assert_eq!(scene.mounts(), 1, "what is running from it goes on");
    fs::read(scene.file("f1")).unwrap();
}

pub(crate) fn a_daemon_that_could_do_more_gets_what_was_agreed() {
    let scene = Scene::new();
    let (_served, device) = scene.serve(Mode::Plain);
    let adopted = Connection::adopt(device, &scene.mount_point(), &saved(scene.dir())).unwrap();
    let _again = adopted.serve(Tiny::new(Mode::AfterPlain), THREADS).unwrap();
    fs::read(scene.file("f1")).unwrap();
}

pub(crate) fn what_cannot_be_adopted_says_why() {
    let scene = Scene::new();
    let adopt = |device: &dyn std::os::fd::AsFd| {
        Connection::adopt(device.as_fd().try_clone_to_owned().unwrap(), &scene.mount_point(), &saved(scene.dir())).unwrap_err()
    };
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    assert!(matches!(adopt(&null), ConnectionError::NotFuse));

    let (_served, device) = scene.serve(Mode::Answer);
    let handshake = fs::read_to_string(saved(scene.dir())).unwrap();
    let mut changed: serde_json::Value = serde_json::from_str(&handshake).unwrap();
    // flags2 of the request: FUSE_HAS_RESEND is bit 7.
    changed["request"][56] = 0.into();
    fs::write(saved(scene.dir()), changed.to_string()).unwrap();
    assert!(matches!(adopt(&device), ConnectionError::NoResend));

    let other = Scene::new();
    let (_other_served, _other_device) = other.serve(Mode::Answer);
    fs::copy(saved(other.dir()), saved(scene.dir())).unwrap();
    assert!(matches!(adopt(&device), ConnectionError::Foreign { .. }));
    fs::remove_file(saved(scene.dir())).unwrap();
    assert!(matches!(adopt(&device), ConnectionError::Saved { .. }));
}

pub(crate) fn a_dead_mount_is_cleared_away() {
    let scene = Scene::new();
    let (served, device) = scene.serve(Mode::Answer);
    drop((served, device));
    // The threads that serve it hold it still.
    fs::read(scene.file("f1")).unwrap();
    drop(scene);

    let scene = Scene::new();
    drop(scene.mount());
    assert_eq!(fs::metadata(scene.mount_point()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    let (_served, _device) = scene.serve(Mode::Answer);
    assert_eq!(scene.mounts(), 1);
    fs::read(scene.file("f1")).unwrap();
}

pub(crate) fn a_mount_that_nobody_serves_is_cleared_away() {
    let scene = Scene::new();
    let daemon = scene.start("daemon", "withhold");
    daemon.says("serving");
    let reader = scene.start("reader", "f1");
    daemon.says("withheld 1");
    daemon.kill();
    let device = keeper::fetch(&socket(scene.dir())).unwrap().unwrap();
    let (_served, _device) = scene.serve(Mode::Answer);
    assert_eq!(scene.mounts(), 1);
    assert!(!reader.ends().success(), "its file is gone");
    let adopted = Connection::adopt(device, &scene.mount_point(), &saved(scene.dir()));
    assert!(matches!(adopted, Err(ConnectionError::Gone)), "{adopted:?}");
    fs::read(scene.file("f1")).unwrap();
}

pub(crate) fn a_session_that_fails_leaves_no_mount() {
    let scene = Scene::new();
    let served = scene.mount().serve(Tiny::new(Mode::Fail), THREADS);
    assert!(matches!(served, Err(ConnectionError::Session(_))), "{served:?}");
    assert_eq!(scene.mounts(), 0);
    assert_eq!(fs::metadata(saved(scene.dir())).unwrap_err().kind(), io::ErrorKind::NotFound);
}

pub(crate) fn connections_leave_no_descriptor() {
    let scene = Scene::new();
    let round = || {
        let (mut served, device) = scene.serve(Mode::Answer);
        let again = Connection::adopt(device, &scene.mount_point(), &saved(scene.dir())).unwrap();
        let mut served_again = again.serve(Tiny::new(Mode::Answer), THREADS).unwrap();
        fs::read(scene.file("f1")).unwrap();
        unmount(&scene.mount_point(), false).unwrap();
        wait(served.ended()).unwrap();
        wait(served_again.ended()).unwrap();
    };
    round();
    let before = open_descriptors();
    (0..ROUNDS).for_each(|_| round());
    assert_eq!(open_descriptors(), before);
}

pub(crate) fn large_reads_reach_the_daemon() {
    let scene = Scene::new();
    let (_served, _device) = scene.serve(Mode::Answer);
    let device = fs::metadata(scene.mount_point()).unwrap().dev();
    let path = format!("/sys/class/bdi/0:{}/read_ahead_kb", libc::minor(device));
    assert_eq!(fs::read_to_string(path).unwrap().trim(), limits::READ_AHEAD_KIB.to_string());
}
