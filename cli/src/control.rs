//! The control socket of a process that serves a mount, and of the service: a caller sends one request, a line of JSON, and reads answers,
//! lines of JSON too, until there are no more.
//!
//! ```text
//! {"status":{}}                          the process as it is, in one line; `null` as long as there is nothing to tell
//! {"complete":{"layers":["sha256:…"]}}   {"layers":[{"digest":…,"present_bytes":…,"total_bytes":…}]} now and then while the layers are
//!                                        brought here, at last {"done":true}
//! ```
//! `{"error":"…"}` is the last answer to what fails or is not understood. An older process answers a status to whoever connects, and reads
//! nothing.

mod client;
mod messages;
mod server;

pub(crate) use client::complete;
pub(crate) use client::{ask, ask_on};
pub(crate) use server::Control;
