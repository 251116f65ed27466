//! Layers that are served instead of unpacked.

use std::sync::atomic::Ordering;

use snap_snapshotter::api::snapshots::Kind;
use snap_snapshotter::{DECLINED_LABEL, LAYER_DIGEST_LABEL, OPENED_BY_LABEL};
use tonic::Code;

use crate::harness::{Labels, REF, Rig, UNKNOWN_KIND, code, cri_labels, digest, labels};

#[tokio::test]
async fn a_layer_that_is_served_is_found_the_way_containerd_looks_for_it() {
    let mut rig = Rig::start().await;
    rig.served(1, "").await;
    rig.served(2, &digest(1).to_string()).await;
    let filter = format!(r#"labels."{REF}"=="{}",parent=="{}""#, digest(2), digest(1));
    let found = rig.list(&[&filter]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].kind()), (digest(2).to_string().as_str(), Kind::Committed));
    let mut expected = cri_labels(2);
    expected.insert(OPENED_BY_LABEL.to_owned(), "estargz".to_owned());
    expected.insert(LAYER_DIGEST_LABEL.to_owned(), digest(2).to_string());
    assert_eq!(found[0].labels, expected);
    assert_eq!(rig.stat(&digest(1).to_string()).await.unwrap().labels[OPENED_BY_LABEL], "streaming-pass");
    let usage = rig.usage(&digest(2).to_string()).await.unwrap();
    assert_eq!((usage.size, usage.inodes), (77, 7));
    assert_eq!(rig.directories(), [] as [&str; 0]);
    let opened = rig.layers.opened.load(Ordering::SeqCst);
    assert_eq!(code(rig.prepare("again", "", labels(&[(REF, &digest(1).to_string())])).await), Code::AlreadyExists);
    assert_eq!(rig.layers.opened.load(Ordering::SeqCst), opened);
}

