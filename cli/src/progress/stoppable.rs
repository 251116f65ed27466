//! A command whose progress is printed, and which a signal stops.

use std::process::ExitCode;

use anyhow::Context;
use tokio::time::timeout;

use crate::progress::printer::Form;
use crate::progress::teller::{Printing, Teller};
use crate::signals::Signals;
use crate::{failure, limits};

/// Does `work`, which tells what it does, until it ends or a signal comes. What is printed is printed when this returns.
///
/// # Errors
/// Those of `work`, of which scripts are told in place; and where standard output cannot be written.
pub(crate) async fn until_stopped(form: Form, work: impl AsyncFnOnce(&Teller) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let printing = Printing::start(form)?;
    let teller = printing.teller().clone();
    let stop = tokio::select! {
        outcome = work(&teller) => {
            if let Err(error) = &outcome {
                teller.failed(failure::message(error));
            }
            tokio::select! {
                printed = printing.finish() => return outcome.and(printed).map(|()| ExitCode::SUCCESS),
                stop = signals.next() => stop,
            }
        }
        stop = signals.next() => {
            // A reader that does not read is no reason to stay.
            let _ = timeout(limits::LAST_WORDS_TIMEOUT, printing.finish()).await;
            eprintln!("stopped; what was fetched is kept, and the same command goes on with it");
            stop
        }
    };
    Ok(ExitCode::from(stop.exit_code()))
}
