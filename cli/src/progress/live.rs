//! The lines of one image on a terminal, changed in place.
//!
//! The cursor is always at the start of the line below them. So whatever ends the program leaves the terminal as it should be, and the
//! shell's prompt comes below. Nothing is ever painted that does not fit: not more lines than can be reached by going up, and no line that
//! would go on in the next. When the image is done its lines are painted once more, all of them and whole, and left alone from then on.

use std::fmt::Write as _;

use crate::limits;
use crate::progress::said::Said;

/// Letters of a terminal's line and lines of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

impl Size {
    /// Standard output's, now: it can change at any time.
    pub(crate) fn of_stdout() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or(limits::TERMINAL_SIZE_UNKNOWN, |size| Self { columns: size.ws_col, rows: size.ws_row })
    }
}

/// What of the lines is on the terminal.
#[derive(Default)]
pub(crate) struct Live {
    painted_rows: usize,
}

impl Live {
    /// What to write so that the terminal shows these layers, each its name and what is said of it, as far as they fit.
    pub(crate) fn paint<'l>(&mut self, layers: impl Iterator<Item = (&'l str, &'l Said)> + Clone, size: Size) -> String {
        let mut text = self.erase();
        // One row is for the cursor below the lines.
        let room = usize::from(size.rows).saturating_sub(1);
        let all = layers.clone().count();
        if all <= room {
            layers.for_each(|(name, said)| self.line(&mut text, &line(name, said, size), size));
            return text;
        }
        let shown = layers.clone().filter(|(_, said)| !said.is_last).take(room.saturating_sub(1));
        let (mut count, mut done) = (0, 0);
        for (name, said) in shown {
            count += 1;
            self.line(&mut text, &line(name, said, size), size);
        }
        layers.for_each(|(_, said)| done += usize::from(said.is_last));
        if room > 0 {
            self.line(&mut text, &format!("{} more layers, {done} of them done", all - count), size);
        }
        text
    }

    /// What to write so that the terminal shows all of these layers for good.
    pub(crate) fn leave<'l>(&mut self, layers: impl Iterator<Item = (&'l str, &'l Said)>, size: Size) -> String {
        let mut text = self.erase();
        for (name, said) in layers {
            text.push_str(line(name, said, size).trim_end());
            text.push('\n');
        }
        text
    }

    /// Takes away what was painted.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.painted_rows) {
            0 => String::new(),
            rows => format!("\x1b[{rows}A\r\x1b[J"),
        }
    }

    fn line(&mut self, text: &mut String, line: &str, size: Size) {
        // In the last column some terminals wrap at once, others with the next letter.
        let mut room = usize::from(size.columns).saturating_sub(1);
        for letter in line.chars() {
            // Not every letter beyond ASCII is two columns wide, but none is wider.
            let width = if letter.is_ascii() { 1 } else { 2 };
            let Some(left) = room.checked_sub(width) else { break };
            room = left;
            text.push(letter);
        }
        text.push('\n');
        self.painted_rows += 1;
    }
}

fn line(name: &str, said: &Said, size: Size) -> String {
    let mut line = format!("{name}: {}", said.status);
    let amount = said.amount.text(size.columns > limits::BAR_COLUMNS_MIN);
    if !amount.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(line, " {amount}");
    }
    line
}
