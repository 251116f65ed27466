//! Basic, tokens, identity tokens and credential helpers.

use super::*;
use snap_registry::testing::{Fault, Matcher, TokenAuth};
use snap_registry::{Cause, ErrorKind};

fn auths(registry: &FaultyRegistry, entry: &str) -> String {
    format!(r#"{{"auths":{{"{}":{entry}}}}}"#, registry.addr())
}

fn user() -> Option<(String, String)> {
    Some(("me".to_owned(), "secret-password".to_owned()))
}

const PASSWORD: &str = r#"{"username":"me","password":"secret-password"}"#;

#[tokio::test]
async fn basic_credentials_are_sent_once_asked_for() {
    let (registry, setup, bytes) = (FaultyRegistry::start().await, Setup::new(), sample(1000));
    registry.require_basic("me", "secret-password");
    setup.write("config.json", auths(&registry, PASSWORD));
    let blob = setup.blob(&registry, &registry.add_blob(bytes.clone()));
    assert_eq!(blob.read(0..1000).await.unwrap(), bytes);
    assert_eq!(blob.read(0..1000).await.unwrap(), bytes);
    // One refusal, then every request has them.
    assert_eq!(registry.requests().len(), 3);
}

#[tokio::test]
async fn without_or_with_wrong_credentials_the_error_says_what_to_do() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_basic("me", "secret-password");
    let blob = setup.blob(&registry, &registry.add_blob(sample(10)));
    let error = blob.read(0..10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(
        error.to_string().contains(&format!("hint: the repository may not exist or may need `docker login {}`", registry.addr())),
        "{error}"
    );
    setup.write("config.json", auths(&registry, r#"{"username":"me","password":"wrong-password"}"#));
    let error = blob.read(0..10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!format!("{error} {error:?}").contains("wrong-password"), "{error:?}");
    // The file is read again after a refusal: a login elsewhere is enough.
    setup.write("config.json", auths(&registry, PASSWORD));
    assert_eq!(blob.read(0..10).await.unwrap(), sample(10));
}

#[tokio::test]
async fn a_token_is_got_once_for_many_requests_at_a_time() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_token(TokenAuth { user: user(), ..TokenAuth::default() });
    setup.write("config.json", auths(&registry, PASSWORD));
    let blob = setup.blob(&registry, &registry.add_blob(sample(1000)));
    futures_util::future::try_join_all((0..8).map(|i| blob.read(i * 10..i * 10 + 10))).await.unwrap();
    assert_eq!(registry.count("/token"), 1);
    let token = registry.requests().into_iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(token.query, "service=here&scope=repository%3Aa%2Fb%3Apull&account=me");
}

#[tokio::test]
async fn a_token_that_ends_in_mid_life_is_renewed() {
    let (registry, setup, bytes) = (FaultyRegistry::start().await, Setup::new(), sample(1000));
    registry.require_token(TokenAuth { requests_per_token: Some(2), ..TokenAuth::default() });
    let blob = setup.blob(&registry, &registry.add_blob(bytes.clone()));
    for i in 0..6 {
        assert_eq!(&blob.read(i * 10..i * 10 + 10).await.unwrap()[..], &bytes[i as usize * 10..i as usize * 10 + 10]);
    }
    // Two reads a token; each new one was preceded by a refusal.
    assert_eq!((registry.count("/token"), registry.count("/blobs/")), (3, 9));
}

#[tokio::test]
async fn a_token_known_to_end_is_renewed_before_it_is_refused() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_token(TokenAuth { expires_in: Some(0), ..TokenAuth::default() });
    let blob = setup.blob(&registry, &registry.add_blob(sample(100)));
    for _ in 0..3 {
        blob.read(0..10).await.unwrap();
    }
    assert_eq!((registry.count("/token"), registry.count("/blobs/")), (3, 4));
}

#[tokio::test]
async fn an_identity_token_is_traded_with_post() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_token(TokenAuth { identity_token: Some("secret-identity".to_owned()), ..TokenAuth::default() });
    setup.write("config.json", auths(&registry, r#"{"identitytoken":"secret-identity"}"#));
    setup.blob(&registry, &registry.add_blob(sample(10))).read(0..10).await.unwrap();
    let token = registry.requests().into_iter().find(|request| request.path == "/token").unwrap();
    assert_eq!((token.method.as_str(), token.query.as_str()), ("POST", ""));
}

#[tokio::test]
async fn a_registry_that_refuses_for_ever_is_final() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_token(TokenAuth { requests_per_token: Some(0), ..TokenAuth::default() });
    let error = setup.blob(&registry, &registry.add_blob(sample(10))).read(0..10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert_eq!((registry.count("/token"), registry.count("/blobs/")), (1, 2));
}

#[tokio::test]
async fn a_token_server_that_fails_is_asked_again_and_one_that_refuses_is_not() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_token(TokenAuth { user: user(), ..TokenAuth::default() });
    let blob = setup.blob(&registry, &registry.add_blob(sample(10)));
    setup.write("config.json", auths(&registry, PASSWORD));
    registry.fault(Fault::Status(503, None), Matcher::path("/token").times(2));
    blob.read(0..10).await.unwrap();
    assert_eq!(registry.count("/token"), 3);
    let other = setup.source(&registry.reference("c/d:t")).blob(&registry.add_blob(sample(10)));
    setup.write("config.json", "{}");
    registry.forget_requests();
    let error = other.read(0..10).await.unwrap_err();
    assert_eq!((error.kind(), registry.count("/token")), (ErrorKind::Unauthorized, 1), "{error}");
}

#[tokio::test]
async fn credentials_do_not_go_in_the_clear_to_another_host() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let realm = Some("http://tokens.example/token".to_owned());
    registry.require_token(TokenAuth { user: user(), realm, ..TokenAuth::default() });
    setup.write("config.json", auths(&registry, PASSWORD));
    let error = setup.blob(&registry, &registry.add_blob(sample(10))).read(0..10).await.unwrap_err();
    assert!(matches!(&error, Error::Request(error) if matches!(error.cause, Cause::UnsafeRealm { .. })), "{error}");
}

#[tokio::test]
async fn a_broken_configuration_does_not_keep_from_what_is_public() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    setup.write("config.json", r#"{"credsStore":"there-is-no-such-helper"}"#);
    registry.require_token(TokenAuth::default());
    let blob = setup.blob(&registry, &registry.add_blob(sample(10)));
    blob.read(0..10).await.unwrap();
    // Where credentials would have been needed, the reason is the answer.
    registry.require_token(TokenAuth { user: user(), ..TokenAuth::default() });
    let private = setup.source(&registry.reference("c/d:t")).blob(&registry.add_blob(sample(10)));
    let error = private.read(0..10).await.unwrap_err();
    assert!(error.to_string().contains("docker-credential-there-is-no-such-helper"), "{error}");
}
