//! Ordinary snapshots from Prepare to Cleanup.

use std::fs;
use std::path::Path;

use snap_snapshotter::api::snapshots::Kind;

use crate::harness::{Labels, Rig, labels};

#[tokio::test]
async fn a_commit_keeps_the_directory_replaces_the_labels_and_stores_the_usage() {
    let mut rig = Rig::start().await;
    let mounts = rig.prepare("key", "", labels(&[("old", "1"), ("empty", "")])).await.unwrap();
    assert_eq!(rig.stat("key").await.unwrap().labels, labels(&[("old", "1")]));
    let content = Path::new(&mounts[0].source).to_path_buf();
    fs::write(content.join("file"), vec![1; 300_000]).unwrap();
    let active = rig.usage("key").await.unwrap();
    assert!(active.size >= 300_000 && active.inodes == 2, "{active:?}");
    rig.commit("key", "name", labels(&[("new", "1")])).await.unwrap();
    let info = rig.stat("name").await.unwrap();
    assert_eq!((info.kind(), &info.labels), (Kind::Committed, &labels(&[("new", "1")])));
    fs::write(content.join("more"), vec![1; 300_000]).unwrap();
    assert_eq!(rig.usage("name").await.unwrap(), active);
    let view = rig.view("view", "name").await.unwrap();
    assert_eq!((view[0].r#type.as_str(), Path::new(&view[0].source)), ("bind", content.as_path()));
    assert_eq!(rig.usage("view").await.unwrap().size, 0);
}

#[tokio::test]
async fn removing_is_renaming_and_cleanup_deletes() {
    let mut rig = Rig::start().await;
    rig.committed("base", "").await;
    rig.prepare("key", "base", Labels::new()).await.unwrap();
    rig.remove("key").await.unwrap();
    assert_eq!(rig.directories(), ["1", "rm-2"]);
    rig.cleanup().await.unwrap();
    assert_eq!(rig.directories(), ["1"]);
    rig.remove("base").await.unwrap();
    rig.cleanup().await.unwrap();
    assert_eq!(rig.directories(), [] as [&str; 0]);
    assert_eq!(rig.list(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn filters_choose_what_is_listed() {
    let mut rig = Rig::start().await;
    rig.committed("base", "").await;
    rig.prepare("key", "base", labels(&[("a/b", "c")])).await.unwrap();
    let names = |infos: Vec<snap_snapshotter::api::snapshots::Info>| infos.into_iter().map(|info| info.name).collect::<Vec<_>>();
    assert_eq!(names(rig.list(&[r#"parent=="base",labels."a/b"==c"#]).await.unwrap()), ["key"]);
    assert_eq!(names(rig.list(&["kind==committed"]).await.unwrap()), ["base"]);
    assert_eq!(names(rig.list(&["kind==committed", "name==key"]).await.unwrap()), ["base", "key"]);
}

#[tokio::test]
async fn the_owner_of_the_parents_root_or_of_the_mapping_owns_the_new_root() {
    use std::os::unix::fs::{MetadataExt, lchown};
    let mut rig = Rig::start().await;
    let base = rig.prepare("making", "", Labels::new()).await.unwrap();
    lchown(&base[0].source, Some(55), Some(66)).unwrap();
    rig.commit("making", "base", Labels::new()).await.unwrap();
    rig.prepare("plain", "base", Labels::new()).await.unwrap();
    let mapping = labels(&[("containerd.io/snapshot/uidmapping", "0:1000:10"), ("containerd.io/snapshot/gidmapping", "0:2000:10")]);
    let mounts = rig.prepare("mapped", "base", mapping).await.unwrap();
    assert_eq!(mounts[0].options[..2], ["uidmap=0:1000:10", "gidmap=0:2000:10"]);
    let owner = |id: u32| {
        let metadata = fs::metadata(rig.dir.path().join(format!("records/s/{id}/fs"))).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!((owner(2), owner(3)), ((55, 66), (1000, 2000)));
}
