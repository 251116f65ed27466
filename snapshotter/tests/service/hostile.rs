//! Input that nobody sends by mistake.

use std::fs;

use snap_snapshotter::api::snapshots::{Info, PrepareSnapshotRequest};
use tonic::Code;

use crate::harness::{Labels, Rig, code, labels};

#[tokio::test]
async fn a_name_never_becomes_a_path() {
    let mut rig = Rig::start().await;
    let before = fs::read_dir(rig.dir.path()).unwrap().count();
    let names = ["..", "../../etc/passwd", "/", "/abs", "a/../b", "a\0b", "\0", " ", "\n", "rm-1", "1", "s", "records.redb", "é\u{202e}"];
    for name in names {
        rig.prepare(name, "", Labels::new()).await.unwrap();
        assert_eq!(rig.stat(name).await.unwrap().name, name);
    }
    let mut expected: Vec<String> = (1..=names.len()).map(|id| id.to_string()).collect();
    expected.sort();
    assert_eq!(rig.directories(), expected);
    assert_eq!(fs::read_dir(rig.dir.path()).unwrap().count(), before);
    for name in names {
        rig.remove(name).await.unwrap();
    }
    rig.cleanup().await.unwrap();
    assert_eq!(rig.directories(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_child_is_not_mistaken_for_the_child_of_a_parent_with_a_similar_name() {
    let mut rig = Rig::start().await;
    rig.committed("a", "").await;
    rig.committed("a\0", "").await;
    rig.committed("ab", "").await;
    rig.prepare("child", "a\0", Labels::new()).await.unwrap();
    rig.prepare("child of ab", "ab", Labels::new()).await.unwrap();
    rig.remove("a").await.unwrap();
    assert_eq!(code(rig.remove("a\0").await), Code::FailedPrecondition);
}

#[tokio::test]
async fn giant_requests_are_refused_and_the_next_one_is_answered() {
    let mut rig = Rig::start().await;
    assert_eq!(code(rig.prepare(&"k".repeat(5000), "", Labels::new()).await), Code::InvalidArgument);
    assert_eq!(code(rig.prepare("key", &"p".repeat(5000), Labels::new()).await), Code::InvalidArgument);
    let many = (0..1000).map(|n| (n.to_string(), "v".to_owned())).collect();
    assert_eq!(code(rig.prepare("key", "", many).await), Code::InvalidArgument);
    let huge = PrepareSnapshotRequest { key: "k".repeat(5 << 20), ..Default::default() };
    assert_eq!(code(rig.client.prepare(huge).await), Code::OutOfRange);
    let filters = vec!["name"; 1000];
    assert_eq!(code(rig.list(&filters).await), Code::InvalidArgument);
    rig.prepare("key", "", Labels::new()).await.unwrap();
}

#[tokio::test]
async fn an_update_with_timestamps_of_the_year_1_changes_labels_only() {
    let mut rig = Rig::start().await;
    rig.prepare("key", "", labels(&[("keep", "1"), ("drop", "1")])).await.unwrap();
    let before = rig.stat("key").await.unwrap();
    let year_1 = Some(prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 });
    let given = Info {
        name: "key".into(),
        parent: "invented".into(),
        kind: 99,
        created_at: year_1,
        updated_at: year_1,
        labels: labels(&[("new", "2")]),
    };
    let after = rig.update_with(given, &["labels.new", "labels.drop"]).await.unwrap();
    assert_eq!(after.labels, labels(&[("keep", "1"), ("new", "2")]));
    assert_eq!((after.parent, after.kind, after.created_at), (before.parent, before.kind, before.created_at));
}

#[tokio::test]
async fn ten_thousand_snapshots_are_listed() {
    let mut rig = Rig::start().await;
    // One synced transaction each would take minutes: the records are written through one that is not synced.
    rig = crate::restart::with_many_records(rig, 10_000).await;
    let found = rig.list(&[]).await.unwrap();
    assert_eq!(found.len(), 10_000);
    assert_eq!(rig.list(&["name==snapshot-09999"]).await.unwrap().len(), 1);
    let big = found.iter().filter(|info| info.labels.len() == 1).count();
    assert_eq!(big, 10_000);
}
