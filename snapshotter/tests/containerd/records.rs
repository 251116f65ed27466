//! Leases, image records, and content that is there.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use snap_digest::Digest;
use snap_registry::Descriptor;
use snap_snapshotter::containerd::{Containerd, ContainerdError, ContainerdErrorKind, ImageRecord};

use crate::bare::{Bare, MIB, labels, layer_bytes, on_each_containerd, read};

on_each_containerd! {
    a_lease_keeps_what_was_made_under_it_and_nothing_else
    an_image_is_put_read_changed_and_deleted
    clients_that_put_one_image_at_once_all_succeed
    content_is_written_labelled_read_and_deleted
    content_that_has_rotted_is_not_given
}

const HOUR: Duration = Duration::from_secs(3600);
const DOCUMENT: &str = "application/vnd.oci.image.manifest.v1+json";

fn document(text: &'static str) -> (Bytes, Descriptor) {
    (Bytes::from_static(text.as_bytes()), Descriptor::of(text.as_bytes(), DOCUMENT))
}

async fn a_lease_keeps_what_was_made_under_it_and_nothing_else(bare: Bare) {
    let (kept, other, loose) = (document("kept"), document("other"), document("loose"));
    let keeping = bare.leased("keeping").await;
    let ending = bare.leased("ending").await;
    let bare_client = Containerd::connect(&bare.socket(), "default").await.unwrap();
    keeping.write_content(&kept.1, kept.0.clone(), &labels(&[])).await.unwrap();
    bare_client.write_content(&loose.1, loose.0, &labels(&[])).await.unwrap();
    ending.write_content(&other.1, other.0, &labels(&[])).await.unwrap();
    // What is there already is held as well.
    ending.write_content(&kept.1, kept.0.clone(), &labels(&[])).await.unwrap();

    let listed = bare.ctr(&["leases", "ls"]);
    assert!(listed.contains("containerd.io/gc.expire=20"), "{listed}");
    let again = bare_client.create_lease("keeping", HOUR).await.unwrap_err();
    assert_eq!(again.kind(), ContainerdErrorKind::AlreadyExists, "{again}");

    bare_client.delete_lease("ending", true).await.unwrap();
    bare_client.delete_lease("ending", true).await.unwrap();
    assert_eq!(read(&bare_client, &kept.1.digest).await, kept.0);
    assert_eq!(bare_client.content(&other.1.digest).await.unwrap(), None);
    assert_eq!(bare_client.content(&loose.1.digest).await.unwrap(), None);
    bare_client.delete_lease("keeping", true).await.unwrap();
    assert_eq!(bare_client.content(&kept.1.digest).await.unwrap(), None);

    // A lease that has expired holds nothing, whether or not it was ended.
    bare_client.create_lease("expired", Duration::ZERO).await.unwrap();
    let expired = bare_client.with_lease("expired").unwrap();
    expired.write_content(&kept.1, kept.0, &labels(&[])).await.unwrap();
    bare_client.create_lease("trigger", HOUR).await.unwrap();
    bare_client.delete_lease("trigger", true).await.unwrap();
    assert_eq!(bare_client.content(&kept.1.digest).await.unwrap(), None);
}

async fn an_image_is_put_read_changed_and_deleted(bare: Bare) {
    let containerd = bare.leased("held").await;
    let name = "example.com/app:1";
    assert_eq!(containerd.image(name).await.unwrap(), None);
    let ((first, first_target), (_, second_target)) = (document("first"), document("second"));
    containerd.write_content(&first_target, first, &labels(&[])).await.unwrap();
    let mut record = ImageRecord { name: name.to_owned(), labels: labels(&[("a", "1"), ("b", "2")]), target: first_target };
    record.target.annotations = labels(&[("note", "kept")]);
    containerd.put_image(&record).await.unwrap();
    assert_eq!(containerd.image(name).await.unwrap(), Some(record.clone()));
    let listed = bare.ctr(&["images", "ls"]);
    assert!(listed.contains(name) && listed.contains(&record.target.digest.to_string()), "{listed}");

    let changed = ImageRecord { labels: labels(&[("b", "3"), ("c", "4")]), target: second_target, ..record.clone() };
    containerd.put_image(&changed).await.unwrap();
    assert_eq!(containerd.image(name).await.unwrap(), Some(changed.clone()));

    let other = ImageRecord { name: "example.com/other:1".to_owned(), ..record };
    containerd.put_image(&other).await.unwrap();
    assert_eq!(containerd.images(&[]).await.unwrap(), [changed.clone(), other.clone()]);
    assert_eq!(containerd.images(&[format!("name=={name}")]).await.unwrap(), [changed]);
    assert_eq!(containerd.images(&["labels.a==1".to_owned()]).await.unwrap(), [other]);
    let elsewhere = Containerd::connect(&bare.socket(), "elsewhere").await.unwrap();
    assert_eq!(elsewhere.images(&[]).await.unwrap(), []);
    let bad = containerd.images(&["name=".to_owned()]).await.unwrap_err();
    assert_eq!(bad.kind(), ContainerdErrorKind::Other, "{bad}");
    assert!(bad.to_string().starts_with("cannot list images: containerd says: "), "{bad}");

    containerd.delete_image(name, true).await.unwrap();
    containerd.delete_image(name, false).await.unwrap();
    assert_eq!(containerd.image(name).await.unwrap(), None);
}

