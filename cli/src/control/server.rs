//! The side of a control socket that answers.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use snap_digest::Digest;
use snap_fs::{LayerPresence, LayerService};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::messages::{Answer, Request, line};
use crate::limits;

/// Looks at what is to be told, as a line.
type Look = Box<dyn Fn() -> BoxFuture<'static, serde_json::Result<Vec<u8>>> + Send + Sync>;

/// Answers until it is dropped.
pub(crate) struct Control {
    desk: Arc<Desk>,
    listening: JoinHandle<()>,
}

/// What callers can have.
struct Desk {
    answers: OnceLock<Answers>,
    /// Those who ask something that is answered at once.
    callers: Arc<Semaphore>,
    /// Those who wait until layers are here.
    waiters: Arc<Semaphore>,
}

struct Answers {
    look: Look,
    layers: Option<Arc<LayerService>>,
}

impl Control {
    /// Listens at `path`, for this user alone. Must be called within a tokio runtime.
    pub(crate) fn start(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        // The folder around it is this user's alone already.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let desk = Arc::new(Desk {
            answers: OnceLock::new(),
            callers: Arc::new(Semaphore::new(limits::CONTROL_CALLERS_MAX)),
            waiters: Arc::new(Semaphore::new(limits::CONTROL_WAITERS_MAX)),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&desk)));
        Ok(Self { desk, listening })
    }

    /// As [`Self::start`], in the place of what a killed process left.
    pub(crate) fn start_anew(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Self::start(path),
        }
    }

    /// From now on a status is what `look` gives, and `layers`, if there are any, are completed for whoever asks.
    pub(crate) fn tells<T: Serialize, F>(&self, layers: Option<Arc<LayerService>>, look: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let look: Look = Box::new(move || {
            let looking = look();
            async move { line(&looking.await) }.boxed()
        });
        // It is set once, by the only caller.
        let _ = self.desk.answers.set(Answers { look, layers });
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: UnixListener, desk: Arc<Desk>) {
    loop {
        let Ok(permit) = Arc::clone(&desk.callers).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((caller, _)) => {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    if let Err(error) = desk.attend(caller, permit).await {
                        tracing::debug!(%error, "a caller of the control socket left, or did not listen");
                    }
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

impl Desk {
    async fn attend(&self, caller: UnixStream, permit: OwnedSemaphorePermit) -> io::Result<()> {
        let mut caller = BufReader::new(caller);
        let request = timeout(limits::CONTROL_TIMEOUT, read_request(&mut caller)).await??;
        let mut caller = caller.into_inner();
        match request {
            None => Ok(()),
            Some(Ok(Request::Status {})) => {
                let looked = timeout(limits::CONTROL_TIMEOUT, self.look()).await??;
                write(&mut caller, &looked).await
            }
            Some(Ok(Request::Complete { layers })) => {
                let Ok(_waiting) = Arc::clone(&self.waiters).try_acquire_owned() else {
                    return say(&mut caller, &Answer::Error("too many wait for layers already; try again later".to_owned())).await;
                };
                drop(permit);
                let ended = self.complete(&mut caller, &layers).await?;
                say(&mut caller, &ended).await
            }
            Some(Err(why)) => say(&mut caller, &Answer::Error(why)).await,
        }
    }

    async fn look(&self) -> io::Result<Vec<u8>> {
        match self.answers.get() {
            Some(answers) => Ok((answers.look)().await?),
            None => Ok(b"null\n".to_vec()),
        }
    }

    /// Brings layers here, and tells how far that is. Gives the last answer.
    async fn complete(&self, caller: &mut UnixStream, wanted: &[Digest]) -> io::Result<Answer> {
        let Some(layers) = self.answers.get().and_then(|answers| answers.layers.as_ref()) else {
            return Ok(Answer::Error("this process completes no layers on request".to_owned()));
        };
        let failed = |error: &snap_fs::FsError| {
            let mut text = error.to_string();
            text.truncate(text.floor_char_boundary(limits::REPORT_TEXT_BYTES_MAX));
            Answer::Error(text)
        };
        let completing = match while_telling(caller, Vec::new, layers.complete(wanted)).await? {
            Ok(completing) => completing,
            Err(error) => return Ok(failed(&error)),
        };
        let ended = while_telling(caller, || completing.presence(), completing.run()).await?;
        say(caller, &Answer::Layers(completing.presence())).await?;
        Ok(ended.map_or_else(|error| failed(&error), |()| Answer::Done(true)))
    }
}

/// The caller's request, or why it is none. Nothing from a caller that is gone.
async fn read_request(caller: &mut BufReader<UnixStream>) -> io::Result<Option<Result<Request, String>>> {
    let mut request = Vec::new();
    caller.take(limits::CONTROL_REQUEST_BYTES_MAX).read_until(b'\n', &mut request).await?;
    Ok(match request.len() as u64 {
        0 => None,
        limits::CONTROL_REQUEST_BYTES_MAX if !request.ends_with(b"\n") => Some(Err("the request is too long".to_owned())),
        _ => Some(serde_json::from_slice(&request).map_err(|error| format!("the request makes no sense: {error}"))),
    })
}

/// Waits for `work`, and tells the caller at least every [`limits::CONTROL_PERIOD`] how far it is: that is also how a caller that is gone
/// is noticed, and what it wanted is left.
async fn while_telling<T>(
    caller: &mut UnixStream,
    presence: impl Fn() -> Vec<LayerPresence>,
    work: impl Future<Output = T>,
) -> io::Result<T> {
    tokio::pin!(work);
    let mut ticks = interval(limits::CONTROL_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = ticks.tick() => say(caller, &Answer::Layers(presence())).await?,
        }
    }
}

async fn say(caller: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    write(caller, &line(answer)?).await
}

async fn write(caller: &mut UnixStream, line: &[u8]) -> io::Result<()> {
    timeout(limits::CONTROL_TIMEOUT, caller.write_all(line)).await?
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
