//! The control socket: whoever connects is told how the mount is, in one line of JSON.
//!
//! The line is an [`ImageStatus`], or `null` while the image is being opened.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use snap_fs::{ImageStatus, OpenImage};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::limits;

/// Answers until it is dropped.
pub(crate) struct Control {
    image: Arc<OnceLock<Arc<OpenImage>>>,
    listening: JoinHandle<()>,
}

impl Control {
    /// Listens at `path`, for this user alone. Must be called within a tokio runtime.
    pub(crate) fn start(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        // The folder around it is this user's alone already.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let image: Arc<OnceLock<Arc<OpenImage>>> = Arc::default();
        let listening = tokio::spawn(listen(listener, Arc::clone(&image)));
        Ok(Self { image, listening })
    }

    /// From now on the answer is about this image.
    pub(crate) fn serves(&self, image: &Arc<OpenImage>) {
        // It is set once, by the only caller.
        let _ = self.image.set(Arc::clone(image));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: UnixListener, image: Arc<OnceLock<Arc<OpenImage>>>) {
    let callers = Arc::new(Semaphore::new(limits::CONTROL_CALLERS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&callers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((caller, _)) => {
                let image = Arc::clone(&image);
                tokio::spawn(async move {
                    match timeout(limits::CONTROL_TIMEOUT, answer(caller, &image)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "a caller of the control socket left"),
                        Err(_) => tracing::debug!("a caller of the control socket did not read its answer"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a caller of the control socket");
                // Out of descriptors, most likely: they are freed by other work than this loop's.
                tokio::time::sleep(limits::CONTROL_TIMEOUT).await;
            }
        }
    }
}

async fn answer(mut caller: UnixStream, image: &OnceLock<Arc<OpenImage>>) -> io::Result<()> {
    let status = image.get().map(|image| ImageStatus::of(image));
    let mut line = serde_json::to_vec(&status)?;
    line.push(b'\n');
    caller.write_all(&line).await?;
    caller.shutdown().await
}

/// Asks the process that listens at `path`. Nothing: the image is being opened.
pub(crate) fn ask(path: &Path) -> anyhow::Result<Option<ImageStatus>> {
    let caller = BlockingStream::connect(path).context("cannot reach the process")?;
    caller.set_read_timeout(Some(limits::CONTROL_TIMEOUT))?;
    let mut line = Vec::new();
    caller.take(limits::CONTROL_ANSWER_BYTES_MAX).read_to_end(&mut line).context("the process does not answer")?;
    serde_json::from_slice(&line).context("the process gave an answer that makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn while_opening_the_answer_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _control = Control::start(&path).unwrap();
        let asked = path.clone();
        // Callers that never read do not keep others from being answered.
        let _idle: Vec<_> = (1..limits::CONTROL_CALLERS_MAX).map(|_| BlockingStream::connect(&path).unwrap()).collect();
        let status = tokio::task::spawn_blocking(move || ask(&asked)).await.unwrap().unwrap();
        assert!(status.is_none());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask(&dir.path().join("sock")).unwrap_err().to_string().contains("cannot reach"));
    }
}
