//! What every source promises, checked against a registry and an OCI layout with the same contents.

use super::*;
use snap_registry::limits::{DOCUMENT_MAX_BYTES, READ_MAX_BYTES, SMALL_BLOB_MAX_BYTES};
use snap_registry::{ErrorKind, parse_manifest};

/// Runs `check` with both kinds of source of the image `a/b:t` with one layer of these bytes.
async fn with_each<F: AsyncFn(Arc<dyn Source>, Descriptor)>(bytes: &Bytes, check: F) {
    let registry = FaultyRegistry::start().await;
    let setup = Setup::new();
    let manifest = registry.add_image("a/b", "t", &[layer(bytes)]);
    registry.add_image("a/b", "other", &[]);
    let layout = setup.dir.path().join("layout");
    registry.write_layout("a/b", &layout).unwrap();
    check(setup.source(&registry.reference("a/b:t")), manifest.clone()).await;
    check(setup.source(&format!("oci:{}:t", layout.display())), manifest).await;
}

#[tokio::test]
async fn a_tag_resolves_to_its_manifest_and_documents_are_read() {
    with_each(&sample(100), async |source, manifest| {
        let resolved = source.resolve().await.unwrap();
        assert_eq!(
            (resolved.digest, resolved.size_bytes, &resolved.media_type),
            (manifest.digest, manifest.size_bytes, &manifest.media_type)
        );
        let bytes = source.document(&resolved).await.unwrap();
        let parsed = parse_manifest(&bytes, &resolved).unwrap();
        assert_eq!(Digest::of(&source.small_blob(&parsed.config).await.unwrap()), parsed.config.digest);
        assert_eq!(parsed.layers.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn any_range_of_a_blob_is_exactly_that_range() {
    let bytes = sample(3 << 20);
    let size = bytes.len() as u64;
    with_each(&bytes, async |source, _| {
        let blob = source.blob(&Descriptor::of(&bytes, LAYER));
        assert_eq!((blob.digest(), blob.size_bytes()), (Digest::of(&bytes), size));
        for range in [0..size, 0..1, size - 1..size, 0..0, size..size, 1000..1001, 65_536..131_072, 1 << 20..size] {
            let expected = &bytes[range.start as usize..range.end as usize];
            assert!(streamed(&*blob, range.clone()).await.unwrap() == expected, "{range:?}");
            assert!(blob.read(range.clone()).await.unwrap() == expected, "{range:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_range_outside_the_blob_is_refused() {
    let bytes = sample(100);
    with_each(&bytes, async |source, _| {
        let blob = source.blob(&Descriptor::of(&bytes, LAYER));
        for range in [0..101, 101..101, 100..u64::MAX] {
            assert_eq!(blob.read(range.clone()).await.unwrap_err().kind(), ErrorKind::Invalid, "{range:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn sizes_are_bounded_before_anything_is_read() {
    with_each(&sample(1), async |source, _| {
        let huge = |size| Descriptor::new(Digest::of(b"huge"), size, LAYER);
        assert_eq!(source.document(&huge(DOCUMENT_MAX_BYTES + 1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(source.small_blob(&huge(SMALL_BLOB_MAX_BYTES + 1)).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(source.blob(&huge(u64::MAX)).read(0..READ_MAX_BYTES + 1).await.unwrap_err().kind(), ErrorKind::TooLarge);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    with_each(&sample(1), async |source, _| {
        let missing = Descriptor::of(b"missing", LAYER);
        assert_eq!(source.document(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(source.small_blob(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(source.blob(&missing).read(0..1).await.unwrap_err().kind(), ErrorKind::NotFound);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_size_is_noticed() {
    let bytes = sample(100);
    with_each(&bytes, async |source, _| {
        let wrong = Descriptor::new(Digest::of(&bytes), 101, LAYER);
        assert_eq!(source.small_blob(&wrong).await.unwrap_err().kind(), ErrorKind::DigestMismatch);
        assert!(streamed(&*source.blob(&wrong), 0..101).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_layout_lists_its_tags_when_one_has_to_be_chosen() {
    let registry = FaultyRegistry::start().await;
    let setup = Setup::new();
    let image = registry.add_image("a", "one", &[]);
    let layout = setup.dir.path().join("layout");
    registry.write_layout("a", &layout).unwrap();
    let reference = format!("oci:{}", layout.display());
    assert_eq!(setup.source(&reference).resolve().await.unwrap().digest, image.digest);
    registry.add_image("a", "two", &[layer(&sample(3))]);
    registry.write_layout("a", &layout).unwrap();
    let error = setup.source(&reference).resolve().await.unwrap_err();
    assert!(matches!(&error, Error::LayoutTag { available, .. } if available.len() == 2), "{error}");
    assert!(error.to_string().contains("hint: the layout has "), "{error}");
    assert_eq!(setup.source(&format!("{reference}:three")).resolve().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn altered_content_of_a_layout_is_noticed() {
    let registry = FaultyRegistry::start().await;
    let setup = Setup::new();
    let blob = registry.add_blob(sample(10));
    registry.write_layout("a", setup.dir.path()).unwrap();
    std::fs::write(setup.dir.path().join("blobs/sha256").join(blob.digest.hex()), b"0123456789").unwrap();
    let source = setup.source(&format!("oci:{}", setup.dir.path().display()));
    assert!(matches!(source.small_blob(&blob).await.unwrap_err(), Error::DigestMismatch { .. }));
}
