//! Credentials of the program's own, which go before docker's configuration.

use std::sync::{Mutex, MutexGuard};

use super::*;
use snap_registry::testing::{Fault, Matcher, TokenAuth};
use snap_registry::{Credential, CredentialProvider, ErrorKind, Secret};

/// Gives one credential for whatever it is asked, and remembers what that was.
#[derive(Debug, Default)]
struct Given {
    credential: Mutex<Option<Credential>>,
    asked: Mutex<Vec<(String, String)>>,
}

impl CredentialProvider for Given {
    fn credential(&self, host: &str, repository: &str) -> Option<Credential> {
        self.asked().push((host.to_owned(), repository.to_owned()));
        self.credential.lock().unwrap().clone()
    }
}

impl Given {
    fn asked(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.asked.lock().unwrap()
    }

    fn set(&self, credential: Option<Credential>) {
        *self.credential.lock().unwrap() = credential;
    }
}

struct Case {
    registry: FaultyRegistry,
    setup: Setup,
    given: Arc<Given>,
    client: Client,
}

impl Case {
    async fn new() -> Self {
        let (registry, setup, given) = (FaultyRegistry::start().await, Setup::new(), Arc::new(Given::default()));
        let client = Client::new(ClientOptions { credentials: Some(given.clone()), ..setup.options() }).unwrap();
        Self { registry, setup, given, client }
    }

