//! The service manager's file descriptor store. The test plays the manager's side, as sd_notify(3) and sd_listen_fds(3) describe it.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::scene::{Actor, PATIENCE, Scene, abort, command};

const MESSAGE_BYTES: usize = 4096;

/// What a service said: its assignments, and a descriptor.
fn receive(manager: &UnixDatagram) -> (Vec<String>, Option<OwnedFd>) {
    let mut text = vec![0; MESSAGE_BYTES];
    let mut buffers = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(manager.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let descriptor = message.cmsgs().unwrap().find_map(|control| match control {
        // SAFETY: the kernel has just made this descriptor for us.
        ControlMessageOwned::ScmRights(descriptors) => Some(unsafe { OwnedFd::from_raw_fd(descriptors[0]) }),
        _ => None,
    });
    let length = message.bytes;
    text.truncate(length);
    (String::from_utf8(text).unwrap().lines().map(str::to_owned).collect(), descriptor)
}

/// Starts a service that is given `device` as its first descriptor, under `name`. The shell is there to know the process ID.
fn restart(scene: &Scene, device: OwnedFd, name: &str) -> Actor {
    let service = command("restored-daemon", scene.dir());
    let mut shell = Command::new("sh");
    shell.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 0</dev/null"]);
    shell.arg(service.get_program()).args(service.get_args()).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    shell.env("NOTIFY_SOCKET", scene.dir().join("notify"));
    Actor::start(shell.stdin(device), scene)
}

pub(crate) fn the_service_manager_keeps_the_connection() {
    let scene = Scene::new();
    let path = scene.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let daemon = Actor::start(command("storing-daemon", scene.dir()).env("NOTIFY_SOCKET", &path).env("FDSTORE", "1"), &scene);
    let (removal, nothing) = receive(&manager);
    assert_eq!(removal, ["FDSTOREREMOVE=1", "FDNAME=snap-fuse"]);
    assert!(nothing.is_none());
    let (storing, device) = receive(&manager);
    assert_eq!(storing, ["FDSTORE=1", "FDNAME=snap-fuse", "FDPOLL=0"]);
    assert_eq!(receive(&manager).0, ["READY=1"]);
    daemon.says("stored true");
    daemon.says("serving");
    let reader = scene.start("reader", "f1");
    daemon.says("withheld 1");
    daemon.kill();

    let restored = restart(&scene, device.unwrap(), "snap-fuse");
    restored.says("serving");
    assert!(reader.ends().success());
    snap_fs::unmount(&scene.mount_point(), false).unwrap();
    assert_eq!(receive(&manager).0, ["STOPPING=1"]);
    assert!(restored.ends().success());
}

pub(crate) fn nothing_is_taken_from_a_manager_that_kept_nothing() {
    let scene = Scene::new();
    let connection = scene.mount();
    let device = || connection.device().try_clone_to_owned().unwrap();
    restart(&scene, device(), "another").says("nothing");
    abort(&scene.mount_point());
    restart(&scene, device(), "snap-fuse").says("nothing");
    let alone = Actor::start(&mut command("restored-daemon", scene.dir()), &scene);
    alone.says("nothing");
    assert!(!snap_fs::fd_store::store(connection.device()).unwrap(), "without a manager");
}
