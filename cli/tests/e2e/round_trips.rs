//! How few requests and bytes it takes.

use crate::harness::{Mount, image, scratch, succeed};

#[test]
fn an_estargz_image_is_usable_after_two_requests_a_layer() {
    let image = image("python", "estargz");
    let scratch = scratch();
    let mount = Mount::new(&image.reference, &scratch.path().join("cache"), &scratch.path().join("root"), &["--no-background"]);
    let layers = mount.status()["layers"].as_array().unwrap().len() as u64;
    assert!(layers >= 3);
    let requests = mount.count("requests");
    assert!(requests <= 2 * layers, "{requests} requests for {layers} layers");
    // All of the metadata is there: a walk asks for nothing.
    succeed(std::process::Command::new("find").arg(&mount.dir).args(["-printf", "%s %p\\n"]));
    assert_eq!(mount.count("requests"), requests);
}

#[test]
fn what_is_not_read_is_not_fetched_when_nothing_runs_behind() {
    let image = image("python", "estargz");
    let scratch = scratch();
    let mount = Mount::new(&image.reference, &scratch.path().join("cache"), &scratch.path().join("root"), &["--no-background"]);
    let output = succeed(std::process::Command::new("chroot").arg(&mount.dir).args(["/usr/bin/python3", "-B", "-c", "print(6 * 7)"]));
    assert_eq!(output.stdout, b"42\n");
    let status = mount.status();
    let compressed: u64 = status["layers"].as_array().unwrap().iter().map(|layer| layer["blob_bytes"].as_u64().unwrap()).sum();
    let fetched = mount.count("bytes_fetched");
    assert!(fetched < compressed / 2, "{fetched} of {compressed} bytes were fetched to start Python");
    assert_eq!(status["complete"], false);
    assert!(mount.count("reads_waited") > 0);
    assert_eq!(mount.count("reads_failed"), 0);
}

#[test]
fn a_second_mount_of_a_streamed_image_fetches_nothing() {
    let image = image("python", "gzip");
    let scratch = scratch();
    let cache = scratch.path().join("cache");
    let first = Mount::new(&image.reference, &cache, &scratch.path().join("root"), &[]);
    assert_eq!(first.status()["complete"], true, "one pass brings all of it");
    drop(first);
    let second = Mount::new(&image.reference, &cache, &scratch.path().join("root"), &[]);
    assert_eq!(second.count("bytes_fetched"), 0);
}

#[test]
fn an_evicted_gzip_layer_is_lazy_by_its_seek_points() {
    let image = image("python", "gzip");
    let scratch = scratch();
    let cache = scratch.path().join("cache");
    drop(Mount::new(&image.reference, &cache, &scratch.path().join("root"), &["--wait"]));
    // Keeps the indexes, gives up the data.
    let indexes: u64 = {
        let output = succeed(crate::harness::snap().args(["cache", "ls", "--json", "--cache-dir"]).arg(&cache));
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let layers = listed["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["index_bytes"].as_u64().unwrap() * 2 + 65536).sum()
    };
    succeed(crate::harness::snap().args(["cache", "prune", "--keep", &indexes.to_string(), "--cache-dir"]).arg(&cache));
    let mount = Mount::new(&image.reference, &cache, &scratch.path().join("root"), &["--no-background"]);
    assert_eq!(mount.count("bytes_fetched"), 0, "the index is not here any more");
    let output = succeed(std::process::Command::new("chroot").arg(&mount.dir).args(["/usr/bin/python3", "-B", "-c", "print(6 * 7)"]));
    assert_eq!(output.stdout, b"42\n");
    assert!(mount.count("bytes_fetched") > 0);
    assert_eq!(mount.status()["complete"], false);
}
