//! The printer's own thread: a terminal that is stopped, or a reader that does not read, holds up no pull.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use anyhow::Context;
use snap_digest::Digest;
use snap_snapshotter::pull::{Event, Step};
use tokio::sync::oneshot;

use crate::limits;
use crate::progress::printer::{Form, Printer, Pulled};
use crate::progress::said::{Amount, Said};

enum Word {
    Event(Event),
    Layer(Digest, Said),
    Say(String),
    Pulled(Pulled),
    Name(String),
    Failed(String),
    Finish,
}

/// Tells the printer, and never waits for it.
#[derive(Clone)]
pub(crate) struct Teller {
    words: mpsc::Sender<Word>,
    /// Words that the printer has not taken up.
    waiting: Arc<AtomicUsize>,
}

/// The printer at work.
pub(crate) struct Printing {
    teller: Teller,
    finished: oneshot::Receiver<io::Result<()>>,
}

impl Printing {
    /// Starts a printer that writes to standard output.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start(form: Form) -> anyhow::Result<Self> {
        Self::start_on(form, io::stdout())
    }

    fn start_on(form: Form, out: impl io::Write + Send + 'static) -> anyhow::Result<Self> {
        let (words, heard) = mpsc::channel();
        let (finish, finished) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken_up = Arc::clone(&waiting);
        let work = move || {
            // Nobody may wait for it any more.
            let _ = finish.send(print(Printer::new(form, out), &heard, &taken_up));
        };
        std::thread::Builder::new().name("printer".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(Self { teller: Teller { words, waiting }, finished })
    }

    /// Who tells it.
    pub(crate) fn teller(&self) -> &Teller {
        &self.teller
    }

    /// Waits until everything that was told is printed, and the cursor is below it. Nothing is printed afterwards. After a signal, give it a
    /// deadline: the reader may not read.
    ///
    /// # Errors
    /// What went wrong with standard output.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        self.teller.send(Word::Finish, false);
        self.finished.await.context("the printer's thread has ended")?.context("cannot write to standard output")
    }
}

impl Teller {
    /// Tells what happened. How far something has come is dropped where the printer is behind: the next such event makes up for it.
    pub(crate) fn event(&self, event: Event) {
        let is_number = matches!(event, Event::Layer { step: Step::Downloading { .. } | Step::Indexing { .. }, .. });
        self.send(Word::Event(event), is_number);
    }

    /// Tells what is to be said of a layer.
    pub(crate) fn layer(&self, layer: Digest, said: Said) {
        let is_number = matches!(said.amount, Amount::Bytes { .. });
        self.send(Word::Layer(layer, said), is_number);
    }

    /// Tells what a person should know.
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.send(Word::Say(text.into()), false);
    }

    /// Tells what the image at hand came to.
    pub(crate) fn pulled(&self, pulled: Pulled) {
        self.send(Word::Pulled(pulled), false);
    }

    /// Tells the name of what was pulled.
    pub(crate) fn name(&self, name: impl Into<String>) {
        self.send(Word::Name(name.into()), false);
    }

    /// Tells that the image at hand failed. A person is told so elsewhere, after [`Printing::finish`].
    pub(crate) fn failed(&self, error: impl Into<String>) {
        self.send(Word::Failed(error.into()), false);
    }

    fn send(&self, word: Word, may_be_dropped: bool) {
        if may_be_dropped && self.waiting.load(Ordering::Relaxed) >= limits::PRINTER_BACKLOG_MAX {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Once it has finished, nothing is of interest any more.
        let _ = self.words.send(word);
    }
}

/// Prints until it is to finish. After an error nothing is printed, but all is heard: the pull is worth more than its talk.
fn print(mut printer: Printer<impl io::Write>, heard: &mpsc::Receiver<Word>, waiting: &AtomicUsize) -> io::Result<()> {
    let mut outcome = Ok(());
    loop {
        let next = match printer.next_tick() {
            Some(period) if outcome.is_ok() => heard.recv_timeout(period),
            _ => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let word = match next {
            Ok(Word::Finish) | Err(RecvTimeoutError::Disconnected) => return outcome.and_then(|()| printer.leave()),
            Ok(word) => {
                waiting.fetch_sub(1, Ordering::Relaxed);
                Some(word)
            }
            Err(RecvTimeoutError::Timeout) => None,
        };
        if outcome.is_ok() {
            outcome = say(&mut printer, word);
        }
    }
}

fn say(printer: &mut Printer<impl io::Write>, word: Option<Word>) -> io::Result<()> {
    let now = Instant::now();
    match word {
        None | Some(Word::Finish) => {}
        Some(Word::Event(event)) => printer.event(event, now)?,
        Some(Word::Layer(layer, said)) => printer.layer(layer, said, now)?,
        Some(Word::Say(text)) => printer.say(&text)?,
        Some(Word::Pulled(pulled)) => printer.pulled(&pulled)?,
        Some(Word::Name(name)) => printer.name(&name)?,
        Some(Word::Failed(error)) => printer.failed(&error)?,
    }
    printer.tick(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Standard output whose reader does not read before it is let go, and then keeps what it reads.
    struct Slow {
        go: Option<mpsc::Receiver<()>>,
        read: Arc<std::sync::Mutex<Vec<u8>>>,
    }

    impl io::Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(go) = self.go.take() {
                go.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            self.read.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(form: Form) -> (Printing, mpsc::Sender<()>, Arc<std::sync::Mutex<Vec<u8>>>) {
        let (let_go, go) = mpsc::channel();
        let read = Arc::default();
        let printing = Printing::start_on(form, Slow { go: Some(go), read: Arc::clone(&read) }).unwrap();
        (printing, let_go, read)
    }

    #[tokio::test]
    async fn a_slow_reader_gets_all_but_old_numbers_and_holds_up_nobody() {
        const NUMBERS: u64 = 100_000;
        let (printing, let_go, read) = start(Form::Json);
        let teller = printing.teller().clone();
        let layer = Digest::of(b"layer");
        teller.say("not in JSON");
        for current_bytes in 0..NUMBERS {
            teller.event(Event::Layer { layer, step: Step::Downloading { current_bytes, total_bytes: NUMBERS } });
        }
        assert!(teller.waiting.load(Ordering::Relaxed) <= limits::PRINTER_BACKLOG_MAX);
        teller.event(Event::Layer { layer, step: Step::Downloaded });
        teller.failed("no space left");
        let_go.send(()).unwrap();
        printing.finish().await.unwrap();
        teller.name("too late");
        let read = String::from_utf8(read.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = read.lines().collect();
        let [.., downloaded, failed] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(downloaded.contains("Download complete"), "{downloaded}");
        assert!(failed.contains("no space left"), "{failed}");
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_told_of_at_the_end() {
        let (printing, let_go, read) = start(Form::Plain);
        drop(let_go);
        for _ in 0..3 {
            printing.teller().name("docker.io/library/debian:12");
        }
        assert!(printing.finish().await.unwrap_err().to_string().contains("standard output"));
        assert!(read.lock().unwrap().is_empty());
    }
}
