//! What reaches the daemon, and what the kernel answers itself.

use std::path::Path;
use std::process::Command;

use crate::harness::{Mount, image, scratch, succeed};

/// Lists and looks at everything under a folder. Not by find(1): it asks for statfs, which no kernel caches.
fn walk(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.symlink_metadata().unwrap().is_dir() { 1 + walk(&path) } else { 1 }).sum()
}

#[test]
fn nothing_is_asked_twice() {
    let image = image("tiny", "gzip");
    let scratch = scratch();
    let mount = Mount::new(&image.reference, &scratch.path().join("cache"), &scratch.path().join("root"), &["--wait"]);
    let probe = |name: &str| assert!(!mount.dir.join(name).exists());
    let names = walk(&mount.dir);
    probe("no/such/name");
    probe("etc/no-such-name");
    let files: Vec<_> = ["etc/motd", "bin/busybox"].iter().map(|name| mount.dir.join(name)).filter(|path| path.exists()).collect();
    assert!(!files.is_empty());
    let read_all = || files.iter().map(|path| std::fs::read(path).unwrap().len()).sum::<usize>();
    let first = read_all();
    let asked = mount.count("kernel_requests");
    assert_eq!(walk(&mount.dir), names);
    probe("no/such/name");
    probe("etc/no-such-name");
    assert_eq!(read_all(), first);
    assert_eq!(mount.count("kernel_requests"), asked, "the kernel asked again for what it had been told for ever");
}

#[test]
fn statfs_is_not_zeros() {
    let image = image("tiny", "gzip");
    let scratch = scratch();
    let mount = Mount::new(&image.reference, &scratch.path().join("cache"), &scratch.path().join("root"), &[]);
    let statfs = nix::sys::statvfs::statvfs(&mount.dir).unwrap();
    assert!(statfs.blocks() > 0 && statfs.files() > 0 && statfs.block_size() > 0);
    assert_eq!(statfs.name_max(), 255);
    assert_eq!(statfs.blocks_free(), 0);
}

#[test]
fn a_writable_view_copies_up_and_leaves_the_image_alone() {
    let image = image("tiny", "gzip");
    let scratch = scratch();
    let (cache, upper) = (scratch.path().join("cache"), scratch.path().join("rw"));
    let mount = Mount::new(&image.reference, &cache, &scratch.path().join("root"), &["--rw", upper.to_str().unwrap()]);
    std::fs::write(mount.dir.join("etc/motd"), "changed").unwrap();
    std::fs::remove_file(mount.dir.join("etc/passwd")).unwrap();
    succeed(Command::new("chroot").arg(&mount.dir).args(["/bin/busybox", "sh", "-c", "echo new > /new && cat /new"]));
    assert_eq!(std::fs::read(upper.join("upper/etc/motd")).unwrap(), b"changed");
    drop(mount);
    let again = Mount::new(&image.reference, &cache, &scratch.path().join("again"), &[]);
    assert_ne!(std::fs::read(again.dir.join("etc/motd")).unwrap(), b"changed");
    assert!(again.dir.join("etc/passwd").exists());
}
