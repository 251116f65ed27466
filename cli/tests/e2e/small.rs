//! How little memory it takes.

use crate::harness::{Mount, image, scratch};

/// In KiB, as the kernel counts it now.
fn resident_kib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_mounted_python_image_takes_less_than_30_mib() {
    for variant in ["estargz", "gzip"] {
        let image = image("python", variant);
        let scratch = scratch();
        let mount = Mount::new(&image.reference, &scratch.path().join("cache"), &scratch.path().join("root"), &["--wait"]);
        let resident = resident_kib(mount.pid());
        println!("{variant}: {resident} KiB resident");
        // An unoptimised program is larger, but it is its heap that would grow with the image.
        assert!(resident < 30 * 1024, "{variant}: {resident} KiB resident");
    }
}
