//! Content on its way in: broken off, taken up again, wrong, wanted by two at once.

use std::process::Stdio;

use bytes::Bytes;
use snap_registry::Descriptor;
use snap_snapshotter::containerd::{Begin, Containerd, ContainerdError, ContainerdErrorKind, ContentWriter};
use snap_snapshotter::limits::WRITE_AHEAD_BYTES;

use crate::bare::{Bare, MIB, labels, layer_bytes, on_each_containerd, read, writer};
use crate::daemon::succeed;

on_each_containerd! {
    a_write_that_was_broken_off_is_gone_on_with
    containerds_own_client_goes_on_with_our_write
    one_writer_at_a_time_has_a_write
    wrong_bytes_are_not_committed_and_do_not_stay
    a_wrong_beginning_is_written_over
    as_many_bytes_are_written_as_were_told
    content_that_came_another_way_meanwhile_is_held_by_the_lease
    content_of_another_namespace_is_taken_without_its_bytes
    bytes_come_in_pieces_of_any_size
}

fn here(begun: Result<Begin, ContainerdError>) -> bool {
    matches!(begun.unwrap(), Begin::Here)
}

/// Writes the first `count` bytes, then goes away. Gives how many of them containerd has for sure.
async fn break_off(mut writing: ContentWriter, bytes: &Bytes, count: usize) -> usize {
    writing.write(bytes.slice(..count)).await.unwrap();
    count - usize::try_from(WRITE_AHEAD_BYTES).unwrap()
}

async fn go_on(containerd: &Containerd, descriptor: &Descriptor, bytes: &Bytes) -> usize {
    let mut writing = writer(containerd, descriptor).await;
    let offset = usize::try_from(writing.offset()).unwrap();
    writing.write(bytes.slice(offset..)).await.unwrap();
    writing.commit(&labels(&[("from", "us")])).await.unwrap();
    offset
}

async fn a_write_that_was_broken_off_is_gone_on_with(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 16 * MIB + 1);
    let mut least = break_off(writer(&containerd, &descriptor).await, &bytes, 8 * MIB).await;
    // Of another connection, as after our own restart.
    let again = Containerd::connect(&bare.socket(), "default").await.unwrap().with_lease("held").unwrap();
    let writing = writer(&again, &descriptor).await;
    let there = usize::try_from(writing.offset()).unwrap();
    assert!((least..=8 * MIB).contains(&there), "{there} bytes are there");
    drop(writing);
    least = there;
    assert_eq!(go_on(&again, &descriptor, &bytes).await, least);
    assert_eq!(containerd.content(&descriptor.digest).await.unwrap().unwrap().labels, labels(&[("from", "us")]));
    assert_eq!(read(&containerd, &descriptor.digest).await, bytes);
    assert!(here(containerd.begin_write(&descriptor).await));
}

async fn containerds_own_client_goes_on_with_our_write(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 16 * MIB);
    break_off(writer(&containerd, &descriptor).await, &bytes, 8 * MIB).await;
    // When it has seen that we have gone, it has all that it will have.
    drop(writer(&containerd, &descriptor).await);
    let reference = format!("layer-{}", descriptor.digest);
    assert!(bare.ctr(&["content", "active"]).contains(&reference));
    let file = bare.dir.path().join("layer");
    std::fs::write(&file, &bytes).unwrap();
    let size = descriptor.size_bytes.to_string();
    let digest = descriptor.digest.to_string();
    let ingest = ["content", "ingest", "--expected-size", &size, "--expected-digest", &digest, &reference];
    succeed(bare.ctr_command().args(ingest).stdin(Stdio::from(std::fs::File::open(&file).unwrap())));
    assert!(here(containerd.begin_write(&descriptor).await));
    assert_eq!(read(&containerd, &descriptor.digest).await, bytes);
}

async fn one_writer_at_a_time_has_a_write(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 8 * MIB);
    let mut first = writer(&containerd, &descriptor).await;
    first.write(bytes.slice(..MIB)).await.unwrap();
    let second = containerd.begin_write(&descriptor).await.unwrap_err();
    assert!(matches!(&second, ContainerdError::Busy { reference } if *reference == format!("layer-{}", descriptor.digest)), "{second:?}");
    assert_eq!(second.kind(), ContainerdErrorKind::Busy);
    first.write(bytes.slice(MIB..2 * MIB)).await.unwrap();
    first.abort().await.unwrap();
    assert!(!bare.ctr(&["content", "active"]).contains("layer-"));
    // It was let go of, and nothing of it is left.
    let Begin::Writer(second) = containerd.begin_write(&descriptor).await.unwrap() else { panic!("it is there") };
    assert_eq!(second.offset(), 0);
    drop(second);
    assert_eq!(go_on(&containerd, &descriptor, &bytes).await, 0);
}

