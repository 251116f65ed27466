//! Layers that others wrote, streamed. `SNAP_VECTORS` names the folder that holds them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blobs;
mod tar_writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blobs::{check_points, open, stream};
use serde_json::Value;
use snap_digest::Digest;
use snap_index::{Inode, InodeKind, LayerIndex, Target, device_number};

fn vectors() -> Option<PathBuf> {
    let folder = std::env::var_os("SNAP_VECTORS").map(PathBuf::from);
    if folder.is_none() {
        println!("SNAP_VECTORS is not set: skipped");
    }
    folder
}

fn json(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_else(|| panic!("{key} of {entry}"))
}

fn lookup<'a>(index: &'a LayerIndex, path: &str) -> Option<Target<'a>> {
    let mut names = path.split('/').filter(|name| !matches!(*name, "" | "."));
    names.try_fold(Target::Inode(LayerIndex::ROOT), |at, name| match at {
        Target::Inode(number) => index.lookup(&index.inode(number), name.as_bytes()),
        Target::Whiteout | Target::LowerLink(_) => None,
    })
}

fn inode(index: &LayerIndex, path: &str) -> Inode {
    match lookup(index, path) {
        Some(Target::Inode(number)) => index.inode(number),
        other => panic!("{path}: {other:?}"),
    }
}

fn content(index: &LayerIndex, data: &[u8], file: &Inode) -> Vec<u8> {
    let mut bytes = vec![0; file.size_bytes() as usize];
    for extent in index.extents(file) {
        let from = &data[extent.data_offset as usize..][..extent.bytes as usize];
        bytes[extent.file_offset as usize..][..from.len()].copy_from_slice(from);
    }
    bytes
}

fn check_whiteout(index: &LayerIndex, path: &str, hidden: &str) {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    match hidden {
        ".wh..opq" => assert!(inode(index, directory).is_opaque(), "{path}"),
        hidden => assert_eq!(lookup(index, &format!("{directory}/{hidden}")), Some(Target::Whiteout), "{path}"),
    }
}

fn check_entry(index: &LayerIndex, data: &[u8], entry: &Value) {
    let path = text(entry, "name");
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap();
    if let Some(hidden) = name.strip_prefix(".wh.") {
        return check_whiteout(index, path, hidden);
    }
    let found = inode(index, path);
    let kind = match text(entry, "type") {
        "hardlink" => {
            assert_eq!(lookup(index, path), lookup(index, text(entry, "link")), "{path}");
            return assert!(found.nlink() > 1, "{path}");
        }
        "dir" => InodeKind::Directory,
        "reg" => InodeKind::File,
        "symlink" => InodeKind::Symlink,
        "char" => InodeKind::CharDevice,
        "block" => InodeKind::BlockDevice,
        "fifo" => InodeKind::Fifo,
        other => panic!("{path} is a {other}"),
    };
    assert_eq!(found.kind(), kind, "{path}");
    let mode = u32::from_str_radix(text(entry, "mode").trim_start_matches("0o"), 8).unwrap();
    let owner = (entry["uid"].as_u64().unwrap() as u32, entry["gid"].as_u64().unwrap() as u32);
    assert_eq!((found.mode() & 0o7777, (found.uid(), found.gid())), (mode, owner), "{path}");
    let mtime = found.mtime().seconds as f64 + f64::from(found.mtime().nanoseconds) / 1e9;
    // The truth is a double, which at today's times is exact to a quarter of a microsecond.
    assert!((mtime - entry["mtime"].as_f64().unwrap()).abs() < 1e-6, "{path}: {mtime}");
    let device = entry["dev"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as u32).collect::<Vec<_>>();
    assert_eq!(Some(found.rdev()), device_number(device[0], device[1]), "{path}");
    assert_eq!(String::from_utf8_lossy(index.symlink_target(&found)), text(entry, "link"), "{path}");
    let xattrs: BTreeMap<_, _> = index.xattrs(&found).map(|(name, value)| (String::from_utf8_lossy(name), value)).collect();
    let expected = entry["xattrs"].as_object().unwrap();
    assert_eq!(xattrs.len(), expected.len(), "{path}");
    for (name, value) in expected {
        let found = xattrs[name.as_str()];
        assert!(value.as_str() == Some(&String::from_utf8_lossy(found)), "{path}: {name} is {found:?}, not {value}");
    }
    if kind == InodeKind::File {
        assert_eq!(found.size_bytes(), entry["size"].as_u64().unwrap(), "{path}");
        assert_eq!(Digest::of(&content(index, data, &found)).hex(), text(entry, "sha256"), "{path}");
    }
}

#[test]
fn the_rich_layer_is_all_there_as_gzip_and_as_zstd() {
    let Some(vectors) = vectors() else { return };
    let truth = json(&vectors.join("layers/rich.json"));
    assert!(truth.len() > 1500);
    for name in ["rich.tar.gz", "rich.tar.zst"] {
        let blob = std::fs::read(vectors.join("layers").join(name)).unwrap();
        let (layer, data) = stream(&blob, 1 << 20).unwrap();
        let index = open(&layer, &blob);
        check_points(&index, &blob, &data);
        truth.iter().for_each(|entry| check_entry(&index, &data, entry));
    }
}

#[test]
fn layers_with_a_toc_stream_as_plain_ones() {
    let Some(vectors) = vectors() else { return };
    let truth = json(&vectors.join("layers/rich.json"));
    for descriptor in json(&vectors.join("layers/descriptors.json")) {
        let blob = std::fs::read(vectors.join("layers").join(text(&descriptor, "file"))).unwrap();
        let (layer, data) = stream(&blob, 1 << 20).unwrap();
        let index = open(&layer, &blob);
        check_points(&index, &blob, &data);
        truth.iter().for_each(|entry| check_entry(&index, &data, entry));
    }
}

#[test]
fn the_ztoc_layers_stream_and_decode() {
    let Some(vectors) = vectors() else { return };
    let mut layers: Vec<_> = json(&vectors.join("ztoc/manifest.json")).iter().map(|pair| text(pair, "input").to_owned()).collect();
    assert_eq!(layers.len(), 27);
    layers.dedup();
    for name in layers {
        let blob = std::fs::read(vectors.join("ztoc").join(&name)).unwrap();
        for span_bytes in [512, 4096, 65_536, 4 << 20] {
            let (layer, data) = stream(&blob, span_bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            check_points(&open(&layer, &blob), &blob, &data);
        }
    }
}