#[tokio::test]
async fn the_same_layer_on_another_parent_gets_a_name_of_its_own() {
    let mut rig = Rig::start().await;
    rig.served(1, "").await;
    rig.committed("base", "").await;
    rig.served(1, "base").await;
    rig.served(1, "base").await;
    let parents = |infos: Vec<snap_snapshotter::api::snapshots::Info>| infos.into_iter().map(|info| info.parent).collect::<Vec<_>>();
    let filter = format!(r#"labels."{REF}"=="{}""#, digest(1));
    assert_eq!(parents(rig.list(&[&filter]).await.unwrap()), ["", "base"]);
    let taken = rig.stat("base").await.unwrap();
    assert_eq!(taken.kind(), Kind::Committed);
    assert_eq!(rig.list(&[&format!(r#"{filter},parent=="base""#)]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_served_becomes_an_ordinary_snapshot_with_the_reason_kept() {
    let mut rig = Rig::start().await;
    let mounts = rig.prepare("unknown", "", cri_labels(9)).await.unwrap();
    assert_eq!(mounts[0].r#type, "bind");
    rig.prepare("no image", "", labels(&[(REF, &digest(9).to_string())])).await.unwrap();
    rig.prepare("no chain", "", labels(&[(REF, "../..")])).await.unwrap();
    let mut expected = cri_labels(9);
    expected.insert(DECLINED_LABEL.to_owned(), UNKNOWN_KIND.to_owned());
    assert_eq!(rig.stat("unknown").await.unwrap().labels, expected);
    rig.commit("unknown", "unpacked", cri_labels(9)).await.unwrap();
    assert_eq!(rig.stat("unpacked").await.unwrap().labels, cri_labels(9), "it is an ordinary layer now");
    rig.remove("unpacked").await.unwrap();
    rig.prepare("unknown", "", cri_labels(9)).await.unwrap();
    let status = rig.snapshotter.status().await.unwrap();
    assert_eq!((status.active, status.served), (3, 0));
    let reasons: Vec<_> = status.refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons[0].contains("unknown kind") && reasons[1].contains("which image") && reasons[2].contains("chain ID"), "{reasons:?}");
    assert_eq!(status.refusals[0].reference.as_deref(), Some("registry.example/app:1"));
}

#[tokio::test]
async fn a_registry_that_is_away_is_an_error_with_its_cause_and_leaves_nothing() {
    let mut rig = Rig::start().await;
    let mut wanted = cri_labels(1);
    wanted.insert("containerd.io/snapshot/cri.image-ref".to_owned(), "unreachable.example/app".to_owned());
    let status = rig.prepare("key", "", wanted.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("no route to host"), "{}", status.message());
    wanted.insert("containerd.io/snapshot/cri.image-ref".to_owned(), "panic.example/app".to_owned());
    assert_eq!(code(rig.prepare("key", "", wanted).await), Code::Internal);
    assert_eq!(rig.list(&[]).await.unwrap(), []);
    rig.served(1, "").await;
}

#[tokio::test]
async fn nothing_is_opened_for_a_request_that_would_fail_anyway() {
    let mut rig = Rig::start().await;
    rig.layers.add(1);
    rig.prepare("active", "", Labels::new()).await.unwrap();
    assert_eq!(code(rig.prepare("key", "none", cri_labels(1)).await), Code::NotFound);
    assert_eq!(code(rig.prepare("key", "active", cri_labels(1)).await), Code::InvalidArgument);
    assert_eq!(rig.layers.opened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_and_does_not_stop_the_next() {
    let mut rig = Rig::start().await;
    rig.layers.add(1);
    rig.layers.hold_opens();
    let mut first = rig.client.clone();
    let request =
        snap_snapshotter::api::snapshots::PrepareSnapshotRequest { key: "first".to_owned(), labels: cri_labels(1), ..Default::default() };
    let mut waiting = Box::pin(first.prepare(request));
    // Polled until the open has begun, then dropped, as when a connection ends.
    std::future::poll_fn(|context| {
        assert!(waiting.as_mut().poll(context).is_pending());
        if rig.layers.opened.load(Ordering::SeqCst) == 1 {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
    drop(waiting);
    assert_eq!(rig.list(&[]).await.unwrap(), []);
    rig.layers.permits.add_permits(10);
    assert_eq!(code(rig.prepare("second", "", cri_labels(1)).await), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_that_want_the_same_layer_get_one_record() {
    let rig = Rig::start().await;
    rig.layers.add(1);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..16 {
        let mut client = rig.client.clone();
        calls.spawn(async move {
            let request = snap_snapshotter::api::snapshots::PrepareSnapshotRequest {
                key: format!("key-{n}"),
                labels: cri_labels(1),
                ..Default::default()
            };
            code(client.prepare(request).await)
        });
    }
    assert!(calls.join_all().await.into_iter().all(|code| code == Code::AlreadyExists));
    assert_eq!(rig.layers.opened.load(Ordering::SeqCst), 1);
    assert_eq!(rig.snapshotter.status().await.unwrap().served, 1);
}

#[tokio::test]
async fn layers_that_are_named_no_more_are_let_go_and_runs_with_them() {
    let mut rig = Rig::start().await;
    rig.served(1, "").await;
    rig.served(2, &digest(1).to_string()).await;
    rig.prepare("key", &digest(2).to_string(), Labels::new()).await.unwrap();
    rig.prepare("gone", &digest(1).to_string(), Labels::new()).await.unwrap();
    rig.remove("gone").await.unwrap();
    rig.layers.wait_retained(|in_use| in_use.layers.len() == 2 && in_use.runs.len() == 1 && in_use.runs[0].layers.len() == 2).await;
    rig.remove("key").await.unwrap();
    rig.layers.wait_retained(|in_use| in_use.layers.len() == 2 && in_use.runs.is_empty()).await;
    rig.remove(&digest(2).to_string()).await.unwrap();
    rig.layers.wait_retained(|in_use| in_use.layers.len() == 1).await;
    rig.remove(&digest(1).to_string()).await.unwrap();
    rig.layers.wait_retained(|in_use| in_use.layers.is_empty()).await;
}

#[tokio::test]
async fn owners_are_not_shifted_on_served_layers() {
    let mut rig = Rig::start().await;
    rig.served(1, "").await;
    let mapping = labels(&[("containerd.io/snapshot/uidmapping", "0:1000:10"), ("containerd.io/snapshot/gidmapping", "0:1000:10")]);
    let status = rig.prepare("key", &digest(1).to_string(), mapping).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("remap-ids"));
    assert_eq!(rig.directories(), [] as [&str; 0]);
}

#[tokio::test]
async fn how_a_layer_was_opened_is_the_snapshotters_to_say() {
    let mut rig = Rig::start().await;
    rig.layers.add(1);
    let mut wanted = cri_labels(1);
    wanted.insert(OPENED_BY_LABEL.to_owned(), "magic".to_owned());
    assert_eq!(code(rig.prepare("key", "", wanted.clone()).await), Code::AlreadyExists);
    let name = digest(1).to_string();
    for paths in [&["labels"][..], &[]] {
        let updated = rig.update(&name, labels(&[(REF, &name), (OPENED_BY_LABEL, "magic")]), paths).await.unwrap();
        assert_eq!(updated.labels, labels(&[(REF, &name), (OPENED_BY_LABEL, "streaming-pass"), (LAYER_DIGEST_LABEL, &name)]), "{paths:?}");
    }
    let filters = [format!(r#"labels."{OPENED_BY_LABEL}"=="streaming-pass""#), format!(r#"labels."{REF}"=="{name}",parent=="""#)];
    for filter in &filters {
        assert_eq!(rig.list(&[filter]).await.unwrap().len(), 1, "{filter}");
    }
    rig.prepare("container", &name, labels(&[(DECLINED_LABEL, "never")])).await.unwrap();
    assert_eq!(rig.stat("container").await.unwrap().labels, Labels::new());
}
