//! One pull at a time works on a layer, among all processes of this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snap_digest::Digest;

use crate::limits;
use crate::pull::error::PullError;
use crate::pull::file_lock::FileLock;

/// The locks of the pulls that write to one containerd, namespace and snapshotter.
#[derive(Clone)]
pub(crate) struct ChainLocks {
    dir: PathBuf,
    /// Tells the locks of different containerds and namespaces apart.
    prefix: String,
}

/// A layer that nobody else works on. The kernel gives it up if this process dies.
pub(crate) struct ChainLock(Option<FileLock>);

impl ChainLocks {
    /// Locks in `dir` for what is unpacked to `place`, any text that names it.
    pub(crate) fn new(dir: &Path, place: &str) -> Self {
        Self { dir: dir.to_owned(), prefix: Digest::of(place.as_bytes()).short().to_owned() }
    }

    /// Waits for the lock of a layer; `waiting` is called once if it has to.
    ///
    /// # Errors
    /// [`PullError::Held`] where that takes too long.
    pub(crate) async fn wait(&self, chain_id: Digest, waiting: impl FnOnce()) -> Result<ChainLock, PullError> {
        let path = self.dir.join(format!("{}-{}", self.prefix, chain_id.hex()));
        let deadline = Instant::now() + Duration::from_millis(limits::PULL_BUSY_MS);
        let mut waiting = Some(waiting);
        loop {
            if let Some(lock) = FileLock::take(&path).map_err(|source| PullError::Lock { path: path.clone(), source })? {
                return Ok(ChainLock(Some(lock)));
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            if Instant::now() > deadline {
                return Err(PullError::Held { chain_id });
            }
            tokio::time::sleep(Duration::from_millis(limits::PULL_BUSY_POLL_MS)).await;
        }
    }
}

impl Drop for ChainLock {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(FileLock::remove);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_at_a_time_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let inside = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (locks, inside) = (ChainLocks::new(dir.path(), "here"), Arc::clone(&inside));
                tokio::spawn(async move {
                    let lock = locks.wait(Digest::of(b"layer"), || ()).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(lock);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn another_layer_and_another_place_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (ChainLocks::new(dir.path(), "here"), ChainLocks::new(dir.path(), "there"));
        let _held = here.wait(Digest::of(b"a"), || panic!("it is free")).await.unwrap();
        let _other = here.wait(Digest::of(b"b"), || panic!("it is free")).await.unwrap();
        let _elsewhere = there.wait(Digest::of(b"a"), || panic!("it is free")).await.unwrap();
    }
}
