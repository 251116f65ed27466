//! Decides what is worth a line, and when.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use snap_digest::Digest;
use snap_snapshotter::pull::Event;

use crate::args::Progress;
use crate::limits;
use crate::progress::json::Message;
use crate::progress::live::{Live, Size};
use crate::progress::said::{Amount, Said, one_line};

/// How things are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Nothing but the names of what was pulled.
    Quiet,
    /// A line for each thing that happened.
    Plain,
    /// Docker's JSON messages.
    Json,
    /// Lines that change in place, on a terminal of the size that the function tells.
    Live(fn() -> Size),
}

impl Form {
    /// The form that fits standard output.
    pub(crate) fn of_stdout(progress: Progress, quiet: bool) -> Self {
        // Lines cannot be changed in place on a terminal that says it is dumb.
        let is_dumb = || std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
        match progress {
            _ if quiet => Self::Quiet,
            Progress::Json => Self::Json,
            Progress::Auto if io::stdout().is_terminal() && !is_dumb() => Self::Live(Size::of_stdout),
            Progress::Auto | Progress::Plain => Self::Plain,
        }
    }
}

/// What a pull came to.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    /// The image's name in full: `docker.io/library/debian:12`.
    pub(crate) name: String,
    /// Its name as docker shows it: `debian:12`.
    pub(crate) familiar: String,
    /// What the name means now.
    pub(crate) digest: Digest,
    /// Whether it meant something else before, or nothing.
    pub(crate) is_newer: bool,
}

/// Prints what happens to images, one after another.
pub(crate) struct Printer<W> {
    out: W,
    form: Form,
    /// Of the image at hand, in the order in which they were first heard of.
    layers: Vec<Layer>,
    live: Live,
    /// When the live lines were painted last, and whether they have changed since.
    painted: Option<Instant>,
    is_stale: bool,
}

struct Layer {
    digest: Digest,
    name: String,
    said: Said,
    /// Since when that is going on.
    since: Instant,
    /// When a message told of it last, and whether it has changed since.
    told: Instant,
    is_stale: bool,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(form: Form, out: W) -> Self {
        Self { out, form, layers: Vec::new(), live: Live::default(), painted: None, is_stale: false }
    }

    /// Prints what happened at the time `now`.
    pub(crate) fn event(&mut self, event: Event, now: Instant) -> io::Result<()> {
        match event {
            Event::Resolved { repository, tag } => self.message(Some(&tag), &format!("Pulling from {repository}")),
            Event::Layer { layer, step } => self.layer(layer, step.into(), now),
        }
    }

    /// Prints what is said of a layer of the image at hand. After its last word nothing more is.
    pub(crate) fn layer(&mut self, digest: Digest, said: Said, now: Instant) -> io::Result<()> {
        let known = self.layers.iter_mut().find(|layer| layer.digest == digest);
        let (layer, is_new) = match known {
            Some(layer) if layer.said.is_last || layer.said == said => return Ok(()),
            Some(layer) => {
                let is_new = layer.said.status != said.status;
                // It has been going on since then; that it still is says nothing new.
                if !is_new && matches!(said.amount, Amount::Seconds(_)) {
                    return Ok(());
                }
                layer.said = said;
                (layer, is_new)
            }
            None => {
                let layer = Layer { digest, name: digest.short(), said, since: now, told: now, is_stale: false };
                (self.layers.push_mut(layer), true)
            }
        };
        if is_new {
            layer.since = now;
        }
        match self.form {
            Form::Quiet => Ok(()),
            // As docker does it where its output is no terminal: what has numbers is not worth a line.
            Form::Plain if is_new && matches!(layer.said.amount, Amount::None | Amount::All) => {
                writeln!(self.out, "{}: {}", layer.name, layer.said.status)
            }
            Form::Plain => Ok(()),
            Form::Json if is_new => layer.tell(&mut self.out, now),
            Form::Json => {
                layer.is_stale = true;
                layer.tell_if_due(&mut self.out, now)
            }
            Form::Live(size) => {
                self.is_stale = true;
                self.paint_if_due(size(), now)
            }
        }
    }

    /// Prints what has waited until it was time. To be called now and then while [`Self::next_tick`] says so.
    pub(crate) fn tick(&mut self, now: Instant) -> io::Result<()> {
        for layer in &mut self.layers {
            let Amount::Seconds(before) = layer.said.amount else { continue };
            let seconds = 1 + now.saturating_duration_since(layer.since).as_secs();
            if seconds != before {
                layer.said.amount = Amount::Seconds(seconds);
                layer.is_stale = true;
                self.is_stale = true;
            }
        }
        match self.form {
            Form::Quiet | Form::Plain => Ok(()),
            Form::Json => self.layers.iter_mut().try_for_each(|layer| layer.tell_if_due(&mut self.out, now)),
            Form::Live(size) => self.paint_if_due(size(), now),
        }
    }

