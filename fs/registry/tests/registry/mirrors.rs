//! `hosts.toml`: mirrors in their order, and what they may be asked.

use super::*;
use snap_registry::ErrorKind;
use snap_registry::testing::{Fault, Matcher};

/// A registry with a mirror in front of it, which has the same image; the mirror serves `capabilities`.
struct Mirrored {
    mirror: FaultyRegistry,
    registry: FaultyRegistry,
    setup: Setup,
    bytes: Bytes,
}

impl Mirrored {
    async fn new(capabilities: &str) -> Self {
        let (mirror, registry, setup, bytes) =
            (FaultyRegistry::start().await, FaultyRegistry::start().await, Setup::new(), sample(100_000));
        for server in [&mirror, &registry] {
            server.add_image("a/b", "t", &[layer(&bytes)]);
        }
        let toml = format!("[host.\"http://{}\"]\ncapabilities = {capabilities}\n", mirror.addr());
        setup.write(&format!("certs.d/{}/hosts.toml", registry.addr()), toml);
        Self { mirror, registry, setup, bytes }
    }

    fn source(&self) -> Arc<dyn Source> {
        self.setup.source(&self.registry.reference("a/b:t"))
    }

    fn blob(&self) -> Arc<dyn Blob> {
        self.source().blob(&Descriptor::of(&self.bytes, LAYER))
    }
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_whose_it_is() {
    let case = Mirrored::new(r#"["pull", "resolve"]"#).await;
    case.source().resolve().await.unwrap();
    assert_eq!(case.blob().read(0..100_000).await.unwrap(), case.bytes);
    assert_eq!(case.registry.requests(), []);
    let expected = format!("ns={}", case.registry.addr()).replace(':', "%3A");
    assert!(case.mirror.requests().iter().all(|request| request.query == expected), "{:?}", case.mirror.requests());
}

#[tokio::test]
async fn a_mirror_that_may_only_pull_resolves_no_tag() {
    let case = Mirrored::new(r#"["pull"]"#).await;
    case.source().resolve().await.unwrap();
    assert_eq!((case.mirror.requests().len(), case.registry.requests().len()), (0, 1));
    case.blob().read(0..10).await.unwrap();
    assert_eq!((case.mirror.requests().len(), case.registry.requests().len()), (1, 1));
}

#[tokio::test]
async fn whatever_a_mirror_cannot_do_the_registry_does() {
    for status in [404, 403, 500, 429] {
        let case = Mirrored::new(r#"["pull", "resolve"]"#).await;
        case.mirror.fault(Fault::Status(status, None), Matcher::path(""));
        case.source().resolve().await.unwrap();
        assert_eq!(case.blob().read(0..100).await.unwrap(), case.bytes.slice(..100));
        assert_eq!((case.mirror.requests().len(), case.registry.requests().len()), (2, 2), "{status}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_at_the_mirror_goes_on_at_the_registry() {
    let case = Mirrored::new(r#"["pull"]"#).await;
    case.mirror.fault(Fault::TruncateAt(40_000), Matcher::blobs());
    assert!(streamed(&*case.blob(), 0..100_000).await.unwrap() == case.bytes);
    assert_eq!(case.registry.requests()[0].header("range"), Some("bytes=40000-99999"));
}

#[tokio::test]
async fn altered_documents_of_a_mirror_are_replaced_by_the_registrys() {
    let case = Mirrored::new(r#"["pull"]"#).await;
    case.mirror.fault(Fault::AlteredByte(3), Matcher::manifests());
    let source = case.source();
    let descriptor = source.resolve().await.unwrap();
    let bytes = source.document(&descriptor).await.unwrap();
    assert_eq!(Digest::of(&bytes), descriptor.digest);
    assert_eq!(case.mirror.requests().len(), 1);
}

#[tokio::test]
async fn the_registrys_word_counts_more_than_a_mirrors() {
    let case = Mirrored::new(r#"["pull"]"#).await;
    case.mirror.fault(Fault::Status(404, None), Matcher::path(""));
    case.registry.fault(Fault::Status(500, None), Matcher::path(""));
    assert_eq!(case.blob().read(0..10).await.unwrap_err().kind(), ErrorKind::Unreachable);
    case.mirror.heal();
    case.registry.heal();
    case.mirror.fault(Fault::Status(500, None), Matcher::path(""));
    case.registry.fault(Fault::Status(404, None), Matcher::path(""));
    assert_eq!(case.blob().read(0..10).await.unwrap_err().kind(), ErrorKind::NotFound);
}
