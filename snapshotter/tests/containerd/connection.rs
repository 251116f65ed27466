//! Connecting, and what becomes of calls when containerd goes.

use std::io;
use std::time::Duration;

use snap_snapshotter::containerd::{Containerd, ContainerdError, ContainerdErrorKind};
use tokio::net::UnixListener;

use crate::bare::{Bare, MIB, labels, layer_bytes, on_each_containerd, read, writer};

on_each_containerd! { tells_what_it_is fails_at_once_when_it_is_killed_and_works_when_it_is_back }

async fn tells_what_it_is(bare: Bare) {
    let containerd = Containerd::connect(&bare.socket(), "some-namespace").await.unwrap();
    let version = containerd.version().await.unwrap();
    assert!(version.contains(&bare.version), "{version} is not {}", bare.version);
    assert_eq!(containerd.namespace(), "some-namespace");
    let snapshotters = containerd.snapshotters().await.unwrap();
    assert!(snapshotters.contains(&"overlayfs".to_owned()) && snapshotters.contains(&"native".to_owned()), "{snapshotters:?}");
    // It is there, but cannot be used without a configuration.
    assert!(!snapshotters.contains(&"devmapper".to_owned()), "{snapshotters:?}");
    assert!(bare.ctr(&["plugins", "ls"]).contains("devmapper"));
}

async fn fails_at_once_when_it_is_killed_and_works_when_it_is_back(mut bare: Bare) {
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 64 * MIB);
    let mut writing = writer(&containerd, &descriptor).await;
    writing.write(bytes.slice(..16 * MIB)).await.unwrap();
    bare.kill();
    let error = match writing.write(bytes.slice(16 * MIB..)).await {
        Err(error) => error,
        Ok(()) => writing.commit(&labels(&[])).await.unwrap_err(),
    };
    assert!(matches!(error, ContainerdError::Gone { .. }), "{error:?}");
    let error = containerd.content(&descriptor.digest).await.unwrap_err();
    assert!(matches!(error, ContainerdError::Gone { .. }), "{error:?}");
    assert_eq!(error.kind(), ContainerdErrorKind::Unavailable);
    assert!(error.to_string().contains("hint: is containerd running?"), "{error}");

    bare.resume().await;
    assert_eq!(containerd.content(&descriptor.digest).await.unwrap(), None);
    let mut writing = writer(&containerd, &descriptor).await;
    let offset = usize::try_from(writing.offset()).unwrap();
    assert!(offset >= 12 * MIB, "{offset} bytes are left of what was written");
    writing.write(bytes.slice(offset..)).await.unwrap();
    writing.commit(&labels(&[])).await.unwrap();
    assert_eq!(read(&containerd, &descriptor.digest).await, bytes);
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_told_from_one_that_is_not_containerds() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("containerd.sock");
    let connect = || Containerd::connect(&socket, "default");
    assert!(matches!(connect().await, Err(ContainerdError::NotThere { .. })));

    let listener = UnixListener::bind(&socket).unwrap();
    let ending = tokio::spawn(async move {
        loop {
            // The first is tried for the socket's sake, later ones are for calls.
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    let error = connect().await.unwrap_err();
    assert!(matches!(error, ContainerdError::NotContainerd { .. }), "{error:?}");
    ending.abort();
    assert!(ending.await.unwrap_err().is_cancelled());
    assert!(matches!(connect().await, Err(ContainerdError::NotThere { .. })));
}

#[tokio::test]
async fn a_namespace_is_checked_before_anything_is_asked() {
    let result = Containerd::connect("/nowhere".as_ref(), "no/namespace").await;
    assert!(matches!(result, Err(ContainerdError::BadNamespace { .. })), "{result:?}");
}

/// Time passes as soon as nothing else can happen.
#[tokio::test]
async fn a_containerd_that_hangs_is_not_waited_for_for_ever() {
    let bare = Bare::start("containerd-2").await;
    let containerd = bare.leased("held").await;
    let (bytes, descriptor) = layer_bytes(1, 64 * MIB);
    let mut writing = writer(&containerd, &descriptor).await;
    bare.hang();
    tokio::time::pause();
    let error = containerd.image("any").await.unwrap_err();
    assert!(matches!(&error, ContainerdError::Timeout { after, .. } if after.as_secs() == 60), "{error:?}");
    assert_eq!(error.to_string(), "cannot read the image any: containerd has not answered for 60 s");
    assert_eq!(error.kind(), ContainerdErrorKind::Unavailable);
    let error = writing.write(bytes).await.unwrap_err();
    assert!(matches!(error, ContainerdError::Timeout { .. }), "{error:?}");
}

/// Time passes as soon as nothing else can happen.
#[tokio::test(start_paused = true)]
async fn who_never_answers_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("containerd.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let before = tokio::time::Instant::now();
    let error = Containerd::connect(&socket, "default").await.unwrap_err();
    assert!(matches!(&error, ContainerdError::Connect { source, .. } if source.kind() == io::ErrorKind::TimedOut), "{error:?}");
    assert!(before.elapsed() >= Duration::from_secs(1), "it was not waited for at all");
}
