//! Lists of tags: in pages, from mirrors, and from registries that mean no good.

use super::*;
use snap_registry::testing::{Fault, Matcher, TokenAuth};
use snap_registry::{Cause, ErrorKind, Reference, Refusal, RegistryReference, TagsProblem};

fn reference(registry: &FaultyRegistry, name: &str) -> RegistryReference {
    let Reference::Registry(reference) = registry.reference(name).parse().unwrap() else { panic!("a registry reference") };
    reference
}

async fn tags(setup: &Setup, registry: &FaultyRegistry) -> Result<Vec<String>, Error> {
    setup.client().tags(&reference(registry, "a/b")).await
}

fn cause(error: &Error) -> &Cause {
    match error {
        Error::Request(request) => &request.cause,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn tags_of_all_pages_come_in_order_and_once() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.set_tags("a/b", &["z", "1.0", "z", "not a tag!", "1.1", "1.0", "latest"]);
    let expected = ["z", "1.0", "not a tag!", "1.1", "latest"];
    assert_eq!(tags(&setup, &registry).await.unwrap(), expected);
    assert_eq!(registry.requests().len(), 1);
    for page_tags in 1..4 {
        registry.page_tags(page_tags);
        assert_eq!(tags(&setup, &registry).await.unwrap(), expected, "{page_tags}");
    }
    registry.set_tags("a/b", &[]);
    assert_eq!(tags(&setup, &registry).await.unwrap(), <[String; 0]>::default());
}

#[tokio::test]
async fn the_next_page_may_be_named_in_full() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.set_tags("a/b", &["1", "2", "3"]);
    registry.page_tags(2);
    let next = format!("<http://me:pw@{}/v2/a/b/tags/list?last=2#x>; rel=\"prev next\"", registry.addr());
    registry.fault(Fault::Link(next), Matcher::path("/tags/list").times(1));
    assert_eq!(tags(&setup, &registry).await.unwrap(), ["1", "2", "3"]);
    assert_eq!(registry.requests()[1].header("authorization"), None);
}

#[tokio::test]
async fn a_list_that_goes_on_at_another_host_is_refused() {
    for target in ["http://127.0.0.1:9/v2/a/b/tags/list", "//other.example/x", "https://127.0.0.1/v2/", "data:,x"] {
        let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
        registry.set_tags("a/b", &["1"]);
        registry.fault(Fault::Link(format!("<{target}>; rel=next")), Matcher::path("/tags/list"));
        let error = tags(&setup, &registry).await.unwrap_err();
        assert!(matches!(cause(&error), Cause::Tags(TagsProblem::OtherHost)), "{target}: {error}");
        assert_eq!(registry.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_page_that_fails_is_asked_for_again_and_none_before_it() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.set_tags("a/b", &["1", "2", "3", "4"]);
    registry.page_tags(2);
    registry.fault(Fault::Status(503, None), Matcher::path("/tags/list").skip(1).times(1));
    registry.fault(Fault::TruncateAt(5), Matcher::path("/tags/list").skip(1).times(1));
    assert_eq!(tags(&setup, &registry).await.unwrap(), ["1", "2", "3", "4"]);
    let queries: Vec<String> = registry.requests().into_iter().map(|request| request.query).collect();
    assert_eq!(queries, ["", "last=2", "last=2", "last=2"]);
}

#[tokio::test]
async fn a_mirror_that_may_resolve_lists_and_is_told_whose_tags() {
    let (mirror, registry, setup) = (FaultyRegistry::start().await, FaultyRegistry::start().await, Setup::new());
    let hosts = format!("certs.d/{}/hosts.toml", registry.addr());
    let mirrored = |capabilities: &str| format!("[host.\"http://{}\"]\ncapabilities = {capabilities}\n", mirror.addr());
    mirror.set_tags("a/b", &["1", "2", "3"]);
    mirror.page_tags(2);
    registry.set_tags("a/b", &["1", "other"]);
    setup.write(&hosts, mirrored(r#"["pull", "resolve"]"#));
    assert_eq!(tags(&setup, &registry).await.unwrap(), ["1", "2", "3"]);
    let ns = format!("ns={}", registry.addr()).replace(':', "%3A");
    let queries: Vec<String> = mirror.requests().into_iter().map(|request| request.query).collect();
    assert_eq!((queries, registry.requests().len()), (vec![ns.clone(), format!("last=2&{ns}")], 0));
    // Where the mirror fails in the middle, the registry begins anew.
    mirror.fault(Fault::Status(404, None), Matcher::path("/tags/list").skip(1));
    assert_eq!(tags(&setup, &registry).await.unwrap(), ["1", "other"]);
    setup.write(&hosts, mirrored(r#"["pull"]"#));
    mirror.forget_requests();
    assert_eq!(tags(&setup, &registry).await.unwrap(), ["1", "other"]);
    assert_eq!(mirror.requests(), []);
}

#[tokio::test]
async fn tags_are_listed_with_the_authorization_of_a_pull() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.set_tags("a/b", &["1", "2"]);
    registry.page_tags(1);
    registry.require_token(TokenAuth::default());
    assert_eq!(tags(&setup, &registry).await.unwrap(), ["1", "2"]);
    assert_eq!(registry.count("/token"), 1);
}

#[tokio::test]
async fn what_is_no_list_is_refused() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let error = tags(&setup, &registry).await.unwrap_err();
    assert_eq!((error.refusal(), error.kind()), (Some(Refusal::RepositoryUnknown), ErrorKind::NotFound), "{error}");
    registry.set_tags("a/b", &["1"]);
    registry.fault(Fault::AlteredByte(0), Matcher::path("/tags/list"));
    let error = tags(&setup, &registry).await.unwrap_err();
    assert!(matches!(cause(&error), Cause::Tags(TagsProblem::Json)), "{error}");
}

#[tokio::test]
async fn lists_without_end_are_ended() {
    let (registry, setup) =
        (FaultyRegistry::start().await, Setup::with(Limits { listing_deadline: Duration::from_millis(400), ..limits() }));
    registry.set_tags("a/b", &["1"]);
    registry.fault(Fault::Link("</v2/a/b/tags/list>; rel=next".to_owned()), Matcher::path("/tags/list"));
    let error = tags(&setup, &registry).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::TooLarge), "{error}");
    let many: Vec<String> = (0..=snap_registry::limits::TAGS_MAX).map(|tag| tag.to_string()).collect();
    registry.heal();
    registry.set_tags("a/b", &many.iter().map(String::as_str).collect::<Vec<_>>());
    let error = tags(&Setup::new(), &registry).await.unwrap_err();
    assert!(matches!(cause(&error), Cause::Tags(TagsProblem::TooManyTags)), "{error}");
    let long = "x".repeat(9 << 20);
    registry.set_tags("a/b", &[&long]);
    let error = tags(&Setup::new(), &registry).await.unwrap_err();
    assert!(matches!(cause(&error), Cause::Tags(TagsProblem::PageTooLarge)), "{error}");
}
