//! What a serving process tells the command that started it: JSON lines over a pipe, its standard output.
//!
//! The pipe is also how each side learns that the other is gone: its end closes. Until the mount is committed (see [`crate::serve`]),
//! reports come at least every [`limits::PROGRESS_PERIOD`], so that a command that died is noticed.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use snap_digest::Digest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::ChildStdout;

use crate::console::Console;
use crate::limits;

/// One report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The image is being opened; layers without an index are streamed.
    Opening {
        /// Layers that are or were streamed.
        layers: usize,
        /// Compressed bytes of those that came so far.
        done_bytes: u64,
        /// Compressed bytes of those in all.
        total_bytes: u64,
    },
    /// The tree is usable.
    Ready(Outcome),
    /// The rest is being fetched.
    Fetching {
        /// Decoded bytes that are here.
        present_bytes: u64,
        /// Decoded bytes in all.
        total_bytes: u64,
    },
    /// The rest cannot be fetched for now; it is tried again and again.
    Struggling {
        /// The last reason.
        why: String,
    },
    /// Everything is here.
    Complete(Outcome),
    /// It failed, and everything is undone.
    Error {
        /// The whole text, `error:` and hints included.
        text: String,
    },
}

/// What a mount came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The mount point.
    pub(crate) dir: PathBuf,
    /// The reference in full.
    pub(crate) image: String,
    /// Digest of the platform's manifest.
    pub(crate) manifest: Digest,
    /// Who serves it.
    pub(crate) pid: u32,
    /// Whether everything is here.
    pub(crate) complete: bool,
    /// Why an earlier resolution of the reference is used, where the registry could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stale: Option<String>,
}

/// Where reports go.
pub(crate) enum Reporter {
    /// To the command that started this process.
    Pipe(pipe::Sender),
    /// To the terminal: this process is the command.
    Console(Console),
    /// Nowhere, any more.
    Closed,
}

impl Reporter {
    /// Takes standard output as the pipe, and leaves /dev/null in its place.
    pub(crate) fn take_stdout() -> io::Result<Self> {
        let pipe = io::stdout().as_fd().try_clone_to_owned()?;
        nix::unistd::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
        Ok(Self::Pipe(pipe::Sender::from_owned_fd(pipe)?))
    }

    /// Tells something that the next report of its kind makes up for: where the reader is slow, it is dropped.
    ///
    /// # Errors
    /// Where the reader is gone.
    pub(crate) fn tell_progress(&mut self, report: &Report) -> anyhow::Result<()> {
        let pipe = match self {
            Self::Pipe(pipe) => pipe,
            Self::Console(console) => {
                console.show(report);
                return Ok(());
            }
            Self::Closed => return Ok(()),
        };
        // Shorter than PIPE_BUF, so that all of it is written or nothing.
        match pipe.try_write(&line(report)?) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error).context("the command that asked for the mount is gone"),
            _ => Ok(()),
        }
    }

    /// Tells something that must arrive.
    ///
    /// # Errors
    /// Where the reader is gone, or does not read.
    pub(crate) async fn tell(&mut self, report: &Report) -> anyhow::Result<()> {
        let Self::Pipe(pipe) = self else { return self.tell_progress(report) };
        let line = line(report)?;
        let written = tokio::time::timeout(limits::REPORT_WRITE_TIMEOUT, pipe.write_all(&line)).await;
        written.context("the command that asked for the mount does not listen")?.context("the command that asked for the mount is gone")
    }

    /// Tells the last word and ends the conversation: from here on the mount is nobody's but its user's.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub(crate) async fn commit(&mut self, report: &Report) -> anyhow::Result<()> {
        self.tell(report).await?;
        if let (Self::Console(console), Report::Ready(outcome) | Report::Complete(outcome)) = (&*self, report) {
            console.finish(outcome)?;
        }
        *self = Self::Closed;
        Ok(())
    }
}

fn line(report: &Report) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(line)
}

/// The other end of the pipe.
pub(crate) struct Reports {
    pipe: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Reports {
    /// The reports of a process that was started with its standard output piped.
    pub(crate) fn new(pipe: ChildStdout) -> Self {
        Self { pipe: BufReader::new(pipe), line: Vec::new() }
    }

    /// The next report; nothing where there will be none. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Report>> {
        let room = limits::REPORT_LINE_BYTES_MAX - self.line.len() as u64;
        (&mut self.pipe).take(room).read_until(b'\n', &mut self.line).await?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => {
                let report = serde_json::from_slice(&self.line);
                self.line.clear();
                Ok(Some(report.context("the background process sent a report that makes no sense")?))
            }
            Some(_) if (self.line.len() as u64) < limits::REPORT_LINE_BYTES_MAX => Ok(None), // Killed in the middle of a line.
            Some(_) => bail!("the background process sent a report that is too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_fits_into_one_atomic_write() {
        const PIPE_BUF: usize = 4096;
        let opening = Report::Opening { layers: usize::MAX, done_bytes: u64::MAX, total_bytes: u64::MAX };
        let fetching = Report::Fetching { present_bytes: u64::MAX, total_bytes: u64::MAX };
        assert!([opening, fetching].iter().all(|report| line(report).unwrap().len() < PIPE_BUF));
    }

    #[tokio::test]
    async fn reports_arrive_as_they_were_told() {
        let (sender, receiver) = pipe::pipe().unwrap();
        let mut reporter = Reporter::Pipe(sender);
        let report = Report::Error { text: "error: line\nhint: other line".to_owned() };
        reporter.tell(&report).await.unwrap();
        reporter.tell_progress(&report).unwrap();
        let mut lines = BufReader::new(receiver).lines();
        for _ in 0..2 {
            let line = lines.next_line().await.unwrap().unwrap();
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
        drop(lines);
        // A program that another test is just starting has a copy of the reading end until its exec.
        let noticed = async {
            while reporter.tell_progress(&report).is_ok() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(limits::REPORT_WRITE_TIMEOUT, noticed).await.expect("a reader that is gone is noticed");
        assert!(reporter.tell(&report).await.is_err(), "the reader is gone");
    }
}
