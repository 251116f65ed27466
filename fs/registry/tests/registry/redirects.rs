//! Redirects to storage: remembered, renewed, and never shown a credential.

use super::*;
use snap_registry::testing::{Fault, Matcher, TokenAuth};
use snap_registry::{Cause, ErrorKind};

#[tokio::test]
async fn a_target_is_remembered_and_a_new_one_is_got_when_it_fails() {
    let (registry, setup, bytes) = (FaultyRegistry::start().await, Setup::new(), sample(100_000));
    registry.redirect_blobs(Some(3));
    let blob = setup.blob(&registry, &registry.add_blob(bytes.clone()));
    for i in 0..9 {
        let range = i * 100..i * 100 + 100;
        assert_eq!(&blob.read(range.clone()).await.unwrap()[..], &bytes[range.start as usize..range.end as usize]);
    }
    // Three targets for nine reads; twice an old one was tried and refused.
    assert_eq!((registry.count("/blobs/"), registry.count("/storage/")), (3, 11));
}

#[tokio::test]
async fn credentials_stay_at_the_registry() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_basic("me", "secret-password");
    registry.redirect_blobs(None);
    setup.write("config.json", format!(r#"{{"auths":{{"{}":{{"username":"me","password":"secret-password"}}}}}}"#, registry.addr()));
    setup.write(
        &format!("certs.d/{}/hosts.toml", registry.addr()),
        format!("server = \"http://{}\"\n[header]\nx-secret = \"s\"", registry.addr()),
    );
    let blob = setup.blob(&registry, &registry.add_blob(sample(10)));
    blob.read(0..10).await.unwrap();
    for request in registry.requests() {
        let is_storage = request.at_storage;
        assert_eq!(request.header("x-secret").is_none(), is_storage);
        assert!(!is_storage || request.header("authorization").is_none());
    }
    assert_eq!(registry.count("/storage/"), 1);
}

#[tokio::test]
async fn a_body_that_breaks_at_the_storage_is_resumed_at_a_new_target() {
    let (registry, setup, bytes) = (FaultyRegistry::start().await, Setup::new(), sample(200_000));
    registry.redirect_blobs(None);
    registry.fault(Fault::TruncateAt(90_000), Matcher::path("/storage/").times(1));
    let blob = setup.blob(&registry, &registry.add_blob(bytes.clone()));
    assert!(streamed(&*blob, 0..200_000).await.unwrap() == bytes);
    assert_eq!((registry.count("/blobs/"), registry.count("/storage/")), (2, 2));
}

#[tokio::test]
async fn storage_that_refuses_a_fresh_target_is_no_denial_by_the_registry() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.redirect_blobs(Some(0));
    let error = setup.blob(&registry, &registry.add_blob(sample(10))).read(0..10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(!error.to_string().contains("signature"), "{error}");
}

#[tokio::test]
async fn redirects_end() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let descriptor = registry.add_blob(sample(10));
    let round = format!("http://{}/v2/a/b/blobs/{}", registry.addr(), descriptor.digest);
    registry.fault(Fault::Redirect(round), Matcher::blobs());
    let error = setup.blob(&registry, &descriptor).read(0..10).await.unwrap_err();
    assert!(matches!(&error, Error::Request(error) if matches!(error.cause, Cause::TooManyRedirects(5))), "{error}");
    registry.heal();
    registry.fault(Fault::Redirect("file:///etc/passwd".to_owned()), Matcher::blobs());
    let error = setup.blob(&registry, &descriptor).read(0..10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn a_redirect_after_a_token_works_as_well() {
    let (registry, setup, bytes) = (FaultyRegistry::start().await, Setup::new(), sample(1000));
    registry.require_token(TokenAuth::default());
    registry.redirect_blobs(Some(1));
    let blob = setup.blob(&registry, &registry.add_blob(bytes.clone()));
    for _ in 0..3 {
        assert_eq!(blob.read(0..1000).await.unwrap(), bytes);
    }
    assert_eq!(registry.count("/token"), 1);
}
