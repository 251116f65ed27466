//! Layers that were made to be awkward.

use std::io::Write;
use std::path::PathBuf;

use snap_digest::Digest;
use snap_registry::testing::FaultyRegistry;

use crate::harness::{Mount, scratch, snap};

const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A ustar header; `kind` is the type flag.
fn header(name: &str, kind: u8, size: u64, link: &str) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut entry = header(name, b'0', content.len() as u64, "").to_vec();
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

struct Served {
    _registry: FaultyRegistry,
    reference: String,
    _scratch: tempfile::TempDir,
    cache: PathBuf,
    root: PathBuf,
}

impl Served {
    async fn layers(layers: Vec<(&str, Vec<u8>, Digest)>) -> Self {
        let registry = FaultyRegistry::start().await;
        let layers: Vec<_> = layers.into_iter().map(|(media_type, blob, diff_id)| (media_type, blob.into(), diff_id)).collect();
        registry.add_image("hostile", "latest", &layers);
        let reference = registry.reference("hostile:latest");
        let scratch = scratch();
        let (cache, root) = (scratch.path().join("cache"), scratch.path().join("root"));
        Self { _registry: registry, reference, _scratch: scratch, cache, root }
    }

    /// One layer that is not compressed.
    async fn tar(entries: &[Vec<u8>]) -> Self {
        let mut tar = entries.concat();
        tar.resize(tar.len() + 1024, 0);
        let digest = Digest::of(&tar);
        Self::layers(vec![(TAR, tar, digest)]).await
    }

    fn mount(&self) -> Mount {
        Mount::new(&self.reference, &self.cache, &self.root, &["--wait"])
    }

    fn refused(&self) -> String {
        std::fs::create_dir_all(&self.root).unwrap();
        let output = snap().arg("mount").arg("--cache-dir").arg(&self.cache).arg(&self.reference).arg(&self.root).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("error: "), "{said}");
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_entries_in_one_directory() {
    const ENTRIES: u32 = 1_000_000;
    let mut blob = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut hasher = snap_digest::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(bytes);
        blob.write_all(bytes).unwrap();
    };
    for number in 0..ENTRIES {
        add(&header(&format!("many/{number:07}"), b'0', 0, ""));
    }
    add(&[0; 1024]);
    let served = Served::layers(vec![(TAR_ZSTD, blob.finish().unwrap(), hasher.finish())]).await;
    let mount = served.mount();
    let dir = mount.dir.join("many");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count() as u32, ENTRIES);
    for number in [0, 1, 499_999, ENTRIES - 1] {
        assert!(dir.join(format!("{number:07}")).is_file());
    }
    assert!(!dir.join("1000000").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_links_never_leave_the_root() {
    let served = Served::tar(&[
        file("../../above", b"above"),
        file("/absolute", b"absolute"),
        header("up", b'2', 0, "../../../etc").to_vec(),
        header("a", b'2', 0, "b").to_vec(),
        header("b", b'2', 0, "a").to_vec(),
        header("etc/", b'5', 0, "").to_vec(),
        // Through the symbolic link: into the image's own etc.
        file("up/inside", b"inside"),
    ])
    .await;
    let mount = served.mount();
    assert_eq!(std::fs::read(mount.dir.join("above")).unwrap(), b"above");
    assert_eq!(std::fs::read(mount.dir.join("absolute")).unwrap(), b"absolute");
    assert_eq!(std::fs::read(mount.dir.join("etc/inside")).unwrap(), b"inside");
    assert_eq!(std::fs::read_link(mount.dir.join("up")).unwrap(), PathBuf::from("../../../etc"));
    assert_eq!(std::fs::read(mount.dir.join("a")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_a_circle_of_links_is_refused_by_name() {
    let served = Served::tar(&[header("a", b'2', 0, "b").to_vec(), header("b", b'2', 0, "a").to_vec(), file("a/file", b"nowhere")]).await;
    let said = served.refused();
    assert!(said.contains("a/file"), "{said}");
}

/// Half a GiB in a few KiB, on a disk of 64 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_ends_at_what_the_disk_holds() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    const BYTES: u64 = 512 << 20;
    let mut blob = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut hasher = snap_digest::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(bytes);
        blob.write_all(bytes).unwrap();
    };
    add(&header("bomb", b'0', BYTES, ""));
    let mut noise = vec![0u8; 1 << 20];
    for at in (0..BYTES).step_by(noise.len()) {
        noise[..8].copy_from_slice(&at.to_le_bytes());
        add(&noise);
    }
    add(&[0; 1024]);
    let served = Served::layers(vec![(TAR_ZSTD, blob.finish().unwrap(), hasher.finish())]).await;
    std::fs::create_dir_all(&served.cache).unwrap();
    mount(Some("tmpfs"), &served.cache, Some("tmpfs"), MsFlags::empty(), Some("size=64m")).unwrap();
    let said = served.refused();
    umount2(&served.cache, MntFlags::MNT_DETACH).unwrap();
    assert!(said.contains("no space left"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_lies_about_a_layer_is_refused() {
    let mut tar = file("file", b"content");
    tar.resize(tar.len() + 1024, 0);
    let other = Digest::of(b"another stream");
    let served = Served::layers(vec![(TAR, tar, other)]).await;
    let said = served.refused();
    // For a layer that is not compressed blob and stream are one; whichever check strikes names both digests.
    assert!(said.contains(&other.to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_an_unknown_type_is_refused_by_its_type() {
    let served = Served::layers(vec![("application/vnd.example.layer+lzip", b"lzip?".to_vec(), Digest::of(b""))]).await;
    let said = served.refused();
    assert!(said.contains("application/vnd.example.layer+lzip"), "{said}");
}
