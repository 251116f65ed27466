//! Mounting as somebody who is not root, through fusermount3.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::harness::{image, snap, succeed};

/// Debian's `nobody` and `nogroup`.
const USER: u32 = 65534;

fn as_user(command: &mut Command, home: &std::path::Path) -> std::process::Output {
    succeed(command.uid(USER).gid(USER).env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run")).env_remove("XDG_CACHE_HOME"))
}

#[test]
fn an_ordinary_user_mounts_reads_and_unmounts() {
    let image = image("tiny", "estargz");
    // Not below the other tests' folder, which may be root's alone.
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let home = scratch.path().join("home");
    for dir in [home.clone(), home.join("run"), home.join("root")] {
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(USER), Some(USER)).unwrap();
    }
    // As udev's rules have it on every machine where users may mount; without udev it is root's alone.
    succeed(Command::new("chmod").args(["a+rw", "/dev/fuse"]));
    succeed(Command::new("chmod").arg("a+rx").arg(scratch.path()));
    // The program itself may lie where only root gets to.
    let program = home.join("snap");
    std::fs::copy(snap().get_program(), &program).unwrap();
    let root = home.join("root");
    as_user(Command::new(&program).args(["mount", &image.reference]).arg(&root), &home);
    let listed = as_user(Command::new("ls").arg("-la").arg(root.join("bin/busybox")), &home);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("busybox"));
    let read = as_user(Command::new("cat").arg(root.join("bin/busybox")), &home);
    assert_eq!(read.stdout, std::fs::read(image.tree.join("bin/busybox")).unwrap());
    as_user(Command::new(&program).arg("umount").arg(&root), &home);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}