async fn wrong_bytes_are_not_committed_and_do_not_stay(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 8 * MIB);
    let (wrong, _) = layer_bytes(2, 8 * MIB);
    let mut writing = writer(&containerd, &descriptor).await;
    writing.write(wrong).await.unwrap();
    let error = writing.commit(&labels(&[])).await.unwrap_err();
    assert!(matches!(error, ContainerdError::DigestMismatch { digest } if digest == descriptor.digest), "{error:?}");
    assert_eq!(error.kind(), ContainerdErrorKind::WrongBytes);
    assert_eq!(containerd.content(&descriptor.digest).await.unwrap(), None);
    assert_eq!(go_on(&containerd, &descriptor, &bytes).await, 0);
    assert_eq!(read(&containerd, &descriptor.digest).await, bytes);
}

async fn a_wrong_beginning_is_written_over(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 16 * MIB);
    let (wrong, _) = layer_bytes(2, 16 * MIB);
    let least = break_off(writer(&containerd, &descriptor).await, &wrong, 12 * MIB).await;
    let mut writing = writer(&containerd, &descriptor).await;
    assert!(writing.offset() >= least as u64);
    writing.restart().await.unwrap();
    assert_eq!(writing.offset(), 0);
    writing.write(bytes.slice(..MIB)).await.unwrap();
    // In the middle of it, too.
    writing.restart().await.unwrap();
    writing.write(bytes.clone()).await.unwrap();
    writing.commit(&labels(&[])).await.unwrap();
    assert_eq!(read(&containerd, &descriptor.digest).await, bytes);
}

async fn as_many_bytes_are_written_as_were_told(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, MIB);
    let mut writing = writer(&containerd, &descriptor).await;
    let more: Bytes = [&bytes[..], b"x"].concat().into();
    let error = writing.write(more).await.unwrap_err();
    assert!(matches!(error, ContainerdError::SizeMismatch { actual_bytes, .. } if actual_bytes == MIB as u64 + 1), "{error:?}");
    writing.write(bytes.slice(..1000)).await.unwrap();
    let error = writing.commit(&labels(&[])).await.unwrap_err();
    assert!(matches!(error, ContainerdError::SizeMismatch { actual_bytes: 1000, .. }), "{error:?}");
    // What was right of it is gone on with.
    let offset = go_on(&containerd, &descriptor, &bytes).await;
    assert!(offset == 0 || offset == 1000, "{offset} bytes are there");
}

async fn content_that_came_another_way_meanwhile_is_held_by_the_lease(bare: Bare) {
    let (first, second) = (bare.leased("first").await, bare.leased("second").await);
    let (bytes, descriptor) = layer_bytes(1, MIB);
    // The same under another name: as of a client that took it for something else.
    let other = Descriptor::new(descriptor.digest, descriptor.size_bytes, "application/octet-stream");
    let (mut one, mut two) = (writer(&first, &descriptor).await, writer(&second, &other).await);
    one.write(bytes.clone()).await.unwrap();
    two.write(bytes.clone()).await.unwrap();
    one.commit(&labels(&[("a", "1"), ("b", "1")])).await.unwrap();
    two.commit(&labels(&[("b", "2"), ("c", "2")])).await.unwrap();
    let info = second.content(&descriptor.digest).await.unwrap().unwrap();
    assert_eq!(info.labels, labels(&[("a", "1"), ("b", "2"), ("c", "2")]));
    first.delete_lease("first", true).await.unwrap();
    assert_eq!(read(&second, &descriptor.digest).await, bytes);
    second.delete_lease("second", true).await.unwrap();
    assert_eq!(second.content(&descriptor.digest).await.unwrap(), None);
}

async fn content_of_another_namespace_is_taken_without_its_bytes(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 2 * MIB);
    assert_eq!(go_on(&containerd, &descriptor, &bytes).await, 0);
    let elsewhere = Containerd::connect(&bare.socket(), "elsewhere").await.unwrap();
    elsewhere.create_lease("held", std::time::Duration::from_secs(3600)).await.unwrap();
    let elsewhere = elsewhere.with_lease("held").unwrap();
    assert_eq!(elsewhere.content(&descriptor.digest).await.unwrap(), None);
    assert_eq!(go_on(&elsewhere, &descriptor, &bytes).await, bytes.len());
    assert_eq!(read(&elsewhere, &descriptor.digest).await, bytes);
}

async fn bytes_come_in_pieces_of_any_size(bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 3 * MIB + 7);
    let mut writing = writer(&containerd, &descriptor).await;
    let mut rest = bytes.clone();
    for size in [1, 0, 7, 4096, 100, MIB + 1, 17].into_iter().chain(std::iter::repeat(9000)) {
        if rest.is_empty() {
            break;
        }
        writing.write(rest.split_to(size.min(rest.len()))).await.unwrap();
    }
    writing.commit(&labels(&[])).await.unwrap();
    assert_eq!(read(&containerd, &descriptor.digest).await, bytes);

    // And none at all.
    let nothing = Descriptor::of(b"", crate::bare::LAYER);
    containerd.write_content(&nothing, Bytes::new(), &labels(&[("a", "1")])).await.unwrap();
    assert_eq!(containerd.content(&nothing.digest).await.unwrap().unwrap().size_bytes, 0);
    assert_eq!(read(&containerd, &nothing.digest).await, Bytes::new());
}
