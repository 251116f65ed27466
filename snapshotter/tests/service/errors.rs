//! Every refusal has the code that containerd acts on.

use snap_snapshotter::api::snapshots::{CommitSnapshotRequest, UpdateSnapshotRequest};
use tonic::Code;

use crate::harness::{Labels, Rig, code, labels};

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let mut rig = Rig::start().await;
    assert_eq!(code(rig.stat("none").await), Code::NotFound);
    assert_eq!(code(rig.mounts("none").await), Code::NotFound);
    assert_eq!(code(rig.usage("none").await), Code::NotFound);
    assert_eq!(code(rig.remove("none").await), Code::NotFound);
    assert_eq!(code(rig.commit("none", "name", Labels::new()).await), Code::NotFound);
    assert_eq!(code(rig.update("none", Labels::new(), &[]).await), Code::NotFound);
    assert_eq!(code(rig.prepare("key", "none", Labels::new()).await), Code::NotFound);
    assert_eq!(code(rig.view("key", "none").await), Code::NotFound);
    assert_eq!(rig.list(&[]).await.unwrap(), []);
    assert_eq!(rig.directories(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_name_is_given_once() {
    let mut rig = Rig::start().await;
    rig.committed("base", "").await;
    rig.prepare("key", "", Labels::new()).await.unwrap();
    assert_eq!(code(rig.prepare("key", "", Labels::new()).await), Code::AlreadyExists);
    assert_eq!(code(rig.view("key", "base").await), Code::AlreadyExists);
    assert_eq!(code(rig.commit("key", "base", Labels::new()).await), Code::AlreadyExists);
    assert_eq!(code(rig.commit("key", "key", Labels::new()).await), Code::AlreadyExists);
    assert_eq!(rig.directories(), ["1", "2"]);
}

#[tokio::test]
async fn only_committed_snapshots_are_parents_and_only_active_ones_are_committed() {
    let mut rig = Rig::start().await;
    rig.committed("base", "").await;
    rig.prepare("active", "base", Labels::new()).await.unwrap();
    rig.view("view", "base").await.unwrap();
    assert_eq!(code(rig.prepare("key", "active", Labels::new()).await), Code::InvalidArgument);
    assert_eq!(code(rig.view("key", "view").await), Code::InvalidArgument);
    assert_eq!(code(rig.commit("view", "name", Labels::new()).await), Code::FailedPrecondition);
    assert_eq!(code(rig.commit("base", "name", Labels::new()).await), Code::FailedPrecondition);
    assert_eq!(code(rig.mounts("base").await), Code::FailedPrecondition);
    assert_eq!(code(rig.remove("base").await), Code::FailedPrecondition);
    let onto = CommitSnapshotRequest { key: "active".into(), name: "name".into(), parent: "other".into(), ..Default::default() };
    assert_eq!(code(rig.client.commit(onto).await), Code::FailedPrecondition);
}

#[tokio::test]
async fn names_labels_fields_and_filters_are_checked() {
    let mut rig = Rig::start().await;
    rig.prepare("key", "", Labels::new()).await.unwrap();
    assert_eq!(code(rig.prepare("", "", Labels::new()).await), Code::InvalidArgument);
    assert_eq!(code(rig.view("", "").await), Code::InvalidArgument);
    assert_eq!(code(rig.commit("key", "", Labels::new()).await), Code::InvalidArgument);
    assert_eq!(code(rig.update("", Labels::new(), &[]).await), Code::InvalidArgument);
    let long = labels(&[("key", &"v".repeat(4094))]);
    assert_eq!(code(rig.prepare("other", "", long.clone()).await), Code::InvalidArgument);
    assert_eq!(code(rig.commit("key", "name", long.clone()).await), Code::InvalidArgument);
    assert_eq!(code(rig.update("key", long, &["labels"]).await), Code::InvalidArgument);
    assert_eq!(code(rig.update("key", Labels::new(), &["kind"]).await), Code::InvalidArgument);
    assert_eq!(code(rig.client.update(UpdateSnapshotRequest::default()).await), Code::InvalidArgument);
    assert_eq!(code(rig.list(&["name=="]).await), Code::InvalidArgument);
    assert_eq!(code(rig.list(&["name~=("]).await), Code::InvalidArgument);
    let mapping = labels(&[("containerd.io/snapshot/uidmapping", "nonsense")]);
    assert_eq!(code(rig.prepare("mapped", "", mapping).await), Code::InvalidArgument);
    assert_eq!(rig.list(&[]).await.unwrap().len(), 1);
}
