//! No registry is needed for what is here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Mount, image, scratch, snap};
use crate::scan::scan;

/// A door to the registry that can be shut.
struct Door {
    address: String,
    open: Arc<AtomicBool>,
}

impl Door {
    fn to(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, target) = (Arc::new(AtomicBool::new(true)), registry.to_owned());
        let is_open = Arc::clone(&open);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(&target).unwrap();
                for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                    let is_open = Arc::clone(&is_open);
                    std::thread::spawn(move || pump(from, to, &is_open));
                }
            }
        });
        Self { address, open }
    }

    fn shut(&self) {
        self.open.store(false, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, is_open: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while is_open.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(read) if read > 0 && to.write_all(&buffer[..read]).is_ok() => {}
            _ => break,
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_complete_image_mounts_and_reads_without_its_registry() {
    for variant in ["gzip", "estargz", "zstd"] {
        let image = image("tiny", variant);
        let (registry, name) = image.reference.split_once('/').unwrap();
        let door = Door::to(registry);
        let reference = format!("{}/{name}", door.address);
        let scratch = scratch();
        let cache = scratch.path().join("cache");
        let before = {
            let mount = Mount::new(&reference, &cache, &scratch.path().join("root"), &["--wait"]);
            assert_eq!(mount.status()["complete"], true);
            scan(&mount.dir).entries
        };
        door.shut();
        let mount = Mount::new(&reference, &cache, &scratch.path().join("root"), &["--wait"]);
        assert_eq!(scan(&mount.dir).entries, before, "{variant}");
        assert_eq!(mount.count("bytes_fetched"), 0);
        assert!(mount.status()["stale"].is_string(), "the status does not say that the registry was not asked");
    }
}

#[test]
fn what_was_never_here_has_a_clear_error_without_its_registry() {
    let image = image("tiny", "gzip");
    let (registry, name) = image.reference.split_once('/').unwrap();
    let door = Door::to(registry);
    door.shut();
    let scratch = scratch();
    let root = scratch.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let mut command = snap();
    command.arg("mount").arg("--cache-dir").arg(scratch.path().join("cache")).arg(format!("{}/{name}", door.address)).arg(&root);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("error: ") && said.contains(&door.address), "{said}");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}
