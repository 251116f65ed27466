//! Questions to a person at the terminal that standard input is, and secrets from where none is.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use snap_registry::Secret;

use crate::limits;
use crate::signals::Stop;

/// What a person did with a question.
pub(crate) enum Answer<T> {
    Given(T),
    /// Ended the program instead.
    Stopped(Stop),
}

/// Asks for a line that may be seen. Ctrl-C ends the program.
///
/// # Errors
/// Where the terminal cannot be used, or nothing is answered.
pub(crate) fn ask(question: &str) -> anyhow::Result<String> {
    show(question)?;
    let mut line = Vec::new();
    read_line(&mut line)?;
    let line = String::from_utf8(line).ok().context("what was typed is not UTF-8")?;
    Ok(line.trim().to_owned())
}

/// Asks for a secret, which is not shown while it is typed. The terminal is as before whenever this returns, and whatever ends it.
///
/// To be called while no other thread runs, which would be ended by the signals that this holds back.
///
/// # Errors
/// Where the terminal cannot be used, or the secret is too long.
pub(crate) fn ask_secret(question: &str) -> anyhow::Result<Answer<Secret>> {
    let held = Held::back()?;
    // Dropped before the signals are let go.
    let silence = Silence::begin()?;
    show(question)?;
    let mut line = Vec::new();
    let stop = read_line_or_signal(&mut line, &held)?;
    drop(silence);
    // The person's own was not shown.
    show("\n")?;
    match stop {
        Some(stop) => Ok(Answer::Stopped(stop)),
        None => secret(line).map(Answer::Given),
    }
}

/// Reads a secret from standard input to its end.
///
/// # Errors
/// Where it is empty or too long, or cannot be read.
pub(crate) fn read_secret() -> anyhow::Result<Secret> {
    let mut bytes = Vec::new();
    let limit = limits::SECRET_BYTES_MAX + 1;
    io::stdin().lock().take(limit as u64).read_to_end(&mut bytes).context("cannot read standard input")?;
    secret(bytes)
}

/// As docker does, one line end is taken off.
fn secret(mut bytes: Vec<u8>) -> anyhow::Result<Secret> {
    if bytes.len() > limits::SECRET_BYTES_MAX {
        bail!("the password is longer than {} bytes", limits::SECRET_BYTES_MAX);
    }
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        bail!("the password is empty");
    }
    // The error would show it.
    Ok(Secret::new(String::from_utf8(bytes).ok().context("the password is not UTF-8")?))
}

/// Talk goes to standard error: standard output may be a file.
fn show(text: &str) -> anyhow::Result<()> {
    let mut stderr = io::stderr();
    stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).context("cannot write to standard error")
}

fn read_line(line: &mut Vec<u8>) -> anyhow::Result<()> {
    while !read_some(line)? {}
    Ok(())
}

fn read_line_or_signal(line: &mut Vec<u8>, held: &Held) -> anyhow::Result<Option<Stop>> {
    let stdin = io::stdin();
    loop {
        let mut waited = [PollFd::new(&held.signals, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut waited, None) {
            Err(rustix::io::Errno::INTR) => continue,
            waited => waited.context("cannot wait for the terminal")?,
        };
        if !waited[0].revents().is_empty() {
            return held.next().map(Some);
        }
        if read_some(line)? {
            return Ok(None);
        }
    }
}

/// Adds what the terminal has; whether the line is at its end. Straight from the terminal, which gives no more than a line at a time: what
/// a buffer had read ahead would be lost to the next question.
fn read_some(line: &mut Vec<u8>) -> anyhow::Result<bool> {
    let mut buffer = [0; 1024];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut buffer)).context("cannot read from the terminal")?;
    line.extend_from_slice(&buffer[..read]);
    if line.len() > limits::SECRET_BYTES_MAX {
        bail!("the answer is longer than {} bytes", limits::SECRET_BYTES_MAX);
    }
    Ok(read == 0 || line.last() == Some(&b'\n'))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> anyhow::Result<Self> {
        let cannot = "cannot keep the terminal from showing what is typed";
        let before = tcgetattr(io::stdin()).context(cannot)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Drain, &silent).context(cannot)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to put right.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Signals that would leave the terminal silent, held back until this is dropped. The polite ones to end can be read; the others wait.
struct Held {
    all: SigSet,
    signals: SignalFd,
}

impl Held {
    fn back() -> anyhow::Result<Self> {
        let polite: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        let all: SigSet = polite.iter().chain([Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP]).collect();
        let signals = SignalFd::with_flags(&polite, SfdFlags::SFD_CLOEXEC).context("cannot catch signals")?;
        all.thread_block().context("cannot catch signals")?;
        Ok(Self { all, signals })
    }

    fn next(&self) -> anyhow::Result<Stop> {
        let signal = self.signals.read_signal().context("cannot read a signal")?;
        let is_interrupt = signal.is_some_and(|signal| signal.ssi_signo == Signal::SIGINT as u32);
        Ok(if is_interrupt { Stop::Interrupt } else { Stop::Terminate })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.all.thread_unblock();
    }
}

/// Whether a person can be asked.
pub(crate) fn can_ask() -> bool {
    rustix::termios::isatty(io::stdin().as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_a_secret() {
        for (bytes, text) in [("pass", "pass"), ("pass\n", "pass"), ("pass\r\n", "pass"), ("pass\n\n", "pass\n"), (" p \n", " p ")] {
            assert_eq!(secret(bytes.into()).unwrap().reveal(), text);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        let long = vec![b'p'; limits::SECRET_BYTES_MAX + 1];
        for bytes in [Vec::new(), b"\n".to_vec(), b"pass\xff".to_vec(), long] {
            let error = format!("{:?}", secret(bytes).unwrap_err());
            assert!(error.contains("the password is") && !error.contains("pass\\"), "{error}");
        }
    }
}
