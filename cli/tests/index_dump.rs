//! `snap index dump`: a layer made with tar, in, and its entries out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use snap_digest::Digest;

/// A folder with one of everything that needs no root.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("dir")).unwrap();
    fs::write(at.join("dir/file"), "content\n").unwrap();
    fs::write(at.join("empty"), "").unwrap();
    fs::hard_link(at.join("dir/file"), at.join("link")).unwrap();
    symlink("dir/file", at.join("symlink")).unwrap();
    let sparse = fs::File::create(at.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 1 << 20).unwrap();
}

fn tar(of: &Path, to: &Path, further: &[&str]) {
    let made = Command::new("tar")
        .args(["--create", "--sort=name", "--mtime=@1000000000", "--owner=7:7", "--group=8:8", "--mode=a=rX,u+w"])
        .args(further)
        .arg("--file")
        .arg(to)
        .arg("-C")
        .arg(of)
        .arg(".")
        .status();
    assert!(made.expect("tar is needed").success());
}

fn dump(file: &Path, further: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snap")).args(["index", "dump"]).args(further).arg(file).stdin(Stdio::null()).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn layer(folder: &tempfile::TempDir, name: &str, further: &[&str]) -> PathBuf {
    let root = folder.path().join("root");
    if !root.exists() {
        tree(&root);
    }
    let file = folder.path().join(name);
    tar(&root, &file, further);
    file
}

#[test]
fn a_layer_is_listed_with_its_digests() {
    let folder = tempfile::tempdir().unwrap();
    let plain = lines(&dump(&layer(&folder, "layer.tar", &["--sparse"]), &["--hash"]));
    let names: Vec<&str> = plain.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["./", "dir/", "dir/file", "empty", "link", "sparse", "symlink"]);
    let line = |name: &str| &plain[names.iter().position(|listed| *listed == name).unwrap()];
    assert_eq!((&line("dir/")["type"], &line("dir/")["mode"]), (&"dir".into(), &"0o755".into()));
    let file = line("dir/file");
    assert_eq!(file["sha256"], Digest::of(b"content\n").hex());
    assert_eq!((&file["size"], &file["uid"], &file["gid"], &file["mtime"]), (&8.into(), &7.into(), &8.into(), &1_000_000_000.into()));
    assert_eq!(line("empty")["sha256"], Digest::of(b"").hex());
    assert_eq!(
        (&line("link")["type"], &line("link")["link"], &line("link")["sha256"]),
        (&"hardlink".into(), &"dir/file".into(), &Value::Null)
    );
    assert_eq!((&line("symlink")["type"], &line("symlink")["link"]), (&"symlink".into(), &"dir/file".into()));
    let mut holes = vec![0; 1 << 20];
    holes.extend_from_slice(b"end");
    assert_eq!((&line("sparse")["size"], &line("sparse")["sha256"]), (&holes.len().into(), &Digest::of(&holes).hex().into()));

    let packed = lines(&dump(&layer(&folder, "layer.tar.gz", &["--sparse", "--gzip"]), &["--hash"]));
    assert_eq!(packed, plain, "the compression changes nothing");
}

#[test]
fn without_hash_no_digest_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let listed = lines(&dump(&layer(&folder, "layer.tar", &[]), &["--media-type", "application/vnd.oci.image.layer.v1.tar"]));
    assert!(!listed.is_empty() && listed.iter().all(|line| line["sha256"].is_null()));
}

#[test]
fn what_is_no_layer_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = layer(&folder, "layer.tar.gz", &["--gzip"]);
    let refused = |output: Output, said: &[&str]| {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty() && said.iter().all(|words| stderr.contains(words)), "{stderr}");
    };
    let mut cut = fs::read(&file).unwrap();
    cut.truncate(cut.len() / 2);
    fs::write(folder.path().join("cut"), cut).unwrap();
    refused(dump(&folder.path().join("cut"), &[]), &["error: cannot index", "caused by: "]);
    fs::write(folder.path().join("text"), "no tar at all, but long enough to be more than a block; ".repeat(20)).unwrap();
    refused(dump(&folder.path().join("text"), &[]), &["error: cannot index"]);
    refused(dump(&folder.path().join("none"), &[]), &["error: cannot open", "No such file"]);
    refused(dump(&file, &["--media-type", "text/plain"]), &["no media type of a layer", "hint: "]);
    refused(dump(&file, &["--annotation", "containerd.io/snapshot/stargz/toc.digest=x"]), &["no digest"]);
}

#[test]
fn an_annotation_without_a_table_of_contents_is_told_and_left_aside() {
    let folder = tempfile::tempdir().unwrap();
    let file = layer(&folder, "layer.tar.gz", &["--gzip"]);
    let annotation = format!("containerd.io/snapshot/stargz/toc.digest={}", Digest::of(b""));
    let output = dump(&file, &["--annotation", &annotation]);
    assert_eq!(lines(&output), lines(&dump(&file, &[])));
    assert!(String::from_utf8(output.stderr).unwrap().contains("has no eStargz footer"));
}
