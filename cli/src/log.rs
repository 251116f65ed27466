//! Where log lines go: standard error, or the log file of a background process, which starts over when it has grown too long.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::limits;

/// Overrides what is logged; the syntax is that of `tracing_subscriber::EnvFilter`, such as `snap_registry=debug`.
const FILTER_VARIABLE: &str = "SNAP_LOG";

static LOG_FILE: OnceLock<File> = OnceLock::new();

/// Starts logging. `verbosity`: how often `-v` was given. A background process also tells what it does in the normal course.
pub(crate) fn start(verbosity: u8, json: bool, in_background: bool) -> anyhow::Result<()> {
    let filter = match (std::env::var(FILTER_VARIABLE), verbosity) {
        (Ok(filter), _) if !filter.is_empty() => EnvFilter::try_new(&filter)
            .with_context(|| format!("{FILTER_VARIABLE}={filter} is no filter\nhint: try {FILTER_VARIABLE}=debug"))?,
        // fuser warns of every operation that a read-only file system has no use for, and calls it an error when a reader that was
        // killed does not wait for its answer. How a session ends is told by what it returns.
        (_, 0) if in_background => EnvFilter::new("warn,snap=info,fuser=off"),
        (_, 0) => EnvFilter::new("warn,fuser=off"),
        (_, 1) => EnvFilter::new("info,snap=debug"),
        (_, _) => EnvFilter::new("debug,snap=trace"),
    };
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Log);
    if json {
        // A field is a key of its own, where tools that read such logs look for it.
        logger.json().flatten_event(true).init();
    } else {
        logger.with_ansi(!in_background && io::stderr().is_terminal()).init();
    }
    Ok(())
}

/// Sends log lines, and whatever else would be written to standard error, to a new file at `path` from now on.
pub(crate) fn log_into(path: &Path) -> io::Result<()> {
    let file = File::options().append(true).create_new(true).mode(0o600).open(path)?;
    nix::unistd::dup2_stderr(&file)?;
    // A process has one log, which is set once.
    let _ = LOG_FILE.set(file);
    Ok(())
}

struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(file) = LOG_FILE.get() else { return io::stderr().write(line) };
        start_over_when_long(file, limits::LOG_BYTES_MAX)?;
        let mut file = file;
        file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start_over_when_long(mut file: &File, bytes_max: u64) -> io::Result<()> {
    if file.metadata()?.len() >= bytes_max {
        file.set_len(0)?;
        file.write_all(b"(what was logged before is gone: the file had grown too long)\n")?;
    }
    Ok(())
}

/// The last lines of a log; empty where there are none.
pub(crate) fn tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(limits::LOG_TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(limits::LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        if start > 0 {
            // The first line is cut.
            let first = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            bytes.drain(..first);
        }
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::options().append(true).create_new(true).open(&path).unwrap();
        file.write_all(&[b'x'; 100]).unwrap();
        start_over_when_long(&file, 101).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100);
        start_over_when_long(&file, 100).unwrap();
        assert!(tail(&path).starts_with("(what was logged before"));
    }

    #[test]
    fn the_tail_is_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, format!("{}\nlast\n", "long ".repeat(1000))).unwrap();
        assert_eq!(tail(&path), "last");
        assert_eq!(tail(&dir.path().join("none")), "");
    }
}
