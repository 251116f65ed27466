//! Talk about a mount on standard error, and its outcome on standard output.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use crate::limits;
use crate::report::{Outcome, Report};
use crate::size::human_part;

/// Clears the line that the cursor is in.
const CLEAR_LINE: &str = "\r\x1b[K";

/// Shows reports to a person: one line that changes on a terminal, a line now and then elsewhere.
pub(crate) struct Console {
    is_terminal: bool,
    json: bool,
    /// Whether the cursor is in a line of progress.
    line_is_open: bool,
    last_line: Instant,
}

impl Console {
    /// A console. `json`: the outcome goes to standard output.
    pub(crate) fn new(json: bool) -> Self {
        Self { is_terminal: io::stderr().is_terminal(), json, line_is_open: false, last_line: Instant::now() }
    }

    /// Shows one report.
    pub(crate) fn show(&mut self, report: &Report) {
        match report {
            // Nothing is streamed; the rest of opening is too short to talk about.
            Report::Opening { layers: 0, .. } => {}
            Report::Opening { layers, done_bytes, total_bytes } => {
                let noun = if *layers == 1 { "layer" } else { "layers" };
                self.progress(&format!("streaming {layers} {noun} without an index: {}", human_part(*done_bytes, *total_bytes)));
            }
            Report::Fetching { present_bytes, total_bytes } => {
                self.progress(&format!("fetching the rest: {}", human_part(*present_bytes, *total_bytes)));
            }
            Report::Struggling { why } => self.say(&format!("warning: the rest cannot be fetched for now: {why}")),
            Report::Ready(outcome) => {
                if let Some(why) = &outcome.stale {
                    self.say(&format!("warning: using what {} named before, because the registry cannot be asked: {why}", outcome.image));
                }
                self.say(&format!("{} is mounted at {}", outcome.image, outcome.dir.display()));
            }
            Report::Complete(_) => self.say("everything is here"),
            Report::Error { text } => self.say(text),
        }
    }

    /// Prints the outcome, where JSON was asked for.
    pub(crate) fn finish(&self, outcome: &Outcome) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut line = serde_json::to_vec(outcome)?;
        line.push(b'\n');
        io::stdout().write_all(&line)
    }

    /// Prints a line that stays. Standard error that cannot be written is no reason to stop.
    pub(crate) fn say(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.line_is_open) { CLEAR_LINE } else { "" };
        let _ = writeln!(io::stderr(), "{clear}{text}");
    }

    fn progress(&mut self, text: &str) {
        if self.is_terminal {
            self.line_is_open = true;
            let _ = write!(io::stderr(), "{CLEAR_LINE}{text}");
        } else if self.last_line.elapsed() >= limits::PROGRESS_LINE_PERIOD {
            self.last_line = Instant::now();
            self.say(text);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if self.line_is_open {
            let _ = write!(io::stderr(), "{CLEAR_LINE}");
        }
    }
}
