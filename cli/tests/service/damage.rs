//! A disk that is damaged, full or read-only.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::client::Client;
use crate::containerd::{Containerd, Snapshotter, Version};
use crate::ctr::{Ctr, Pull};
use crate::images::image;
use crate::machine::Machine;
use crate::process::stdout;
use crate::serve::Serve;

/// Room for the tiny image, not for the other.
const SMALL_DISK_BYTES: u64 = 48 << 20;

const SHOW: [&str; 2] = ["/bin/cat", "/etc/motd"];
const SHOWN: &str = "Replaced by the second layer.\n";

fn run(ctr: &Ctr<'_, '_>, reference: &str, name: &str) -> String {
    let container = ctr.start(reference, name, &SHOW);
    let said = ctr.wait(&container, name).well();
    ctr.remove(&container);
    said
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// The one file of a name below a folder, or all of them.
fn find(folder: &Path, name: &str) -> Vec<PathBuf> {
    stdout(Command::new("find").arg(folder).args(["-type", "f", "-name", name])).lines().map(PathBuf::from).collect()
}

#[test]
fn damaged_records_are_told_and_kept() {
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, "");
    serve.end(Signal::SIGTERM);
    let records = machine.disk("snap/snapshotter/records.redb");
    overwrite(&records, 0, &[0x5a; 512]);
    let damaged = std::fs::read(&records).unwrap();
    let output = serve.command().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("records.redb") && said.contains("hint: "), "{said}");
    assert!(std::fs::read(&records).unwrap() == damaged, "it was changed");
}

#[test]
fn a_damaged_index_costs_a_fetch_and_no_other_image() {
    let (tiny, python) = (image("tiny", "estargz"), image("python", "estargz"));
    let machine = Machine::new();
    let mut serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let ctr = Ctr::new(&containerd, Pull::Transfer);
    for image in [&tiny, &python] {
        ctr.pull(&image.reference).unwrap();
    }
    serve.wait_complete();
    serve.end(Signal::SIGTERM);
    let digest = tiny.layers()[0].replace("sha256:", "");
    let index = find(&machine.disk("snap"), "index").into_iter().find(|path| path.to_str().unwrap().contains(&digest)).unwrap();
    overwrite(&index, 64, &[0xff; 4096]);

    serve.resume();
    let container = ctr.start(&python.reference, "report", &[]);
    assert_eq!(ctr.wait(&container, "report").well(), python.expected_output());
    ctr.remove(&container);
    assert_eq!(run(&ctr, &tiny.reference, "tiny"), SHOWN);
}

#[test]
fn a_full_disk_fails_the_pull_and_leaves_the_rest_serving() {
    let (tiny, python) = (image("tiny", "gzip"), image("python", "gzip"));
    let machine = Machine::new();
    let root = machine.disk("snap");
    std::fs::create_dir(&root).unwrap();
    let options = format!("size={SMALL_DISK_BYTES},mode=700");
    mount(Some("none"), &root, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let serve = Serve::start(&machine, "");
    let containerd = Containerd::start(&machine, Version::V2, Snapshotter::Snap);
    let ctr = Ctr::new(&containerd, Pull::Transfer);
    ctr.pull(&tiny.reference).unwrap();
    let told = ctr.pull(&python.reference).unwrap_err();
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(run(&ctr, &tiny.reference, "tiny"), SHOWN);
    // Nothing is kept of what did not fit: no file either.
    let stored = serve.stored_layers();
    assert!(!stored.contains(&python.layers()[0]), "{stored:?}");
    assert!(tiny.layers().iter().all(|layer| stored.contains(layer)), "{stored:?}");
}

#[test]
fn a_read_only_root_is_told_at_the_start() {
    let machine = Machine::new();
    let root = machine.disk("snap");
    std::fs::create_dir(&root).unwrap();
    mount(Some("none"), &root, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>).unwrap();
    let output = Serve::new(&machine, "").command().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains(root.to_str().unwrap()), "{said}");
}
