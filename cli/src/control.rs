//! The control socket: whoever connects is told how the mount, or the service, is, in one line of JSON.
//!
//! The line is what the process gave it to tell, or `null` as long as there is nothing: while an image is being opened.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::limits;

/// Looks at what is to be told, as JSON.
type Look = Box<dyn Fn() -> BoxFuture<'static, serde_json::Result<Vec<u8>>> + Send + Sync>;

/// Answers until it is dropped.
pub(crate) struct Control {
    look: Arc<OnceLock<Look>>,
    listening: JoinHandle<()>,
}

impl Control {
    /// Listens at `path`, for this user alone. Must be called within a tokio runtime.
    pub(crate) fn start(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        // The folder around it is this user's alone already.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let look: Arc<OnceLock<Look>> = Arc::default();
        let listening = tokio::spawn(listen(listener, Arc::clone(&look)));
        Ok(Self { look, listening })
    }

    /// As [`Self::start`], in the place of what a killed process left.
    pub(crate) fn start_anew(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Self::start(path),
        }
    }

    /// From now on the answer is what `look` gives.
    pub(crate) fn tells<T: Serialize, F>(&self, look: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = T> + Send + 'static,
    {
        // It is set once, by the only caller.
        let _ = self.look.set(Box::new(move || {
            let looking = look();
            async move { serde_json::to_vec(&looking.await) }.boxed()
        }));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: UnixListener, look: Arc<OnceLock<Look>>) {
    let callers = Arc::new(Semaphore::new(limits::CONTROL_CALLERS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&callers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((caller, _)) => {
                let look = Arc::clone(&look);
                tokio::spawn(async move {
                    match timeout(limits::CONTROL_TIMEOUT, answer(caller, &look)).await {
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

async fn answer(mut caller: UnixStream, look: &OnceLock<Look>) -> io::Result<()> {
    let mut line = match look.get() {
        Some(look) => look().await?,
        None => b"null".to_vec(),
    };
    line.push(b'\n');
    caller.write_all(&line).await?;
    caller.shutdown().await
}

/// Asks the process that listens at `path`. Nothing: it has nothing to tell yet.
pub(crate) fn ask<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
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
        let status = tokio::task::spawn_blocking(move || ask::<String>(&asked)).await.unwrap().unwrap();
        assert!(status.is_none());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask::<String>(&dir.path().join("sock")).unwrap_err().to_string().contains("cannot reach"));
    }
}
