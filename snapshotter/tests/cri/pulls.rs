//! What is taken from a pull on its way, and when it is given back.

use std::sync::{Arc, Mutex};

use snap_registry::{Credential, CredentialProvider, Secret};
use tonic::Code;

use crate::messages::pull;
use crate::raw::call;
use crate::served::Served;
use crate::upstream::{message_of, refusal, success};

const PULL: &str = "/runtime.v1.ImageService/PullImage";
const LIMIT_BYTES: usize = snap_snapshotter::limits::MAX_CRI_PULL_BYTES;

fn password(password: &str) -> Option<Credential> {
    Some(Credential::Password { username: "me".to_owned(), password: Secret::new(password) })
}

#[tokio::test]
async fn the_credential_is_there_before_containerd_is_asked_and_on_disk_when_it_has_answered() {
    let credentials = Arc::new(Mutex::new(None::<Arc<snap_snapshotter::CriCredentials>>));
    let during = credentials.clone();
    let (served, _upstream) = Served::before(move |request| {
        let known = during.lock().unwrap().as_ref().unwrap().credential("r.example", "team/app");
        async move {
            assert_eq!(known, password("pw"));
            success(&message_of(request).await)
        }
    });
    *credentials.lock().unwrap() = Some(served.credentials.clone());
    let message = pull("r.example/team/app:1", Some("pw"));
    assert_eq!(call(&served.client, PULL, message.clone()).await.unwrap().into_inner(), message);
    assert_eq!(served.saved().credential("r.example", "team/app"), password("pw"));
    // A pull without one takes none away.
    call(&served.client, PULL, pull("r.example/team/app:2", None)).await.unwrap();
    assert_eq!(served.credentials.credential("r.example", "team/app"), password("pw"));
}

#[tokio::test]
async fn a_pull_that_fails_leaves_the_credential_that_worked() {
    let (served, _upstream) = Served::before(async |request| {
        let is_wrong = message_of(request).await.windows(5).any(|window| window == b"wrong");
        if is_wrong { refusal(&[("grpc-status", "2"), ("grpc-message", "unauthorized")]) } else { success(b"") }
    });
    call(&served.client, PULL, pull("r.example/a", Some("wrong"))).await.unwrap_err();
    assert!(served.credentials.is_empty());
    call(&served.client, PULL, pull("r.example/a", Some("right"))).await.unwrap();
    let error = call(&served.client, PULL, pull("r.example/a", Some("wrong"))).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "unauthorized"));
    for credentials in [&*served.credentials, &served.saved()] {
        assert_eq!(credentials.credential("r.example", "a"), password("right"));
    }
}

#[tokio::test]
async fn a_pull_that_does_not_reach_containerd_leaves_nothing() {
    let served = Served::new(None);
    assert_eq!(call(&served.client, PULL, pull("r.example/a", Some("pw"))).await.unwrap_err().code(), Code::Unavailable);
    assert!(served.credentials.is_empty() && served.saved().is_empty());
}

#[tokio::test]
async fn what_is_no_pull_request_is_containerds_to_refuse() {
    let (served, upstream) = Served::before(async |request| success(&message_of(request).await));
    let garbage = vec![0xff; 100];
    assert_eq!(call(&served.client, PULL, garbage.clone()).await.unwrap().into_inner(), garbage);
    assert!(served.credentials.is_empty());
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_pull_request_is_bounded() {
    let (served, upstream) = Served::before(async |request| success(&message_of(request).await));
    // The frame counts.
    let longest = vec![0; LIMIT_BYTES - 5];
    assert!(call(&served.client, PULL, longest.clone()).await.unwrap().into_inner() == longest);
    let error = call(&served.client, PULL, vec![0; LIMIT_BYTES - 4]).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert_eq!(upstream.seen().len(), 1);
}
