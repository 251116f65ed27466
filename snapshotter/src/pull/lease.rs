//! What keeps a pull's pieces from containerd's garbage collector until its image is there.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use snap_digest::Digest;

use crate::containerd::{Containerd, ContainerdError};
use crate::limits;
use crate::pull::error::PullError;
use crate::pull::file_lock::FileLock;

/// The lease of one pull. Dropped without [`Self::end`], it stays for a day, so that the next pull of the image finds what is there.
pub(crate) struct Lease {
    containerd: Containerd,
    dir: PathBuf,
    id: String,
    /// What the leases of all pulls of this image begin with.
    prefix: String,
    /// Says that this pull lives.
    alive: FileLock,
}

impl Lease {
    /// A new one for a pull of the image `name`, with its lock in `dir`.
    ///
    /// # Errors
    /// containerd's, and [`PullError::Lock`].
    pub(crate) async fn create(containerd: &Containerd, dir: &Path, name: &str) -> Result<Self, PullError> {
        let prefix = format!("snap-pull-{}-", Digest::of(name.as_bytes()).short());
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("{prefix}{}-{}", std::process::id(), since_epoch.as_nanos());
        let path = dir.join(&id);
        let failed = |source| PullError::Lock { path: path.clone(), source };
        let alive = FileLock::take(&path).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::AlreadyExists.into()))?;
        containerd.create_lease(&id, Duration::from_secs(limits::PULL_LEASE_S)).await?;
        Ok(Self { containerd: containerd.clone(), dir: dir.to_owned(), id, prefix, alive })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Ends it, and those that pulls of the same image have left which were killed. What fails is logged: containerd ends them in time.
    pub(crate) async fn end(self) {
        if let Err(error) = self.end_all().await {
            tracing::warn!(%error, "a lease stays for a day");
        }
        self.alive.remove();
    }

    async fn end_all(&self) -> Result<(), ContainerdError> {
        self.containerd.delete_lease(&self.id, false).await?;
        for other in self.containerd.leases().await?.iter().filter(|id| id.starts_with(&self.prefix)) {
            // Only where its lock is there and free: someone else may have theirs in another folder.
            match FileLock::inherit(&self.dir.join(other)) {
                Ok(Some(dead)) => {
                    self.containerd.delete_lease(other, false).await?;
                    dead.remove();
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, lease = other, "cannot tell whether a pull lives"),
            }
        }
        Ok(())
    }
}