    /// After which time at the latest to call [`Self::tick`]; nothing where there is nothing to do unless something happens.
    pub(crate) fn next_tick(&self) -> Option<Duration> {
        // A layer's seconds go on by themselves.
        let counts = || self.layers.iter().any(|layer| matches!(layer.said.amount, Amount::Seconds(_)));
        let is_awaited = match self.form {
            Form::Quiet | Form::Plain => false,
            Form::Json => counts() || self.layers.iter().any(|layer| layer.is_stale),
            Form::Live(_) => counts() || self.is_stale,
        };
        is_awaited.then_some(limits::PULL_PROGRESS_PERIOD)
    }

    /// Prints talk that is no part of docker's stream: its client's, and ours.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        match self.form {
            Form::Quiet | Form::Json => self.leave(),
            Form::Plain | Form::Live(_) => self.message(None, text),
        }
    }

    /// Prints what the image at hand came to. Nothing is said of its layers from here on.
    pub(crate) fn pulled(&mut self, pulled: &Pulled) -> io::Result<()> {
        let Pulled { name, familiar, digest, is_newer } = pulled;
        self.message(None, &format!("Digest: {digest}"))?;
        let status = if *is_newer { "Downloaded newer image for" } else { "Image is up to date for" };
        self.message(None, &format!("Status: {status} {familiar}"))?;
        match self.form {
            Form::Json => Message::outcome(name, *digest, *is_newer).write(&mut self.out),
            Form::Quiet | Form::Plain | Form::Live(_) => Ok(()),
        }
    }

    /// Prints the name of what was pulled, the last line of all. The JSON messages have told it.
    pub(crate) fn name(&mut self, name: &str) -> io::Result<()> {
        match self.form {
            Form::Json => Ok(()),
            Form::Quiet | Form::Plain | Form::Live(_) => writeln!(self.out, "{name}"),
        }
    }

    /// Prints a message that the image at hand failed, where a script reads it; a person reads it elsewhere.
    pub(crate) fn failed(&mut self, error: &str) -> io::Result<()> {
        self.leave()?;
        match self.form {
            Form::Json => Message::error(error).write(&mut self.out),
            Form::Quiet | Form::Plain | Form::Live(_) => Ok(()),
        }
    }

    /// Leaves the lines of the image at hand as they are, and the cursor below them.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        let layers = std::mem::take(&mut self.layers);
        self.is_stale = false;
        if let Form::Live(size) = self.form {
            let text = self.live.leave(layers.iter().map(|layer| (layer.name.as_str(), &layer.said)), size());
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }

    /// What it writes to.
    #[cfg(test)]
    pub(crate) fn written(&self) -> &W {
        &self.out
    }

    /// A line that stays, below those of the image at hand.
    fn message(&mut self, id: Option<&str>, status: &str) -> io::Result<()> {
        self.leave()?;
        match (self.form, id) {
            (Form::Quiet, _) => Ok(()),
            (Form::Json, _) => Message::status(id, status).write(&mut self.out),
            (Form::Plain | Form::Live(_), Some(id)) => writeln!(self.out, "{id}: {}", one_line(status)),
            (Form::Plain | Form::Live(_), None) => writeln!(self.out, "{}", one_line(status)),
        }
    }

    fn paint_if_due(&mut self, size: Size, now: Instant) -> io::Result<()> {
        let is_early = self.painted.is_some_and(|painted| now.saturating_duration_since(painted) < limits::PULL_PROGRESS_PERIOD);
        if !self.is_stale || is_early {
            return Ok(());
        }
        (self.is_stale, self.painted) = (false, Some(now));
        let text = self.live.paint(self.layers.iter().map(|layer| (layer.name.as_str(), &layer.said)), size);
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl Layer {
    fn tell_if_due(&mut self, out: &mut impl Write, now: Instant) -> io::Result<()> {
        let is_early = now.saturating_duration_since(self.told) < limits::PULL_PROGRESS_PERIOD;
        if self.is_stale && !is_early { self.tell(out, now) } else { Ok(()) }
    }

    fn tell(&mut self, out: &mut impl Write, now: Instant) -> io::Result<()> {
        (self.is_stale, self.told) = (false, now);
        Message::layer(&self.name, &self.said).write(out)
    }
}
