//! Logins: checked at the registry, kept where docker keeps them, taken out again.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use snap_registry::testing::{Fault, Matcher, TokenAuth};
use snap_registry::{Cause, Credential, ErrorKind, LoginOutcome, LoginPlace, Refusal, Secret};

use super::*;

fn password(password: &str) -> Credential {
    Credential::Password { username: "me".to_owned(), password: Secret::new(password) }
}

fn config(setup: &Setup) -> Value {
    serde_json::from_slice(&std::fs::read(setup.dir.path().join("config.json")).unwrap()).unwrap()
}

async fn checked(setup: &Setup, registry: &FaultyRegistry, credential: Credential) -> Result<LoginOutcome, Error> {
    setup.client().check_login(&registry.addr().to_string(), credential).await
}

#[tokio::test]
async fn a_password_is_checked_at_the_registry() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_basic("me", "right");
    let outcome = checked(&setup, &registry, password("right")).await.unwrap();
    let expected = LoginOutcome { registry: registry.addr().to_string(), username: Some("me".to_owned()), credential: password("right") };
    assert_eq!(outcome, expected);
    assert!(registry.requests().iter().all(|request| request.path == "/v2/"), "{:?}", registry.requests());
    registry.forget_requests();
    let error = checked(&setup, &registry, password("wrong-secret")).await.unwrap_err();
    assert_eq!((error.kind(), error.refusal()), (ErrorKind::Unauthorized, Some(Refusal::Unauthorized)));
    assert!(error.to_string().contains("incorrect username or password: authentication required"), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong-secret") && !error.to_string().contains("hint"), "{error}");
    // Once without and once with it: registries lock users out.
    assert_eq!(registry.requests().len(), 2);
    let url = format!("http://{}/v2/", registry.addr());
    assert!(setup.client().check_login(&url, password("right")).await.is_ok());
    assert_eq!(setup.client().check_login("not a host", password("x")).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_token_server_is_asked_for_an_identity_token() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let user = Some(("me".to_owned(), "right".to_owned()));
    registry.require_token(TokenAuth { user: user.clone(), ..TokenAuth::default() });
    assert_eq!(checked(&setup, &registry, password("right")).await.unwrap().credential, password("right"));
    let token = registry.requests().into_iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(token.query, "service=here&account=me&offline_token=true&client_id=snap");
    let error = checked(&setup, &registry, password("wrong")).await.unwrap_err();
    assert!(matches!(&error, Error::Request(error) if matches!(error.cause, Cause::LoginRefused { .. })), "{error}");
    registry.require_token(TokenAuth { user, identity_token: Some("identity".to_owned()), ..TokenAuth::default() });
    let outcome = checked(&setup, &registry, password("right")).await.unwrap();
    let identity = Credential::IdentityToken(Secret::new("identity"));
    assert_eq!((outcome.username.as_deref(), &outcome.credential), (Some("me"), &identity));
    // It logs in by itself, and is what later requests are made with.
    assert_eq!(checked(&setup, &registry, identity.clone()).await.unwrap().credential, identity);
    setup.client().store_login(&outcome).await.unwrap();
    let blob = registry.add_blob(sample(10));
    assert_eq!(setup.blob(&registry, &blob).read(0..10).await.unwrap(), sample(10));
}

#[tokio::test]
async fn a_token_that_is_worth_nothing_is_no_login() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.require_token(TokenAuth { requests_per_token: Some(0), ..TokenAuth::default() });
    let error = checked(&setup, &registry, password("any")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[tokio::test]
async fn whoever_asks_for_nothing_lets_anyone_in_and_trouble_is_no_refusal() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.fault(Fault::Status(503, None), Matcher::path("/v2/").times(1));
    assert_eq!(checked(&setup, &registry, password("any")).await.unwrap().credential, password("any"));
    assert_eq!(registry.requests().len(), 2);
    registry.fault(Fault::Status(500, None), Matcher::path("/v2/"));
    assert_eq!(checked(&setup, &registry, password("any")).await.unwrap_err().kind(), ErrorKind::Unreachable);
    registry.heal();
    registry.fault(Fault::Status(404, None), Matcher::path("/v2/"));
    assert_eq!(checked(&setup, &registry, password("any")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_login_is_for_the_registry_and_not_for_its_mirrors() {
    let (mirror, registry, setup) = (FaultyRegistry::start().await, FaultyRegistry::start().await, Setup::new());
    setup.write(&format!("certs.d/{}/hosts.toml", registry.addr()), format!("[host.\"http://{}\"]\n", mirror.addr()));
    registry.require_basic("me", "right");
    checked(&setup, &registry, password("right")).await.unwrap();
    assert_eq!(mirror.requests(), []);
}

#[tokio::test]
async fn a_login_in_the_file_is_found_again_and_taken_out() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let (client, name) = (setup.client(), registry.addr().to_string());
    registry.require_basic("me", "right");
    let path = setup.write("config.json", r#"{"psFormat":"table","auths":{"other.example":{"auth":"b3RoZXI6cHc="}},"detachKeys":"a"}"#);
    let outcome = checked(&setup, &registry, password("right")).await.unwrap();
    assert_eq!(client.store_login(&outcome).await.unwrap(), LoginPlace::File(path.clone()));
    assert_eq!(client.stored_login(&name).await.unwrap(), Some(password("right")));
    let auths = json!({"other.example": {"auth": "b3RoZXI6cHc="}, &name: {"auth": "bWU6cmlnaHQ="}});
    assert_eq!(config(&setup), json!({"psFormat": "table", "auths": auths, "detachKeys": "a"}));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let blob = registry.add_blob(sample(10));
    assert_eq!(setup.blob(&registry, &blob).read(0..10).await.unwrap(), sample(10));
    assert!(client.erase_login(&format!("https://{name}/v1/")).await.unwrap());
    assert_eq!(config(&setup)["auths"], json!({"other.example": {"auth": "b3RoZXI6cHc="}}));
    assert!(!client.erase_login(&name).await.unwrap());
    assert_eq!(client.stored_login(&name).await.unwrap(), None);
}

const HELPER: &str = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$1" >> "$dir/actions"
case "$1" in
store) cat > "$dir/kept" ;;
get) [ -e "$dir/kept" ] && cat "$dir/kept" || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) [ "$(cat)" = r.example ] && rm "$dir/kept" ;;
esac
"#;

/// Helpers are looked for in `PATH`, which a process has one of: the test below runs in a process of its own.
#[test]
fn logins_are_kept_by_the_helper_that_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    // Another process writes it: ours must not have it open for writing when it forks elsewhere.
    let write = "printf '%s' \"$1\" > \"$0\" && chmod 700 \"$0\"";
    let helper = dir.path().join("docker-credential-snaptest").display().to_string();
    assert!(Command::new("sh").args(["-c", write, &helper, HELPER]).status().unwrap().success());
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let inner = ["--ignored", "--exact", "login::with_a_helper_in_path"];
    let output = Command::new(std::env::current_exe().unwrap()).args(inner).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let actions = std::fs::read_to_string(dir.path().join("actions")).unwrap();
    assert_eq!(actions.lines().collect::<Vec<_>>(), ["store", "get", "get", "erase", "get", "store", "get"]);
}

