//! The seeds: one small, valid input and a few turns of it for each target.

use serde_json::json;
use snap_digest::Digest;
use snap_index::{Attributes, Builder, Check, Chunk, ChunkPlan, Codec, EntryKind, Extent, Point};

use crate::estargz::members;
use crate::estargz_writer::gzip;

/// Target, file name and bytes of each.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let tar = tar();
    let (estargz, _) = members().finish();
    let index = index_file();
    let behind_length = |file: &[u8]| [&(file.len() as u16).to_le_bytes()[..], file].concat();
    vec![
        ("tar_pass", "tar", tar.clone()),
        ("gzip_pass", "gzip", gzip(&[], &tar)),
        ("gzip_pass", "two-members", [gzip(b"XX\x01\0.", &tar[..700]), gzip(&[], &tar[700..])].concat()),
        ("zstd_pass", "zstd", zstd(&tar)),
        ("zstd_pass", "two-frames", [zstd(&tar[..512]), SKIPPABLE.to_vec(), zstd(&tar[512..])].concat()),
        ("estargz", "toc", [b"\0", toc().as_bytes()].concat()),
        ("estargz", "blob", [b"\x01", &estargz[..]].concat()),
        ("index_file", "index", index.clone()),
        ("tree_indexes", "two", [behind_length(&index), behind_length(&index)].concat()),
        ("tree", "layers", TREE.to_vec()),
        ("decode_point", "stored", [&[0, 2, 0, 4, 0, 0, 0][..], b"0123456789"].concat()),
        ("decode_point", "gzip", [&[1, 1, 0, 9, 0, 0, 0][..], &gzip(&[], b"0123456789012345678")].concat()),
        ("decode_point", "deflate", [&[2, 1, 0, 3, 0, 0, 0][..], &gzip(&[], b"0123456789")[10..]].concat()),
        ("decode_point", "zstd", [&[3, 1, 0, 3, 0, 0, 0][..], &zstd(b"0123456789")].concat()),
        ("documents", "index", image_index().into_bytes()),
        ("documents", "manifest", manifest().into_bytes()),
        ("documents", "config", CONFIG.as_bytes().to_vec()),
        ("documents", "schema1", schema1().into_bytes()),
        ("documents", "schema1-signed", signed(&schema1()).into_bytes()),
    ]
}

/// Directory a, file a/b, a hard link, an opaque marker, a whiteout, and a link to the lower layer.
const TREE: [u8; 31] = [
    0x00, 0x80, 0x07, 0x00, 0x81, 0x03, 0x8b, 0x00, 0x81, 0x02, 0x8e, 0x0f, 0x8e, 0xff, 0x07, 0x00, 0x88, 0x07, 0x86, 0x07, 0x0b, 0x80,
    0xff, 0x03, 0x8c, 0x00, 0x81, 0x07, 0x00, 0x80, 0xff,
];

const SKIPPABLE: &[u8] = b"\x50\x2a\x4d\x18\x03\0\0\0abc";

/// A zstd frame of one raw block.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let single_segment_with_4_byte_size = 0xa0;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, single_segment_with_4_byte_size];
    frame.extend((bytes.len() as u32).to_le_bytes());
    let last_raw_block = (bytes.len() as u32) << 3 | 1;
    frame.extend(&last_raw_block.to_le_bytes()[..3]);
    frame.extend_from_slice(bytes);
    frame
}

