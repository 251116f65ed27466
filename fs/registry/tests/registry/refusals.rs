//! The answers that mean "you do not get this" are told apart.

use super::*;
use snap_registry::testing::{Fault, Matcher, TokenAuth};
use snap_registry::{Cause, ErrorKind, Refusal};

async fn resolved(setup: &Setup, registry: &FaultyRegistry, name: &str) -> (Option<Refusal>, Error) {
    let error = setup.source(&registry.reference(name)).resolve().await.unwrap_err();
    (error.refusal(), error)
}

#[tokio::test]
async fn an_unknown_repository_is_told_from_an_unknown_manifest() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.add_image("a", "t", &[]);
    let (refusal, error) = resolved(&setup, &registry, "a:other").await;
    assert_eq!((refusal, error.kind()), (Some(Refusal::ManifestUnknown), ErrorKind::NotFound), "{error}");
    assert!(error.to_string().contains("the manifest is not known: manifest_unknown to this registry"), "{error}");
    let (refusal, error) = resolved(&setup, &registry, "b:t").await;
    assert_eq!((refusal, error.kind()), (Some(Refusal::RepositoryUnknown), ErrorKind::NotFound), "{error}");
    // The first answer has no body; one more request gets the reason.
    let methods: Vec<String> = registry.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["HEAD", "GET", "HEAD", "GET"]);
    let by_digest = format!("a@{}", Digest::of(b"nothing"));
    assert_eq!(resolved(&setup, &registry, &by_digest).await.0, Some(Refusal::ManifestUnknown));
    registry.fault(Fault::Status(404, None), Matcher::path(""));
    let (refusal, error) = resolved(&setup, &registry, "a:t").await;
    assert_eq!((refusal, error.kind()), (Some(Refusal::NotFound), ErrorKind::NotFound), "{error}");
}

#[tokio::test]
async fn a_registry_whose_head_finds_nothing_is_asked_with_get() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let image = registry.add_image("a", "t", &[]);
    registry.fault(Fault::Status(404, None), Matcher::manifests().method("HEAD"));
    assert_eq!(setup.source(&registry.reference("a:t")).resolve().await.unwrap().digest, image.digest);
}

#[tokio::test]
async fn missing_credentials_are_told_from_wrong_ones() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.add_image("a", "t", &[]);
    registry.require_basic("me", "right");
    let (refusal, error) = resolved(&setup, &registry, "a:t").await;
    assert_eq!((refusal, error.kind()), (Some(Refusal::NoBasicCredentials), ErrorKind::Unauthorized));
    assert!(error.to_string().contains("no basic auth credentials"), "{error}");
    assert!(matches!(&error, Error::Request(error) if matches!(error.cause, Cause::NoBasicCredentials)));
    setup.write("config.json", format!(r#"{{"auths":{{"{}":{{"username":"me","password":"wrong"}}}}}}"#, registry.addr()));
    registry.forget_requests();
    let (refusal, error) = resolved(&setup, &registry, "a:t").await;
    assert_eq!((refusal, error.kind()), (Some(Refusal::Unauthorized), ErrorKind::Unauthorized), "{error}");
    assert!(matches!(&error, Error::Request(error) if matches!(error.cause, Cause::Unauthorized { with_credentials: true, .. })));
    // A wrong password is shown once: registries lock users out.
    assert_eq!(registry.requests().iter().filter(|request| request.header("authorization").is_some()).count(), 1);
}

#[tokio::test]
async fn a_refused_token_and_a_denial_are_told_apart() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.add_image("a", "t", &[]);
    // Its token server gives no token to anyone without a password, or one that is worth nothing.
    registry.require_token(TokenAuth { user: Some(("me".to_owned(), "right".to_owned())), ..TokenAuth::default() });
    assert_eq!(resolved(&setup, &registry, "a:t").await.0, Some(Refusal::Unauthorized));
    registry.require_token(TokenAuth { requests_per_token: Some(0), ..TokenAuth::default() });
    let (refusal, error) = resolved(&setup, &registry, "a:t").await;
    assert_eq!(refusal, Some(Refusal::Unauthorized));
    assert!(error.to_string().contains("unauthorized: authentication required"), "{error}");
    registry.fault(Fault::Status(403, None), Matcher::path("/v2/"));
    let (refusal, error) = resolved(&setup, &registry, "a:t").await;
    assert_eq!((refusal, error.kind()), (Some(Refusal::Denied), ErrorKind::Denied), "{error}");
}

#[tokio::test]
async fn what_is_no_refusal_is_none() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.add_image("a", "t", &[]);
    registry.fault(Fault::Status(500, None), Matcher::path(""));
    assert_eq!(resolved(&setup, &registry, "a:t").await.0, None);
}

#[tokio::test]
async fn the_size_of_a_blob_is_told_by_its_headers() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let blob = registry.add_blob(sample(1234));
    let source = setup.source(&registry.reference("a:t"));
    assert_eq!(source.blob_size(&blob.digest).await.unwrap(), 1234);
    assert_eq!(registry.requests()[0].method, "HEAD");
    // A storage whose signed URLs are for GET alone.
    registry.redirect_blobs(None);
    registry.fault(Fault::Status(403, None), Matcher::path("/storage/").method("HEAD"));
    assert_eq!(source.blob_size(&blob.digest).await.unwrap(), 1234);
    let error = source.blob_size(&Digest::of(b"nothing")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let dir = tempfile::tempdir().unwrap();
    registry.add_image("a", "t", &[]);
    registry.write_layout("a", dir.path()).unwrap();
    let layout = setup.source(&format!("oci:{}", dir.path().display()));
    assert_eq!(layout.blob_size(&blob.digest).await.unwrap(), 1234);
    assert_eq!(layout.blob_size(&Digest::of(b"nothing")).await.unwrap_err().kind(), ErrorKind::NotFound);
}
