//! From a reference to an image, with and without the registry.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use snap_registry::testing::{Fault, Matcher};
use snap_registry::{DocumentStore, ErrorKind, NoStore, Platform, resolve_image};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A store in memory.
#[derive(Default)]
struct Memory {
    documents: Mutex<HashMap<Digest, Bytes>>,
    resolved: Mutex<HashMap<String, Descriptor>>,
}

#[async_trait::async_trait]
impl DocumentStore for Memory {
    async fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.documents.lock().unwrap().get(digest).cloned()
    }
    async fn put(&self, digest: &Digest, bytes: &[u8]) {
        self.documents.lock().unwrap().insert(*digest, Bytes::copy_from_slice(bytes));
    }
    async fn resolved(&self, reference: &str) -> Option<Descriptor> {
        self.resolved.lock().unwrap().get(reference).cloned()
    }
    async fn set_resolved(&self, reference: &str, descriptor: &Descriptor) {
        self.resolved.lock().unwrap().insert(reference.to_owned(), descriptor.clone());
    }
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn index_of(entries: &[(&Descriptor, &str)]) -> String {
    let entries: Vec<_> = entries
        .iter()
        .map(|(entry, architecture)| {
            serde_json::json!({"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size_bytes,
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
}

#[tokio::test]
async fn an_index_leads_to_the_platforms_image() {
    let (registry, setup, bytes) = (FaultyRegistry::start().await, Setup::new(), sample(100));
    let ours = registry.add_image("a", "ours", &[layer(&bytes)]);
    let other = registry.add_image("a", "other", &[]);
    let inner = registry.add_manifest("a", "inner", index_of(&[(&other, "arm64"), (&ours, "amd64")]), INDEX);
    let root = registry.add_manifest("a", "t", index_of(&[(&other, "s390x"), (&inner, "amd64")]), INDEX);
    let image = resolve_image(&*setup.source(&registry.reference("a:t")), &NoStore, &amd64()).await.unwrap();
    assert_eq!((image.root.digest, image.manifest.descriptor.digest), (root.digest, ours.digest));
    let passed: Vec<Digest> = image
        .indexes
        .iter()
        .map(|(index, bytes)| (index.digest, Digest::of(bytes)))
        .map(|(named, actual)| {
            assert_eq!(named, actual);
            actual
        })
        .collect();
    assert_eq!(passed, [root.digest, inner.digest]);
    assert_eq!((&image.root, image.manifest.descriptor.platform.as_ref()), (&image.indexes[0].0, Some(&amd64())));
    assert_eq!(image.manifest.layers[0].digest, Digest::of(&bytes));
    assert_eq!((image.config.entrypoint, image.config.platform, image.stale), (vec!["/bin/true".to_owned()], amd64(), None));
    let error = resolve_image(&*setup.source(&registry.reference("a:t")), &NoStore, &"linux/arm".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "no image for platform linux/arm/v7; there are: linux/s390x, linux/amd64");
}

#[tokio::test]
async fn what_is_stored_is_not_asked_for_again() {
    let (registry, setup, store) = (FaultyRegistry::start().await, Setup::new(), Memory::default());
    let manifest = registry.add_image("a", "t", &[layer(&sample(10))]);
    let source = setup.source(&registry.reference("a:t"));
    resolve_image(&*source, &store, &amd64()).await.unwrap();
    registry.forget_requests();
    resolve_image(&*source, &store, &amd64()).await.unwrap();
    assert_eq!(registry.requests().iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), ["HEAD"]);
    // By digest there is nothing left to ask.
    let pinned = setup.source(&registry.reference(&format!("a@{}", manifest.digest)));
    registry.forget_requests();
    let image = resolve_image(&*pinned, &store, &amd64()).await.unwrap();
    assert_eq!((image.manifest.descriptor.digest, registry.requests().len()), (manifest.digest, 0));
    // Without a store, two requests are enough.
    resolve_image(&*setup.source(&pinned.name()), &NoStore, &amd64()).await.unwrap();
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn every_document_on_the_way_has_its_media_type() {
    let (registry, setup, store) = (FaultyRegistry::start().await, Setup::new(), Memory::default());
    let manifest = registry.add_image("a", "ours", &[]);
    let root = registry.add_manifest("a", "t", index_of(&[(&manifest, "amd64")]), "application/json");
    // From a registry that calls it JSON, and from a store that calls it nothing.
    for reference in ["a:t".to_owned(), format!("a@{}", root.digest)] {
        let image = resolve_image(&*setup.source(&registry.reference(&reference)), &store, &amd64()).await.unwrap();
        assert_eq!((image.root.digest, image.root.media_type.as_str()), (root.digest, INDEX), "{reference}");
        assert_eq!(image.indexes[0].0, image.root);
    }
    let bare = format!("a@{}", manifest.digest);
    let image = resolve_image(&*setup.source(&registry.reference(&bare)), &store, &amd64()).await.unwrap();
    assert_eq!((&image.root, image.indexes.len()), (&manifest, 0));
    assert_eq!(image.manifest.descriptor, manifest);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_replaced_by_what_it_said_before() {
    let (registry, setup, store) = (FaultyRegistry::start().await, Setup::new(), Memory::default());
    let old = registry.add_image("a", "t", &[layer(&sample(10))]);
    let source = setup.source(&registry.reference("a:t"));
    resolve_image(&*source, &store, &amd64()).await.unwrap();
    registry.add_image("a", "t", &[layer(&sample(11))]);
    for fault in [Fault::Status(500, None), Fault::Status(403, None), Fault::Status(401, None), Fault::TruncateAt(0)] {
        registry.heal();
        registry.fault(fault.clone(), Matcher::path("").method("HEAD"));
        registry.fault(fault.clone(), Matcher::path("").method("GET"));
        let image = resolve_image(&*source, &store, &amd64()).await;
        let image = image.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(image.manifest.descriptor.digest, old.digest, "{fault:?}");
        assert!(image.stale.is_some(), "{fault:?}");
    }
    // "Not found" is an answer.
    registry.heal();
    registry.fault(Fault::Status(404, None), Matcher::path(""));
    assert_eq!(resolve_image(&*source, &store, &amd64()).await.unwrap_err().kind(), ErrorKind::NotFound);
    // So is a new image.
    registry.heal();
    let image = resolve_image(&*source, &store, &amd64()).await.unwrap();
    assert!(image.manifest.descriptor.digest != old.digest && image.stale.is_none());
}

#[tokio::test]
async fn nothing_known_means_the_registrys_error() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.fault(Fault::Status(500, None), Matcher::path(""));
    let error = resolve_image(&*setup.source(&registry.reference("a:t")), &Memory::default(), &amd64()).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_manifest_and_a_configuration_of_different_images_are_refused() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let config = registry.add_blob(r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#);
    let blob = registry.add_blob(sample(10));
    let described =
        |descriptor: &Descriptor| serde_json::json!({"mediaType": LAYER, "digest": descriptor.digest, "size": descriptor.size_bytes});
    let manifest = serde_json::json!({"schemaVersion": 2, "config": described(&config), "layers": [described(&blob)]});
    registry.add_manifest("a", "t", manifest.to_string(), "application/vnd.oci.image.manifest.v1+json");
    let error = resolve_image(&*setup.source(&registry.reference("a:t")), &NoStore, &amd64()).await.unwrap_err();
    assert!(error.to_string().contains("1 layers and the configuration 0 diff IDs"), "{error}");
}

#[tokio::test]
async fn indexes_that_contain_each_other_without_end_are_refused() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let mut descriptor = registry.add_image("a", "ours", &[]);
    for depth in 0..6 {
        descriptor = registry.add_manifest("a", &format!("t{depth}"), index_of(&[(&descriptor, "amd64")]), INDEX);
    }
    let resolved = async |tag: &str| resolve_image(&*setup.source(&registry.reference(tag)), &NoStore, &amd64()).await;
    assert!(resolved("a:t3").await.is_ok());
    assert!(resolved("a:t5").await.unwrap_err().to_string().contains("indexes inside each other"));
}
