//! A registry that lies, stalls and breaks off, under the program as it is: an error that says what is wrong, or EIO; never wrong
//! bytes; and the next run works.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use snap_registry::testing::{Fault, FaultyRegistry, Matcher};

use crate::harness::{Mount, TestImage, image, scratch, snap};
use crate::scan::scan;

/// A misbehaving registry with one variant of `tiny` in it.
struct Faulty {
    registry: FaultyRegistry,
    reference: String,
    image: TestImage,
    /// Digest of the largest layer.
    layer: String,
    /// Size of its blob.
    layer_bytes: u64,
}

impl Faulty {
    async fn with(variant: &str) -> Self {
        let image = image("tiny", variant);
        let registry = FaultyRegistry::start().await;
        let blob =
            |digest: &str| std::fs::read(image.layout_dir().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&std::fs::read(image.layout_dir().join("index.json")).unwrap()).unwrap();
        let tagged = |entry: &&serde_json::Value| entry["annotations"]["org.opencontainers.image.ref.name"] == variant;
        let entry = index["manifests"].as_array().unwrap().iter().find(tagged).unwrap();
        let manifest = blob(entry["digest"].as_str().unwrap());
        let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        registry.add_blob(blob(parsed["config"]["digest"].as_str().unwrap()));
        for layer in parsed["layers"].as_array().unwrap() {
            registry.add_blob(blob(layer["digest"].as_str().unwrap()));
        }
        registry.add_manifest("tiny", variant, manifest, entry["mediaType"].as_str().unwrap());
        let reference = registry.reference(&format!("tiny:{variant}"));
        let largest = parsed["layers"].as_array().unwrap().iter().max_by_key(|layer| layer["size"].as_u64()).unwrap();
        let layer = largest["digest"].as_str().unwrap().to_owned();
        Self { registry, reference, image, layer, layer_bytes: largest["size"].as_u64().unwrap() }
    }

    fn mount(&self, scratch: &Path, arguments: &[&str]) -> Mount {
        Mount::new(&self.reference, &scratch.join("cache"), &scratch.join("root"), arguments)
    }

    /// A mount that must fail; what it said.
    fn refused(&self, scratch: &Path) -> String {
        let root = scratch.join("root");
        std::fs::create_dir_all(&root).unwrap();
        let mut command = snap();
        command.arg("mount").arg("--cache-dir").arg(scratch.join("cache")).arg(&self.reference).arg(&root);
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!status.success(), "{said}");
        assert!(said.contains("error: "), "{said}");
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "something is left mounted");
        said
    }

    fn assert_right(&self, dir: &Path) {
        let (found, expected) = (scan(dir).entries, scan(&self.image.tree).entries);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (path, entry) in &expected {
            assert_eq!(found[path].content, entry.content, "{}", path.display());
        }
    }
}

const VARIANTS: [&str; 4] = ["gzip", "estargz", "zstd", "tar"];

/// What a program survives without noticing.
#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_not_noticed() {
    let faults = [
        (Fault::WholeInsteadOfRange, None),
        (Fault::ResetAt(10_000), Some(3)),
        (Fault::TruncateAt(1), Some(3)),
        (Fault::Status(500, None), Some(2)),
        (Fault::Status(429, Some(1)), Some(1)),
        (Fault::Status(503, Some(1)), Some(1)),
    ];
    for variant in VARIANTS {
        for (fault, times) in &faults {
            let faulty = Faulty::with(variant).await;
            let scratch = scratch();
            let strikes = match times {
                Some(times) => Matcher::blobs().times(*times),
                None => Matcher::blobs(),
            };
            faulty.registry.fault(fault.clone(), strikes);
            let mount = faulty.mount(scratch.path(), &["--wait"]);
            faulty.assert_right(&mount.dir);
            assert_eq!(mount.count("reads_failed"), 0, "{variant}: {fault:?}");
        }
    }
}

