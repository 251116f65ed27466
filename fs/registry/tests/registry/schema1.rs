//! Images that a registry has in docker's first format only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use snap_registry::testing::{Fault, Matcher};
use snap_registry::{Cause, DocumentStore, NoStore, Schema1Blob, Schema1Found, parse_config, parse_manifest, parse_schema1, resolve_image};

use super::*;

const SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const UNSIGNED: &str = "application/vnd.docker.distribution.manifest.v1+json";

/// A manifest of two steps, of which the second changed no file.
fn manifest(blob: &Digest) -> String {
    let empty = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
    let last = json!({"id": "b", "parent": "a", "os": "linux", "architecture": "amd64", "throwaway": true,
        "config": {"Cmd": ["/bin/true"]}, "created": "2016-01-02T03:04:05Z"});
    let first = json!({"id": "a", "created": "2016-01-02T03:04:04Z", "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ADD x"]}});
    let manifest = json!({"schemaVersion": 1, "name": "a", "tag": "t", "architecture": "amd64",
        "fsLayers": [{"blobSum": empty}, {"blobSum": blob}],
        "history": [{"v1Compatibility": last.to_string()}, {"v1Compatibility": first.to_string()}]});
    serde_json::to_string_pretty(&manifest).unwrap()
}

/// `payload` with a signature in it that nobody could verify.
fn signed(payload: &str) -> String {
    let head = payload.strip_suffix("\n}").unwrap();
    let protected = json!({"formatLength": head.len(), "formatTail": URL_SAFE_NO_PAD.encode("\n}")}).to_string();
    let signature = json!({"header": {"alg": "ES256"}, "signature": "x", "protected": URL_SAFE_NO_PAD.encode(protected)});
    format!("{head},\n   \"signatures\": [{signature}]\n}}")
}

async fn found(source: &dyn Source, store: &dyn DocumentStore) -> Schema1Found {
    match resolve_image(source, store, &"linux/amd64".parse().unwrap()).await.unwrap_err() {
        Error::Schema1(found) => *found,
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_schema1_image_is_found_and_handed_over_for_conversion() {
    let (registry, setup, blob) = (FaultyRegistry::start().await, Setup::new(), sample(100));
    let layer = registry.add_blob(blob.clone());
    let payload = manifest(&layer.digest);
    for (document, media_type) in [(signed(&payload), SIGNED), (payload.clone(), UNSIGNED)] {
        registry.add_manifest("a", "t", document, media_type);
        let named = Descriptor::of(payload.as_bytes(), media_type);
        for reference in ["a:t".to_owned(), format!("a@{}", named.digest)] {
            let source = setup.source(&registry.reference(&reference));
            assert_eq!(source.resolve().await.unwrap().digest, named.digest, "{reference}");
            let found = found(&*source, &NoStore).await;
            // Only what is signed, which is what the digest names.
            assert_eq!((found.root, &found.bytes[..]), (named.clone(), payload.as_bytes()), "{reference}");
        }
    }
    let manifest = parse_schema1(payload.as_bytes()).unwrap();
    let source = setup.source(&registry.reference("a:t"));
    let mut blobs = Vec::new();
    for digest in manifest.kept_blobs() {
        let size_bytes = source.blob_size(&digest).await.unwrap();
        let bytes = source.blob(&Descriptor::new(digest, size_bytes, LAYER)).read(0..size_bytes).await.unwrap();
        assert_eq!(bytes, blob);
        blobs.push(Schema1Blob { digest, size_bytes, diff_id: Digest::of(b"unpacked") });
    }
    let image = manifest.convert(&blobs).unwrap();
    let parsed = parse_manifest(&image.manifest_bytes, &image.manifest).unwrap();
    assert_eq!((&parsed.config, parsed.layers[0].digest, parsed.layers.len()), (&image.config, layer.digest, 1));
    let config = parse_config(&image.config_bytes).unwrap();
    assert_eq!((config.cmd, config.diff_ids), (vec!["/bin/true".to_owned()], vec![Digest::of(b"unpacked")]));
}

#[tokio::test]
async fn a_schema1_image_is_found_where_head_says_nothing() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let payload = manifest(&Digest::of(b"x"));
    registry.add_manifest("a", "t", signed(&payload), SIGNED);
    registry.fault(Fault::Status(405, None), Matcher::manifests().method("HEAD"));
    let found = found(&*setup.source(&registry.reference("a:t")), &NoStore).await;
    assert_eq!((found.root.digest, registry.requests().len()), (Digest::of(payload.as_bytes()), 2));
}

#[tokio::test]
async fn newer_formats_are_asked_for_first() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    registry.add_image("a", "t", &[]);
    setup.source(&registry.reference("a:t")).resolve().await.unwrap();
    let accept = registry.requests()[0].header("accept").unwrap().to_owned();
    let at = |media_type: &str| accept.find(media_type).unwrap_or_else(|| panic!("{media_type} is not in {accept}"));
    for new in ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json", "list.v2+json"] {
        assert!(at(new) < at(SIGNED) && at(new) < at(UNSIGNED), "{accept}");
    }
}

/// Around a payload with the right digest, there can be anything: it must be read by nobody.
#[tokio::test]
async fn what_is_not_signed_is_not_used() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    let good = registry.add_image("a", "good", &[layer(&sample(10))]);
    let good_bytes = setup.source(&registry.reference("a:good")).document(&good).await.unwrap();
    let evil = registry.add_image("a", "evil", &[layer(&sample(11))]);
    let evil_bytes = setup.source(&registry.reference("a:evil")).document(&evil).await.unwrap();
    // One byte of it is in the "signed" text, and all else of the good manifest is that text's tail.
    let protected = json!({"formatLength": 1, "formatTail": URL_SAFE_NO_PAD.encode(&good_bytes[1..])}).to_string();
    let signatures = json!([{"protected": URL_SAFE_NO_PAD.encode(protected)}]);
    let evil_text = String::from_utf8(evil_bytes.to_vec()).unwrap();
    let forged = format!("{},\"signatures\":{signatures}}}", evil_text.strip_suffix('}').unwrap());
    registry.add_manifest("b", &good.digest.to_string(), forged, &good.media_type);
    let source = setup.source(&registry.reference(&format!("b@{}", good.digest)));
    let image = resolve_image(&*source, &NoStore, &"linux/amd64".parse().unwrap()).await.unwrap();
    assert_eq!((image.manifest.layers[0].digest, &image.manifest_bytes), (Digest::of(&sample(10)), &good_bytes));
    // Where it has another digest, it is refused.
    let other = format!("b@{}", Digest::of(b"other"));
    let document = signed(&manifest(&Digest::of(b"x")));
    registry.add_manifest("b", &Digest::of(b"other").to_string(), document, SIGNED);
    let error = setup.source(&registry.reference(&other)).resolve().await.unwrap_err();
    assert!(matches!(&error, Error::Request(error) if matches!(error.cause, Cause::DigestMismatch { .. })), "{error}");
}
