//! Content has one writer at a time, among all clients of a containerd.

use std::time::{Duration, Instant};

use snap_digest::Digest;

use crate::limits;
use crate::pull::error::PullError;

/// Outlasts another client that is writing the same content.
pub(crate) struct Patience {
    digest: Digest,
    until: Instant,
}

impl Patience {
    /// With whoever writes the content of `digest`, from now on.
    pub(crate) fn with(digest: Digest) -> Self {
        Self { digest, until: Instant::now() + Duration::from_millis(limits::PULL_BUSY_MS) }
    }

    /// Waits until it is time to try again.
    ///
    /// # Errors
    /// [`PullError::Busy`] where it has taken too long.
    pub(crate) async fn wait(&self) -> Result<(), PullError> {
        if Instant::now() > self.until {
            return Err(PullError::Busy { layer: self.digest });
        }
        tokio::time::sleep(Duration::from_millis(limits::PULL_BUSY_POLL_MS)).await;
        Ok(())
    }
}
