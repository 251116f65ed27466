//! An OCI layout on disk as a source: `index.json` and `blobs/sha256/<hex>`
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>).

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use snap_digest::Digest;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::limits::{DOCUMENT_MAX_BYTES, LAYOUT_READ_BYTES};
use crate::manifest::parse_index;
use crate::reference::{LayoutReference, Reference};
use crate::source::{Blob, ByteStream, Source, bounded, bounded_document, bounded_small_blob, in_bounds};

/// The annotation of an entry of `index.json` that holds its tag.
const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// One image of an OCI layout.
pub(crate) struct LayoutSource {
    reference: LayoutReference,
}

impl LayoutSource {
    pub(crate) fn new(reference: LayoutReference) -> Self {
        Self { reference }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.reference.path().join("blobs").join("sha256").join(digest.hex())
    }

    /// Reads a blob whole and verifies it. The caller has bounded its size.
    async fn whole(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        let path = self.blob_path(&descriptor.digest);
        let expected = descriptor.clone();
        blocking(path.clone(), move || {
            let file = open_blob(&path, expected.size_bytes)?;
            let bytes = read_up_to(&file, expected.size_bytes).map_err(|error| layout_io(&path, error))?;
            let actual = Digest::of(&bytes);
            if actual != expected.digest {
                return Err(Error::DigestMismatch { what: path.display().to_string(), expected: expected.digest, actual });
            }
            Ok(bytes)
        })
        .await
    }
}

#[async_trait]
impl Source for LayoutSource {
    fn name(&self) -> String {
        Reference::Layout(self.reference.clone()).to_string()
    }

    fn pinned(&self) -> Option<Digest> {
        None
    }

    async fn resolve(&self) -> Result<Descriptor, Error> {
        let path = self.reference.path().join("index.json");
        let bytes = blocking(path.clone(), move || {
            let file = File::open(&path).map_err(|error| layout_io(&path, error))?;
            let size_bytes = file.metadata().map_err(|error| layout_io(&path, error))?.len();
            bounded(|| path.display().to_string(), size_bytes, DOCUMENT_MAX_BYTES)?;
            read_up_to(&file, DOCUMENT_MAX_BYTES).map_err(|error| layout_io(&path, error))
        })
        .await?;
        choose_tag(&bytes, &self.reference)
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        bounded_document(descriptor)?;
        self.whole(descriptor).await
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        bounded_small_blob(descriptor)?;
        self.whole(descriptor).await
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64, Error> {
        let path = self.blob_path(digest);
        blocking(path.clone(), move || Ok(regular(&path)?.len())).await
    }

    fn blob(&self, descriptor: &Descriptor) -> Arc<dyn Blob> {
        Arc::new(LayoutBlob { path: self.blob_path(&descriptor.digest), digest: descriptor.digest, size_bytes: descriptor.size_bytes })
    }
}

/// The entry of the layout's index with the reference's tag; without a tag, the only entry.
fn choose_tag(bytes: &[u8], reference: &LayoutReference) -> Result<Descriptor, Error> {
    let what = || reference.path().join("index.json").display().to_string();
    let entries = parse_index(bytes).map_err(|source| Error::Document { what: what(), source: source.into() })?;
    let found = match reference.tag() {
        Some(tag) => entries.iter().find(|entry| entry.annotations.get(TAG_ANNOTATION).is_some_and(|name| name == tag)),
        None if entries.len() == 1 => entries.first(),
        None => None,
    };
    found.cloned().ok_or_else(|| Error::LayoutTag {
        path: reference.path().to_owned(),
        tag: reference.tag().map(str::to_owned),
        available: entries.iter().filter_map(|entry| entry.annotations.get(TAG_ANNOTATION).cloned()).collect(),
    })
}

/// A blob file of a layout.
struct LayoutBlob {
    path: PathBuf,
    digest: Digest,
    size_bytes: u64,
}

#[async_trait]
impl Blob for LayoutBlob {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn stream(&self, range: Range<u64>) -> Result<ByteStream, Error> {
        in_bounds(self.digest, self.size_bytes, &range)?;
        let (path, size_bytes) = (self.path.clone(), self.size_bytes);
        let opened = blocking(path.clone(), move || open_blob(&path, size_bytes)).await?;
        let file = Arc::new(opened);
        let path = self.path.clone();
        Ok(Box::pin(stream::try_unfold(range.start, move |at| {
            let (file, path) = (file.clone(), path.clone());
            async move {
                if at >= range.end {
                    return Ok(None);
                }
                let length = (range.end - at).min(LAYOUT_READ_BYTES);
                let piece = blocking(path.clone(), move || {
                    let mut buffer = vec![0; length as usize];
                    file.read_exact_at(&mut buffer, at).map_err(|error| layout_io(&path, error))?;
                    Ok(Bytes::from(buffer))
                })
                .await?;
                Ok(Some((piece, at + length)))
            }
        })))
    }
}

/// Opens a blob and checks that it is a file of the size its descriptor says.
fn open_blob(path: &Path, expected_bytes: u64) -> Result<File, Error> {
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    regular(path)?;
    let file = File::open(path).map_err(|error| layout_io(path, error))?;
    let metadata = file.metadata().map_err(|error| layout_io(path, error))?;
    if metadata.len() != expected_bytes {
        return Err(Error::SizeMismatch { what: path.display().to_string(), expected_bytes, actual_bytes: metadata.len() });
    }
    Ok(file)
}

/// What is known of a file that has to be a regular one.
fn regular(path: &Path) -> Result<Metadata, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| layout_io(path, error))?;
    if metadata.is_file() { Ok(metadata) } else { Err(layout_io(path, io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))) }
}

fn read_up_to(file: &File, limit_bytes: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.take(limit_bytes).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn layout_io(path: &Path, source: io::Error) -> Error {
    Error::LayoutIo { path: path.to_owned(), source: Arc::new(source) }
}

/// Runs disk I/O where it may block. `path` names the file if the runtime is shutting down.
async fn blocking<T: Send + 'static>(path: PathBuf, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(layout_io(&path, io::Error::other(error))),
    }
}
