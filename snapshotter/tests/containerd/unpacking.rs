//! A layer unpacked by containerd into a snapshot of its own snapshotter.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use snap_digest::Digest;
use snap_registry::Descriptor;
use snap_snapshotter::containerd::{Committed, ContainerdErrorKind, Prepared, SnapshotInfo, SnapshotKind};

use crate::bare::{Bare, LAYER, labels, on_each_containerd};
use crate::daemon::succeed;

on_each_containerd! { a_layer_becomes_a_snapshot what_cannot_be_unpacked_is_refused }

/// A layer of one file, compressed, and its diff ID.
fn layer(dir: &Path) -> (Bytes, Digest) {
    let files = dir.join("files");
    std::fs::create_dir_all(files.join("etc")).unwrap();
    std::fs::write(files.join("etc/hello"), "from a layer\n").unwrap();
    let tar = dir.join("layer.tar");
    succeed(Command::new("tar").arg("-C").arg(&files).arg("-cf").arg(&tar).arg("."));
    let diff_id = Digest::of(&std::fs::read(&tar).unwrap());
    succeed(Command::new("gzip").arg(&tar));
    (std::fs::read(dir.join("layer.tar.gz")).unwrap().into(), diff_id)
}

async fn a_layer_becomes_a_snapshot(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, diff_id) = layer(bare.dir.path());
    let descriptor = Descriptor::of(&bytes, LAYER);
    containerd.write_content(&descriptor, bytes, &labels(&[])).await.unwrap();
    let snapshots = containerd.snapshots("overlayfs");
    let chain_id = diff_id.to_string();
    assert_eq!(snapshots.stat(&chain_id).await.unwrap(), None);
    assert_eq!(snapshots.list(&[]).await.unwrap(), []);

    let noted = labels(&[("containerd.io/snapshot/note", "1")]);
    let Prepared::Mounts(mounts) = snapshots.prepare("unpacking", None, &noted).await.unwrap() else { panic!("it exists") };
    assert_eq!(snapshots.mounts("unpacking").await.unwrap(), mounts);
    assert_eq!(snapshots.prepare("unpacking", None, &labels(&[])).await.unwrap(), Prepared::AlreadyExists);
    assert_eq!(containerd.apply(&descriptor, &mounts).await.unwrap(), diff_id);
    // A first layer is a directory that is mounted as it is.
    assert_eq!(std::fs::read_to_string(Path::new(&mounts[0].source).join("etc/hello")).unwrap(), "from a layer\n");
    let active = SnapshotInfo { name: "unpacking".to_owned(), parent: None, kind: SnapshotKind::Active, labels: noted };
    assert_eq!(snapshots.stat("unpacking").await.unwrap(), Some(active));

    let kept = labels(&[("containerd.io/gc.root", "now")]);
    assert_eq!(snapshots.commit("unpacking", &chain_id, &kept).await.unwrap(), Committed::Done);
    let committed = SnapshotInfo { name: chain_id.clone(), parent: None, kind: SnapshotKind::Committed, labels: kept };
    assert_eq!(snapshots.stat(&chain_id).await.unwrap(), Some(committed.clone()));
    assert_eq!(snapshots.stat("unpacking").await.unwrap(), None);

    let Prepared::Mounts(mounts) = snapshots.prepare("above", Some(&chain_id), &labels(&[])).await.unwrap() else { panic!("it exists") };
    assert_eq!(mounts[0].r#type, "overlay", "{mounts:?}");
    let above = SnapshotInfo { name: "above".to_owned(), parent: Some(chain_id.clone()), kind: SnapshotKind::Active, labels: labels(&[]) };
    assert_eq!(snapshots.list(&[]).await.unwrap(), [above.clone(), committed]);
    assert_eq!(snapshots.list(&[format!("parent==\"{chain_id}\"")]).await.unwrap(), [above]);
    assert_eq!(snapshots.commit("above", &chain_id, &labels(&[])).await.unwrap(), Committed::AlreadyExists);
    let refused = snapshots.remove(&chain_id).await.unwrap_err();
    assert_eq!(refused.kind(), ContainerdErrorKind::Other, "{refused}");
    for name in ["above", &chain_id, "above"] {
        snapshots.remove(name).await.unwrap();
    }
    assert_eq!(snapshots.list(&[]).await.unwrap(), []);
}

async fn what_cannot_be_unpacked_is_refused(bare: Bare) {
    let containerd = bare.leased("held").await;
    let snapshots = containerd.snapshots("overlayfs");
    let orphan = snapshots.prepare("unpacking", Some("no such parent"), &labels(&[])).await.unwrap_err();
    assert_eq!(orphan.kind(), ContainerdErrorKind::NotFound, "{orphan}");
    let Prepared::Mounts(mounts) = snapshots.prepare("unpacking", None, &labels(&[])).await.unwrap() else { panic!("it exists") };
    let noise = Bytes::from_static(b"this is no gzip stream");
    let descriptor = Descriptor::of(&noise, LAYER);
    let absent = containerd.apply(&descriptor, &mounts).await.unwrap_err();
    assert_eq!(absent.kind(), ContainerdErrorKind::NotFound, "{absent}");
    containerd.write_content(&descriptor, noise, &labels(&[])).await.unwrap();
    let refused = containerd.apply(&descriptor, &mounts).await.unwrap_err();
    assert_eq!(refused.kind(), ContainerdErrorKind::Other, "{refused}");
    let doing = format!("cannot unpack the layer {}: containerd says: ", descriptor.digest);
    assert!(refused.to_string().starts_with(&doing), "{refused}");

    let unknown = containerd.snapshots("no-such-snapshotter").stat("unpacking").await.unwrap_err();
    assert_eq!(unknown.kind(), ContainerdErrorKind::Other, "{unknown}");
}