    /// Docker's configuration has this password of `me`.
    fn log_in(&self, password: &str) {
        let json = format!(r#"{{"auths":{{"{}":{{"username":"me","password":"{password}"}}}}}}"#, self.registry.addr());
        self.setup.write("config.json", json);
    }

    /// Reads a blob of the repository `a/b`.
    async fn read(&self) -> Result<Bytes, Error> {
        let reference = self.registry.reference("a/b:t").parse().unwrap();
        self.client.source(&reference).unwrap().blob(&self.registry.add_blob(sample(10))).read(0..10).await
    }
}

fn password(password: &str) -> Option<Credential> {
    Some(Credential::Password { username: "me".to_owned(), password: Secret::new(password) })
}

fn tokens_for(password: &str) -> TokenAuth {
    TokenAuth { user: Some(("me".to_owned(), password.to_owned())), ..TokenAuth::default() }
}

#[tokio::test]
async fn the_provider_goes_first_and_is_asked_once_for_many_requests() {
    let case = Case::new().await;
    case.registry.require_basic("me", "right");
    case.log_in("wrong");
    case.given.set(password("right"));
    for _ in 0..3 {
        assert_eq!(case.read().await.unwrap(), sample(10));
    }
    assert_eq!(*case.given.asked(), [(case.registry.addr().to_string(), "a/b".to_owned())]);
    assert_eq!(case.registry.count("/blobs/"), 4);
}

#[tokio::test]
async fn nobody_is_asked_where_nothing_is_refused() {
    let case = Case::new().await;
    case.read().await.unwrap();
    assert_eq!(*case.given.asked(), []);
}

#[tokio::test]
async fn a_new_credential_is_used_when_the_old_one_is_refused() {
    let case = Case::new().await;
    for (round, secret) in ["first", "second"].into_iter().enumerate() {
        case.registry.require_basic("me", secret);
        case.given.set(password(secret));
        case.read().await.unwrap();
        assert_eq!(case.given.asked().len(), round + 1);
    }
    // Some registries answer 403 to a credential that has ended.
    case.given.set(password("third"));
    case.registry.require_basic("me", "third");
    case.registry.fault(Fault::Status(403, None), Matcher::blobs().times(1));
    case.read().await.unwrap();
    assert_eq!(case.given.asked().len(), 3);
}

#[tokio::test]
async fn where_the_registry_refuses_the_provided_one_dockers_is_tried() {
    let case = Case::new().await;
    case.registry.require_basic("me", "right");
    case.log_in("right");
    case.given.set(password("wrong"));
    case.read().await.unwrap();
    // Without, with the provided one, with docker's; then docker's is kept.
    assert_eq!(case.registry.count("/blobs/"), 3);
    case.read().await.unwrap();
    assert_eq!(case.registry.count("/blobs/"), 4);
}

#[tokio::test]
async fn where_the_token_server_refuses_the_provided_one_dockers_is_tried() {
    let case = Case::new().await;
    case.registry.require_token(tokens_for("right"));
    case.log_in("right");
    case.given.set(password("wrong"));
    case.read().await.unwrap();
    assert_eq!((case.registry.count("/token"), case.registry.count("/blobs/")), (2, 2));
}

#[tokio::test]
async fn a_token_of_the_provided_one_that_is_denied_gives_way_to_dockers() {
    let case = Case::new().await;
    case.registry.require_token(tokens_for("right"));
    case.log_in("right");
    case.given.set(password("right"));
    case.registry.fault(Fault::Status(403, None), Matcher::blobs().skip(1).times(1));
    case.read().await.unwrap();
    assert_eq!((case.registry.count("/token"), case.registry.count("/blobs/")), (2, 3));
}

#[tokio::test]
async fn a_token_server_in_trouble_does_not_make_the_provided_one_wrong() {
    let case = Case::new().await;
    case.registry.require_token(tokens_for("right"));
    case.log_in("wrong");
    case.given.set(password("right"));
    case.registry.fault(Fault::Status(503, None), Matcher::path("/token").times(1));
    case.read().await.unwrap();
    assert_eq!(case.registry.count("/token"), 2);
}

#[tokio::test]
async fn refused_with_both_the_error_shows_neither() {
    let case = Case::new().await;
    case.registry.require_basic("me", "right");
    case.given.set(password("secret-of-the-provider"));
    for docker in [None, Some("secret-of-docker")] {
        if let Some(docker) = docker {
            case.log_in(docker);
        }
        let error = case.read().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(format!("{error}").contains("hint: "), "{error}");
        assert!(!format!("{error} {error:?} {:?}", case.client).contains("secret-of"), "{error:?}");
    }
    // Neither is remembered as wrong.
    case.given.set(password("right"));
    case.read().await.unwrap();
}

#[tokio::test]
async fn what_is_public_is_read_with_a_credential_that_has_ended() {
    let case = Case::new().await;
    // Its token server knows no user, but gives anyone a token who comes without one.
    case.registry.require_token(TokenAuth::default());
    case.given.set(Some(Credential::IdentityToken(Secret::new("ended"))));
    case.read().await.unwrap();
}

#[tokio::test]
async fn identity_and_registry_tokens_are_understood() {
    let case = Case::new().await;
    case.registry.require_token(TokenAuth { identity_token: Some("identity".to_owned()), ..TokenAuth::default() });
    case.given.set(Some(Credential::IdentityToken(Secret::new("identity"))));
    case.read().await.unwrap();
    assert_eq!(case.registry.count("/token"), 1);
    // The server's first token, for a client that has never been to the token server.
    let given = Arc::new(Given::default());
    given.set(Some(Credential::RegistryToken(Secret::new("token-1"))));
    let client = Client::new(ClientOptions { credentials: Some(given), ..case.setup.options() }).unwrap();
    Case { client, ..case }.read().await.unwrap();
}

#[tokio::test]
async fn what_was_given_for_a_registry_is_not_shown_to_its_mirrors() {
    let (case, mirror) = (Case::new().await, FaultyRegistry::start().await);
    mirror.require_basic("me", "right");
    case.setup.write(&format!("certs.d/{}/hosts.toml", case.registry.addr()), format!("[host.\"http://{}\"]\n", mirror.addr()));
    case.registry.require_basic("me", "right");
    case.given.set(password("right"));
    case.read().await.unwrap();
    let asked: Vec<String> = case.given.asked().iter().map(|(host, _)| host.clone()).collect();
    assert_eq!(asked, [mirror.addr().to_string(), case.registry.addr().to_string()]);
}
