//! Work on the disk, off the async threads.

use crate::error::Error;

/// Runs `work` where it may block. It runs to its end even if the caller goes away.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|source| Err(Error::BrokenOff { source }))
}
