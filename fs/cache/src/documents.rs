//! Documents by digest, and the references that name them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use snap_digest::Digest;

use crate::Error;
use crate::layout::Layout;
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_REFERENCE_BYTES};
use crate::staging::{StagedFile, remove_if_present};

/// The content of a reference's file.
#[derive(Serialize, Deserialize)]
struct StoredReference {
    reference: String,
    /// JSON text, opaque here.
    descriptor: String,
}

pub(crate) fn get(layout: &Layout, digest: &Digest) -> Option<Vec<u8>> {
    let path = layout.documents().join(digest.hex());
    let bytes = read_bounded(&path, MAX_DOCUMENT_BYTES)?;
    if Digest::of(&bytes) == *digest {
        return Some(bytes);
    }
    discard(&path, "document does not have its digest");
    None
}

pub(crate) fn put(layout: &Layout, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
    check_size("document", bytes, MAX_DOCUMENT_BYTES)?;
    let actual = Digest::of(bytes);
    if actual != *digest {
        return Err(Error::DocumentMismatch { expected: *digest, actual });
    }
    write(layout, &layout.documents().join(digest.hex()), bytes)
}

pub(crate) fn reference(layout: &Layout, reference: &str) -> Option<String> {
    let path = layout.references().join(Digest::of(reference.as_bytes()).hex());
    let bytes = read_bounded(&path, MAX_REFERENCE_BYTES)?;
    match serde_json::from_slice::<StoredReference>(&bytes) {
        Ok(stored) if stored.reference == reference => Some(stored.descriptor),
        _ => {
            discard(&path, "reference file is damaged");
            None
        }
    }
}

pub(crate) fn set_reference(layout: &Layout, reference: &str, descriptor_json: &str) -> Result<(), Error> {
    let path = layout.references().join(Digest::of(reference.as_bytes()).hex());
    let stored = StoredReference { reference: reference.to_owned(), descriptor: descriptor_json.to_owned() };
    let bytes = serde_json::to_vec(&stored).map_err(|error| Error::io("encode", &path, error.into()))?;
    check_size("reference", &bytes, MAX_REFERENCE_BYTES)?;
    write(layout, &path, &bytes)
}

fn write(layout: &Layout, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut staged = StagedFile::create(layout)?;
    staged.write(bytes)?;
    staged.publish_durably(path).map(drop)
}

fn check_size(what: &'static str, bytes: &[u8], limit_bytes: u64) -> Result<(), Error> {
    let size_bytes = bytes.len() as u64;
    if size_bytes > limit_bytes { Err(Error::TooLarge { what, size_bytes, limit_bytes }) } else { Ok(()) }
}

/// The file's bytes up to `limit_bytes`: of a longer file only a part, which then fails its check.
fn read_bounded(path: &Path, limit_bytes: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(limit_bytes).read_to_end(&mut bytes)) {
        Ok(_) => Some(bytes),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read; taken as absent");
            }
            None
        }
    }
}

fn discard(path: &Path, reason: &'static str) {
    tracing::warn!(path = %path.display(), reason, "removed; it is fetched again");
    if let Err(error) = remove_if_present(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove");
    }
}
