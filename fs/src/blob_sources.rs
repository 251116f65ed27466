//! One blob that several images name, each in its own repository: when one does not give it any more, another may.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use snap_digest::Digest;
use snap_registry::{Blob, ByteStream, Error};

use crate::limits;

/// The places a blob can be had from, the one to ask first at the front.
pub(crate) struct BlobSources {
    digest: Digest,
    size_bytes: u64,
    sources: Mutex<Vec<Named>>,
}

#[derive(Clone)]
struct Named {
    reference: String,
    blob: Arc<dyn Blob>,
}

impl BlobSources {
    /// A blob with one source, `reference`.
    pub(crate) fn new(reference: &str, blob: Arc<dyn Blob>) -> Arc<Self> {
        let sources = Mutex::new(vec![Named { reference: reference.to_owned(), blob: Arc::clone(&blob) }]);
        Arc::new(Self { digest: blob.digest(), size_bytes: blob.size_bytes(), sources })
    }

    /// Puts `reference` in front: whoever asked last has the best chance to have credentials that are still good. `blob` is asked for
    /// only where the reference is new.
    pub(crate) fn prefer(&self, reference: &str, blob: impl FnOnce() -> Result<Arc<dyn Blob>, Error>) -> Result<(), Error> {
        if to_front(&mut self.sources(), reference) {
            return Ok(());
        }
        // Where the place is described may have to be read from disk: not while others wait for the list.
        let named = Named { reference: reference.to_owned(), blob: blob()? };
        let mut sources = self.sources();
        if !to_front(&mut sources, reference) {
            sources.insert(0, named);
            sources.truncate(limits::BLOB_SOURCES_MAX);
        }
        Ok(())
    }

    fn sources(&self) -> MutexGuard<'_, Vec<Named>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Named> {
        self.sources().clone()
    }
}

/// Whether the place is known; it is the first then.
fn to_front(sources: &mut [Named], reference: &str) -> bool {
    let known = sources.iter().position(|source| source.reference == reference);
    if let Some(at) = known {
        sources[..=at].rotate_right(1);
    }
    known.is_some()
}

#[async_trait]
impl Blob for BlobSources {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn stream(&self, range: Range<u64>) -> Result<ByteStream, Error> {
        let sources = self.all();
        let mut first_error = None;
        for Named { reference, blob } in &sources {
            match blob.stream(range.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    if sources.len() > 1 {
                        tracing::warn!(layer = %self.digest, reference, %error, "one of the layer's repositories does not give it");
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        // There is always at least one source.
        Err(first_error.unwrap_or(Error::OutOfBounds { digest: self.digest, size_bytes: self.size_bytes, range }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt;

    use super::*;

    /// A repository that has the blob, or has it no more.
    struct Repository(Option<&'static [u8]>);

    #[async_trait]
    impl Blob for Repository {
        fn digest(&self) -> Digest {
            Digest::of(b"blob")
        }

        fn size_bytes(&self) -> u64 {
            4
        }

        async fn stream(&self, range: Range<u64>) -> Result<ByteStream, Error> {
            let gone = Error::OutOfBounds { digest: self.digest(), size_bytes: 4, range: range.clone() };
            let bytes = self.0.ok_or(gone)?;
            Ok(futures_util::stream::iter([Ok(Bytes::from_static(&bytes[range.start as usize..range.end as usize]))]).boxed())
        }
    }

    fn repository(bytes: Option<&'static [u8]>) -> Arc<dyn Blob> {
        Arc::new(Repository(bytes))
    }

    #[tokio::test]
    async fn another_repository_is_asked_where_the_first_has_nothing() {
        let sources = BlobSources::new("old", repository(Some(b"old!")));
        sources.prefer("new", || Ok(repository(None))).unwrap();
        assert_eq!(sources.read(0..4).await.unwrap(), &b"old!"[..]);
        sources.prefer("newest", || Ok(repository(Some(b"newe")))).unwrap();
        assert_eq!(sources.read(0..4).await.unwrap(), &b"newe"[..]);
        sources.prefer("old", || panic!("it is known already")).unwrap();
        assert_eq!(sources.read(0..4).await.unwrap(), &b"old!"[..]);
        for number in 0..20 {
            sources.prefer(&number.to_string(), || Ok(repository(None))).unwrap();
        }
        assert!(sources.all().len() <= limits::BLOB_SOURCES_MAX);
        assert!(sources.read(0..4).await.is_err());
    }
}