async fn clients_that_put_one_image_at_once_all_succeed(bare: Bare) {
    let containerd = bare.leased("held").await;
    let records: Vec<ImageRecord> = (0..8)
        .map(|number| {
            let target = Descriptor::of(&[number], DOCUMENT);
            ImageRecord { name: "example.com/app:1".to_owned(), labels: labels(&[("number", &number.to_string())]), target }
        })
        .collect();
    for put in join_all(records.iter().map(|record| containerd.put_image(record))).await {
        put.unwrap();
    }
    // Whichever was last: its target and its labels belong together.
    let left = containerd.image("example.com/app:1").await.unwrap().unwrap();
    assert!(records.contains(&left), "{left:?}");
}

async fn content_is_written_labelled_read_and_deleted(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = document("a manifest");
    let digest = descriptor.digest;
    assert_eq!(containerd.content(&digest).await.unwrap(), None);
    for error in [
        containerd.read_content(&digest, 100).await.map(drop).unwrap_err(),
        containerd.label_content(&digest, &labels(&[("a", "1")])).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ContainerdErrorKind::NotFound, "{error}");
    }
    let wrong = containerd.write_content(&descriptor, Bytes::from_static(b"a manifesT"), &labels(&[])).await.unwrap_err();
    assert!(matches!(wrong, ContainerdError::DigestMismatch { .. }), "{wrong:?}");

    let keep = "containerd.io/gc.ref.content.l.0";
    containerd.write_content(&descriptor, bytes.clone(), &labels(&[("a", "1"), (keep, &digest.to_string())])).await.unwrap();
    let info = containerd.content(&digest).await.unwrap().unwrap();
    assert_eq!(info.size_bytes, 10);
    assert_eq!(info.labels, labels(&[("a", "1"), (keep, &digest.to_string())]));
    assert_eq!(containerd.read_content(&digest, 10).await.unwrap(), bytes);
    let larger = containerd.read_content(&digest, 9).await.unwrap_err();
    assert!(matches!(larger, ContainerdError::TooLarge { limit_bytes: 9, .. }), "{larger:?}");

    containerd.label_content(&digest, &labels(&[("a", "2"), ("b.c/d", "3")])).await.unwrap();
    containerd.label_content(&digest, &labels(&[])).await.unwrap();
    let labelled = containerd.content(&digest).await.unwrap().unwrap().labels;
    assert_eq!(labelled, labels(&[("a", "2"), ("b.c/d", "3"), (keep, &digest.to_string())]));
    // Written again, it is labelled.
    containerd.write_content(&descriptor, bytes, &labels(&[("a", ""), ("e", "4")])).await.unwrap();
    let labelled = containerd.content(&digest).await.unwrap().unwrap().labels;
    assert_eq!(labelled, labels(&[("b.c/d", "3"), ("e", "4"), (keep, &digest.to_string())]));

    let (large, large_descriptor) = layer_bytes(3, 9 * MIB + 1);
    containerd.write_content(&large_descriptor, large.clone(), &labels(&[])).await.unwrap();
    assert_eq!(read(&containerd, &large_descriptor.digest).await, large);

    containerd.delete_content(&digest).await.unwrap();
    containerd.delete_content(&digest).await.unwrap();
    assert_eq!(containerd.content(&digest).await.unwrap(), None);
}

async fn content_that_has_rotted_is_not_given(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = document("a manifest");
    containerd.write_content(&descriptor, bytes, &labels(&[])).await.unwrap();
    let blob = bare.dir.path().join("root/io.containerd.content.v1.content/blobs/sha256").join(descriptor.digest.hex());
    std::fs::write(&blob, "a manifesT").unwrap();
    let rotten = containerd.read_content(&descriptor.digest, 100).await.unwrap_err();
    assert!(matches!(rotten, ContainerdError::DigestMismatch { digest } if digest == descriptor.digest), "{rotten:?}");
    assert_ne!(Digest::of(&std::fs::read(&blob).unwrap()), descriptor.digest);
}
