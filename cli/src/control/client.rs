//! The caller's side of a control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use snap_digest::Digest;
use snap_fs::LayerPresence;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::messages::{Answer, Request, line};
use crate::limits;

const NO_SENSE: &str = "the process gave an answer that makes no sense\nhint: it may be of another version: start it again";

/// Asks the process that listens at `path` how it is. Nothing: it has nothing to tell yet.
pub(crate) fn ask<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    ask_on(&BlockingStream::connect(path).context("cannot reach the process")?)
}

/// As [`ask`], where the process has been reached.
pub(crate) fn ask_on<T: DeserializeOwned>(mut caller: &BlockingStream) -> anyhow::Result<Option<T>> {
    caller.set_read_timeout(Some(limits::CONTROL_TIMEOUT))?;
    caller.set_write_timeout(Some(limits::CONTROL_TIMEOUT))?;
    // An older process answers without being asked, and may have closed its end already.
    let _ = caller.write_all(&line(&Request::Status {})?);
    let mut answer = Vec::new();
    let mut answers = BufReader::new(caller.take(limits::CONTROL_ANSWER_BYTES_MAX));
    answers.read_until(b'\n', &mut answer).context("the process does not answer")?;
    if let Ok(Answer::Error(why)) = serde_json::from_slice(&answer) {
        bail!("the process cannot tell how it is: {why}");
    }
    serde_json::from_slice(&answer).context(NO_SENSE)
}

/// Has the service that listens at `path` bring all data of layers here, verified, and waits for that. `on_progress` is told how much of
/// each is here, several times a second; of none while they are being opened. Dropping the future ends the work.
///
/// # Errors
/// The service's, as it says it: layers that it has not, data that it cannot get. And where it cannot be reached or falls silent.
pub(crate) async fn complete(path: &Path, layers: &[Digest], mut on_progress: impl FnMut(&[LayerPresence])) -> anyhow::Result<()> {
    let connected = timeout(limits::CONTROL_TIMEOUT, UnixStream::connect(path)).await;
    let mut caller = tokio::io::BufReader::new(connected.context("the service does not answer")?.context("cannot reach the service")?);
    let request = line(&Request::Complete { layers: layers.to_vec() })?;
    // Where it did not arrive, the answer says why.
    let _ = timeout(limits::CONTROL_TIMEOUT, caller.get_mut().write_all(&request)).await.context("the service does not listen")?;
    let mut answer = Vec::new();
    loop {
        answer.clear();
        let next = (&mut caller).take(limits::CONTROL_ANSWER_BYTES_MAX);
        tokio::pin!(next);
        let read = timeout(limits::CONTROL_SILENCE, next.read_until(b'\n', &mut answer)).await;
        if read.context("the service has fallen silent")?.context("the service is gone")? == 0 {
            bail!("the service ended before the layers were here");
        }
        match serde_json::from_slice(&answer).context(NO_SENSE)? {
            Answer::Layers(layers) => on_progress(&layers),
            Answer::Done(_) => return Ok(()),
            Answer::Error(why) => bail!(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A process that does the same for each caller.
    fn process(path: &Path, callers: usize, answer: impl Fn(BlockingStream) + Send + 'static) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || (0..callers).for_each(|_| answer(listener.accept().unwrap().0)))
    }

    #[tokio::test]
    async fn an_older_process_that_reads_no_request_is_understood_or_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        // Its whole answer, and it is gone, whether the request has come or not.
        let older = process(&path, 2, |mut caller| caller.write_all(b"{\"pid\":7,\"layers\":[]}\n").unwrap());
        let asked = path.clone();
        let status = tokio::task::spawn_blocking(move || ask::<serde_json::Value>(&asked)).await.unwrap().unwrap().unwrap();
        assert_eq!(status["pid"], 7);
        let error = complete(&path, &[], |_| {}).await.unwrap_err();
        assert!(format!("{error:#}").contains("another version"), "{error:#}");
        older.join().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ends_early_or_says_nonsense_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let ending = process(&path, 1, |mut caller| {
            let mut request = String::new();
            BufReader::new(&caller).read_line(&mut request).unwrap();
            assert_eq!(request, format!("{{\"complete\":{{\"layers\":[\"{}\"]}}}}\n", Digest::of(b"layer")));
            caller.write_all(b"{\"layers\":[]}\n").unwrap();
        });
        let mut told = 0;
        let error = complete(&path, &[Digest::of(b"layer")], |_| told += 1).await.unwrap_err();
        assert!(error.to_string().contains("ended before"), "{error:#}");
        assert_eq!(told, 1);
        ending.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        let nonsense = process(&path, 1, |mut caller| {
            BufReader::new(&caller).read_line(&mut String::new()).unwrap();
            caller.write_all(b"what?").unwrap();
        });
        let error = tokio::task::spawn_blocking(move || ask::<String>(&path)).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("no sense"), "{error:#}");
        nonsense.join().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        assert!(ask::<String>(&path).unwrap_err().to_string().contains("cannot reach"));
        assert!(complete(&path, &[], |_| {}).await.unwrap_err().to_string().contains("cannot reach"));
    }
}
