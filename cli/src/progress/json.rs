//! Docker's JSON messages, as its API streams them.

use std::io::{self, Write};

use serde::Serialize;
use snap_digest::Digest;

use crate::progress::said::{Amount, Said};

/// One message. The order of the fields is docker's.
#[derive(Serialize, Default)]
pub(crate) struct Message<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'m str>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
    #[serde(skip_serializing_if = "String::is_empty")]
    progress: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'m str>,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    error_detail: Option<ErrorDetail<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<Aux<'m>>,
}

#[derive(Serialize, Default)]
struct Detail {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(rename = "hidecounts", skip_serializing_if = "std::ops::Not::not")]
    hide_counts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<&'static str>,
}

#[derive(Serialize)]
struct ErrorDetail<'m> {
    message: &'m str,
}

/// What has no word of docker's: the outcome for a script.
#[derive(Serialize)]
struct Aux<'m> {
    name: &'m str,
    digest: Digest,
    newer: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'m> Message<'m> {
    /// A line of its own.
    pub(crate) fn status(id: Option<&'m str>, status: &'m str) -> Self {
        Self { status: Some(status), id, ..Default::default() }
    }

    /// What is said of the layer `id`.
    pub(crate) fn layer(id: &'m str, said: &'m Said) -> Self {
        let detail = match said.amount {
            Amount::None => Detail::default(),
            Amount::All => Detail { hide_counts: true, ..Default::default() },
            Amount::Bytes { current, total } => Detail { current, total, ..Default::default() },
            Amount::Seconds(seconds) => Detail { current: seconds, units: Some("s"), ..Default::default() },
        };
        Self { status: Some(&said.status), detail: Some(detail), progress: said.amount.text(true), id: Some(id), ..Default::default() }
    }

    /// What it came to.
    pub(crate) fn outcome(name: &'m str, digest: Digest, newer: bool) -> Self {
        Self { aux: Some(Aux { name, digest, newer }), ..Default::default() }
    }

    /// That it failed.
    pub(crate) fn error(message: &'m str) -> Self {
        Self { error_detail: Some(ErrorDetail { message }), error: Some(message), ..Default::default() }
    }

    /// Writes it as a line.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)
    }
}