fn tar() -> Vec<u8> {
    let mut tar = Vec::new();
    let mut entry = |name: &str, kind: u8, link: &str, content: &[u8]| {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend(header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    };
    entry("d/", b'5', "", b"");
    entry("pax", b'x', "", b"32 SCHILY.xattr.user.color=blue\n22 mtime=1700000000.2\n");
    entry("d/f", b'0', "", b"content");
    entry("d/l", b'1', "d/f", b"");
    entry("d/s", b'2', "f", b"");
    entry("d/.wh.gone", b'0', "", b"");
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn toc() -> String {
    let mut estargz = members();
    estargz.entry(json!({"name": "d/", "type": "dir", "mode": 493, "modtime": "2023-11-14T22:13:20Z", "xattrs": {"user.a": "AA=="}}));
    estargz.entry(json!({"name": "d/s", "type": "symlink", "linkName": "x"}));
    estargz.entry(json!({"name": "d/l", "type": "hardlink", "linkName": "file"}));
    estargz.toc().to_string()
}

fn index_file() -> Vec<u8> {
    let layer = Digest::of(b"");
    let mut builder = Builder::new(layer, 100);
    let extent = |file_offset, data_offset, bytes| Extent { file_offset, data_offset, bytes };
    let xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
    let entries = [
        ("d", EntryKind::Directory),
        ("d/f", EntryKind::File { size_bytes: 40, extents: vec![extent(0, 0, 20), extent(30, 20, 10)] }),
        ("d/l", EntryKind::HardLink { target: b"d/f".to_vec() }),
        ("d/lower", EntryKind::HardLink { target: b"d/f2".to_vec() }),
        ("d/s", EntryKind::Symlink { target: b"f".to_vec() }),
        ("d/c", EntryKind::CharDevice { major: 1, minor: 3 }),
        ("d/.wh.x", EntryKind::Fifo),
        ("d/f2", EntryKind::Fifo),
    ];
    for (path, kind) in entries {
        builder.add(path.as_bytes(), kind, Attributes { xattrs: xattrs.clone(), ..Attributes::default() }).expect("a sound entry");
    }
    let chunk = |number: u32| Chunk { data_offset: u64::from(number) * 15, bytes: 15, point: number, skip: 5, check: Check::Sha256(layer) };
    let point = |blob_offset| Point { blob_offset, blob_bytes: 50, decoded_bytes: 20, codec: Codec::Gzip, window: Vec::new() };
    let plan = ChunkPlan { data_bytes: 30, chunks: vec![chunk(0), chunk(1)], points: vec![point(0), point(50)] };
    builder.finish(plan, None).expect("a sound layer")
}

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["/bin/sh"]},"rootfs":{"type":"layers",
    "diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;

fn image_index() -> String {
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1, "digest": Digest::of(b"m"),
        "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}});
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}).to_string()
}

fn manifest() -> String {
    let blob = |media_type: &str| json!({"mediaType": media_type, "size": 1, "digest": Digest::of(b"b"), "annotations": {"a": "b"}});
    let layer = blob("application/vnd.oci.image.layer.v1.tar+gzip");
    let config = blob("application/vnd.oci.image.config.v1+json");
    json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string()
}

fn schema1() -> String {
    let entry = |text: &str| json!({"v1Compatibility": text});
    let (top, bottom) = (r#"{"id":"2","parent":"1","os":"linux","throwaway":true,"config":{"Cmd":["sh"]}}"#, r#"{"id":"1"}"#);
    let blob = |bytes: &[u8]| json!({"blobSum": Digest::of(bytes)});
    json!({"schemaVersion": 1, "name": "a", "tag": "1", "architecture": "amd64", "fsLayers": [blob(b"2"), blob(b"1")],
        "history": [entry(top), entry(bottom)]})
    .to_string()
}

/// With a signature of nobody's: what it says of the text is all that counts.
fn signed(text: &str) -> String {
    let head = text.strip_suffix('}').expect("an object");
    // {"formatLength":N,"formatTail":"fQ"}, of which the tail is the closing brace.
    let protected = base64_url(format!(r#"{{"formatLength":{},"formatTail":"fQ"}}"#, head.len()).as_bytes());
    format!(r#"{head},"signatures":[{{"protected":"{protected}","signature":"AA"}}]}}"#)
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |group: &[u8]| {
        let word = group.iter().fold(0, |word: u32, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        (0..=group.len()).map(move |place| char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize])).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}
