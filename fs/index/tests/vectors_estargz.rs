//! eStargz layers that the format's reference implementation wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snap_digest::Digest;
use snap_index::{EstargzTail, InodeKind, LayerIndex, TOC_DIGEST_ANNOTATION, dump, estargz_tail_bytes, open_estargz};

use support::{content_of, data_of};

fn vectors() -> Option<PathBuf> {
    let folder = std::env::var_os("SNAP_VECTORS");
    if folder.is_none() {
        println!("SNAP_VECTORS is not set: the reference implementations' layers are not compared");
    }
    folder.map(|folder| Path::new(&folder).join("layers"))
}

fn json(path: PathBuf) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

/// Opens a layer as from a registry: the tail first, then what that says is missing.
fn open(folder: &Path, file: &str) -> (LayerIndex, Vec<u8>) {
    let descriptors = json(folder.join("descriptors.json"));
    let descriptor = descriptors.iter().find(|descriptor| descriptor["file"] == file).unwrap();
    let digest = |value: &Value| value.as_str().unwrap().parse::<Digest>().unwrap();
    let (layer, toc) = (digest(&descriptor["digest"]), digest(&descriptor["annotations"][TOC_DIGEST_ANNOTATION]));
    let blob = std::fs::read(folder.join(file)).unwrap();
    let end = blob.len() as u64;
    assert_eq!(Digest::of(&blob), layer);
    let tail = &blob[(end - estargz_tail_bytes(end)) as usize..];
    let EstargzTail::Index(index) = open_estargz(&layer, end, tail, &toc).unwrap() else { panic!("one request is enough for {file}") };
    let EstargzTail::Need(range) = open_estargz(&layer, end, &blob[blob.len() - 100..], &toc).unwrap() else {
        panic!("100 bytes are not enough")
    };
    let again = open_estargz(&layer, end, &blob[range.start as usize..], &toc).unwrap();
    assert_eq!(again, EstargzTail::Index(index.clone()));
    (LayerIndex::open(Box::new(index), &layer).unwrap(), blob)
}

/// What the layer's list says of a name that must come out, hard links as their target.
fn expected(entries: &[Value]) -> HashMap<String, Value> {
    let by_name: HashMap<&str, &Value> = entries.iter().map(|entry| (entry["name"].as_str().unwrap(), entry)).collect();
    let resolve = |entry: &Value| {
        let mut whole = if entry["type"] == "hardlink" { by_name[entry["link"].as_str().unwrap()].clone() } else { entry.clone() };
        whole["name"] = entry["name"].clone();
        // eStargz keeps whole seconds, rounded.
        whole["mtime"] = Value::from(whole["mtime"].as_f64().unwrap().round() as i64);
        whole
    };
    entries.iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), resolve(entry))).collect()
}

/// What the index says, hard links as their target, with digests of what was decoded.
fn found(index: &LayerIndex, data: &[u8]) -> HashMap<String, Value> {
    let mut lines: HashMap<String, Value> = HashMap::new();
    for (mut line, inode) in dump(index) {
        if let Some(inode) = inode.filter(|inode| inode.kind() == InodeKind::File) {
            line.sha256 = Some(Digest::of(&content_of(index, &inode, data)).hex());
        }
        let mut value = serde_json::to_value(&line).unwrap();
        if line.kind == "hardlink" {
            value = lines[&line.link].clone();
            value["name"] = Value::from(line.name.clone());
        }
        assert!(lines.insert(line.name, value).is_none());
    }
    lines
}

#[test]
fn reference_layers_hold_what_their_list_says() {
    let Some(folder) = vectors() else { return };
    let expected = expected(&json(folder.join("rich.json")));
    for file in ["rich.estargz", "rich-prefetch.estargz"] {
        let (index, blob) = open(&folder, file);
        let data = data_of(&index, &blob).unwrap();
        let found = found(&index, &data);
        for (name, mut entry) in expected.clone() {
            let line = found.get(&name).unwrap_or_else(|| panic!("{file} has no {name}"));
            if name.contains(".wh.") {
                // A whiteout has no attributes in an index.
                assert_eq!((&line["type"], &line["size"]), (&entry["type"], &entry["size"]), "{file}: {name}");
                continue;
            }
            if entry["type"] != "reg" {
                entry["sha256"] = Value::Null;
            }
            assert_eq!(*line, entry, "{file}");
        }
        assert_eq!(found.len(), expected.len(), "{file}: nothing else, and no landmark");
    }
}
