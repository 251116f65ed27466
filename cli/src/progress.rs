//! What `snap pull` and `snap fetch` print: docker's lines, on standard output.
//!
//! `events -> Teller -> (its thread) Printer -> live lines, plain lines or JSON messages`. A pull tells from wherever it is and never waits
//! for a slow reader ([`teller`]); the printer decides what is worth a line, and when ([`printer`]); the three forms are how it looks.

mod json;
mod live;
mod printer;
mod said;
#[cfg(test)]
mod screen;
mod stoppable;
mod teller;
#[cfg(test)]
mod tests;

pub(crate) use live::Size;
pub(crate) use printer::{Form, Pulled};
pub(crate) use said::Said;
pub(crate) use stoppable::until_stopped;
pub(crate) use teller::Teller;