#[tokio::test]
#[ignore = "needs a helper in PATH; run by the test above"]
async fn with_a_helper_in_path() {
    let setup = Setup::new();
    let client = setup.client();
    setup.write("config.json", r#"{"credHelpers":{"r.example":"snaptest"},"auths":{"r.example":{"auth":"bWU6b2xk"}}}"#);
    let mut login = LoginOutcome { registry: "r.example".to_owned(), username: Some("me".to_owned()), credential: password("secret") };
    let place = client.store_login(&login).await.unwrap();
    assert_eq!(place, LoginPlace::Helper("docker-credential-snaptest".to_owned()));
    // The old password is gone from the file; what is left tells docker that there is a login.
    assert_eq!(config(&setup)["auths"], json!({"r.example": {}}));
    assert_eq!(client.stored_login("r.example").await.unwrap(), Some(password("secret")));
    assert!(client.erase_login("r.example").await.unwrap());
    assert_eq!(config(&setup)["auths"], json!({}));
    assert!(!client.erase_login("r.example").await.unwrap());
    login.credential = Credential::IdentityToken(Secret::new("identity"));
    client.store_login(&login).await.unwrap();
    assert_eq!(client.stored_login("r.example").await.unwrap(), Some(login.credential.clone()));
    // No helper keeps a registry token.
    login.credential = Credential::RegistryToken(Secret::new("token"));
    assert!(matches!(client.store_login(&login).await.unwrap(), LoginPlace::File(_)));
    assert_eq!(config(&setup)["auths"]["r.example"], json!({"registrytoken": "token"}));
    // One that is not there is an error, and the file stays as it is.
    setup.write("config.json", r#"{"credsStore":"there-is-no-such-helper"}"#);
    login.credential = password("secret");
    let error = client.store_login(&login).await.unwrap_err();
    assert!(error.to_string().contains("docker-credential-there-is-no-such-helper"), "{error}");
    assert_eq!(config(&setup), json!({"credsStore": "there-is-no-such-helper"}));
}