/// What cannot be got over is an error that names the layer; and once the registry is well, the same command works.
#[tokio::test(flavor = "multi_thread")]
async fn lasting_faults_are_errors_and_the_next_run_works() {
    let faults = [
        (Fault::Status(404, None), "not found"),
        (Fault::Status(401, None), "hint: "),
        (Fault::Status(416, None), "416"),
        (Fault::AlteredByte(0), "layer "), // Which byte depends on the variant.
        // Only where a layer is longer than one range of the pass: a shorter one is asked for whole, without a range.
        (Fault::ContentRange("bytes 7-9/12345".to_owned()), "asked for"),
    ];
    for variant in VARIANTS {
        for (fault, told) in &faults {
            if matches!(fault, Fault::ContentRange(_)) && variant != "tar" {
                continue;
            }
            let faulty = Faulty::with(variant).await;
            let scratch = scratch();
            let fault = match fault {
                // Of an eStargz layer a byte of the table of contents, in the read of its end: payload is checked when it is read.
                Fault::AlteredByte(_) if variant == "estargz" => {
                    Fault::AlteredByte(snap_index::estargz_tail_bytes(faulty.layer_bytes) - 1_000)
                }
                Fault::AlteredByte(_) => Fault::AlteredByte(2_000),
                other => other.clone(),
            };
            faulty.registry.fault(fault.clone(), Matcher::path(&faulty.layer));
            let said = faulty.refused(scratch.path());
            let short = &faulty.layer["sha256:".len()..][..12];
            assert!(said.contains(short) && said.to_lowercase().contains(told), "{variant}, {fault:?}: {said}");
            faulty.registry.heal();
            let mount = faulty.mount(scratch.path(), &["--wait"]);
            faulty.assert_right(&mount.dir);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_or_foreign_manifests_are_refused() {
    for fault in [Fault::AlteredByte(20), Fault::TruncateAt(30), Fault::Status(404, None)] {
        let faulty = Faulty::with("gzip").await;
        let scratch = scratch();
        faulty.registry.fault(fault, Matcher::manifests());
        faulty.refused(scratch.path());
        faulty.registry.heal();
        faulty.assert_right(&faulty.mount(scratch.path(), &["--wait"]).dir);
    }
}

/// Reads every file; how many could be read. Every one that could has the right content.
fn readable(faulty: &Faulty, dir: &Path) -> (usize, usize) {
    let expected = scan(&faulty.image.tree).entries;
    let (mut read, mut failed) = (0, 0);
    for (path, entry) in expected {
        // Another name of a file says nothing new.
        let Some(content) = entry.content.filter(|_| entry.same_as == path) else { continue };
        match std::fs::read(dir.join(&path)) {
            Ok(bytes) => {
                assert_eq!(snap_digest::Digest::of(&bytes), content, "{} has wrong bytes", path.display());
                read += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{}: {error}", path.display());
                failed += 1;
            }
        }
    }
    (read, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_eio_for_what_does_not_verify_and_the_data_once_it_does() {
    for fault in [Fault::AlteredByte(50), Fault::OtherBytes(64), Fault::ContentRange(String::new()), Fault::Status(404, None)] {
        let faulty = Faulty::with("estargz").await;
        let scratch = scratch();
        let mount = faulty.mount(scratch.path(), &["--no-background"]);
        faulty.registry.fault(fault.clone(), Matcher::blobs());
        let (_, failed) = readable(&faulty, &mount.dir);
        assert!(failed > 0, "{fault:?} was not noticed");
        assert!(mount.count("reads_failed") > 0);
        faulty.registry.heal();
        faulty.assert_right(&mount.dir);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_never_waits_past_its_deadline() {
    for fault in [Fault::StallAt(10), Fault::NoAnswer, Fault::Drip(Duration::from_secs(1))] {
        let faulty = Faulty::with("estargz").await;
        let scratch = scratch();
        let mount = faulty.mount(scratch.path(), &["--no-background", "--read-timeout", "2"]);
        let busybox = mount.dir.join("bin/busybox");
        faulty.registry.fault(fault.clone(), Matcher::blobs());
        let error = std::fs::read(&busybox).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{fault:?}");
        faulty.registry.heal();
        // The fetch that is still stuck must be got over too: by its own deadline at the latest.
        let again = (0..60).find_map(|_| std::fs::read(&busybox).ok());
        let bytes = again.unwrap_or_else(|| panic!("{fault:?}: the file cannot be read after the registry recovered"));
        assert_eq!(bytes, std::fs::read(faulty.image.tree.join("bin/busybox")).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_leaves_nothing_half_written() {
    let faulty = Faulty::with("gzip").await;
    let scratch = scratch();
    let small = scratch.path().join("cache");
    std::fs::create_dir(&small).unwrap();
    mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::empty(), Some("size=600k")).unwrap();
    let said = faulty.refused(scratch.path());
    assert!(said.contains("no space left") && said.contains("hint: "), "{said}");
    // With room, the same folder serves.
    mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=64m")).unwrap();
    let mounted = faulty.mount(scratch.path(), &["--wait"]);
    faulty.assert_right(&mounted.dir);
    drop(mounted);
    umount2(&small, MntFlags::MNT_DETACH).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_local_files_are_noticed_and_made_anew() {
    let faulty = Faulty::with("gzip").await;
    let scratch = scratch();
    drop(faulty.mount(scratch.path(), &["--wait"]));
    let layers = scratch.path().join("cache/layers/sha256");
    for (file, at) in [("index", 300), ("present", 0)] {
        for layer in std::fs::read_dir(&layers).unwrap() {
            let path = layer.unwrap().path().join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] ^= 0x55;
            std::fs::write(&path, bytes).unwrap();
        }
        let mounted = faulty.mount(scratch.path(), &["--wait"]);
        faulty.assert_right(&mounted.dir);
    }
}
