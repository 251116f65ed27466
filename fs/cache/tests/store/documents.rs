//! Documents and references.

use std::fs;

use snap_cache::{Error, limits};
use snap_digest::Digest;

use crate::fixture::open;

#[test]
fn documents_are_checked_going_in_and_coming_out() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let digest = Digest::of(b"manifest");
    assert_eq!(cache.document(&digest), None);
    assert!(matches!(cache.put_document(&digest, b"other"), Err(Error::DocumentMismatch { .. })));
    assert_eq!(cache.document(&digest), None);
    let large = vec![0; limits::MAX_DOCUMENT_BYTES as usize + 1];
    assert!(matches!(cache.put_document(&Digest::of(&large), &large), Err(Error::TooLarge { .. })));

    let path = dir.path().join("documents/sha256").join(digest.hex());
    for damaged in [b"manifess".as_slice(), b"", &large] {
        cache.put_document(&digest, b"manifest").unwrap();
        assert_eq!(cache.document(&digest).unwrap(), b"manifest");
        fs::write(&path, damaged).unwrap();
        assert_eq!(cache.document(&digest), None);
        assert!(!path.exists());
    }
}

#[test]
fn references_are_replaced_and_a_damaged_one_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let (name, descriptor) = ("registry.example/app:1", r#"{"digest":"x"}"#);
    assert_eq!(cache.reference(name), None);
    cache.set_reference(name, "old").unwrap();
    cache.set_reference(name, descriptor).unwrap();
    assert_eq!(open(dir.path()).reference(name).unwrap(), descriptor);
    assert_eq!(cache.reference("registry.example/app:2"), None);
    let path = dir.path().join("references/sha256").join(Digest::of(name.as_bytes()).hex());
    let stored = fs::read_to_string(&path).unwrap();
    for damaged in ["", &stored[1..], &stored.replace("app:1", "app:2")] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(cache.reference(name), None);
        assert!(!path.exists());
    }
    let large = "x".repeat(limits::MAX_REFERENCE_BYTES as usize);
    assert!(matches!(cache.set_reference(name, &large), Err(Error::TooLarge { .. })));
}
