//! What is said of a layer: docker's words, and our own where docker has none.

use std::borrow::Cow;

use snap_fs::Rung;
use snap_snapshotter::pull::{Outcome, Step};

use crate::size::docker_size;

/// Equal signs of a whole bar.
const BAR_WIDTH: u64 = 50;

/// What is said of one layer at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Said {
    /// The words.
    pub(crate) status: Cow<'static, str>,
    /// How much of it is done.
    pub(crate) amount: Amount,
    /// Whether nothing more will be said of the layer.
    pub(crate) is_last: bool,
}

/// How much is done of what is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Amount {
    /// Nothing that can be counted.
    None,
    /// All of what was counted before.
    All,
    /// Bytes.
    Bytes {
        /// Done.
        current: u64,
        /// In all; 0 where that is not known.
        total: u64,
    },
    /// For so long it has been going on, from 1 on.
    Seconds(u64),
}

impl Said {
    fn going_on(status: &'static str, amount: Amount) -> Self {
        Self { status: Cow::Borrowed(status), amount, is_last: false }
    }

    fn last(status: impl Into<Cow<'static, str>>) -> Self {
        Self { status: status.into(), amount: Amount::All, is_last: true }
    }

    /// A lazily pulled layer's missing bytes are being fetched.
    pub(crate) fn fetching(current_bytes: u64, total_bytes: u64) -> Self {
        Self::going_on("Fetching", Amount::Bytes { current: current_bytes, total: total_bytes })
    }

    /// The last word of a layer that has all its bytes.
    pub(crate) fn complete() -> Self {
        Self::last("Complete")
    }
}

impl From<Step> for Said {
    fn from(step: Step) -> Self {
        let bytes = |current_bytes, total_bytes| Amount::Bytes { current: current_bytes, total: total_bytes };
        match step {
            Step::Queued => Self::going_on("Pulling fs layer", Amount::None),
            Step::Waiting => Self::going_on("Waiting", Amount::None),
            Step::Downloading { current_bytes, total_bytes } => Self::going_on("Downloading", bytes(current_bytes, total_bytes)),
            Step::Downloaded => Self::going_on("Download complete", Amount::All),
            Step::Indexing { current_bytes, total_bytes } => Self::going_on("Indexing", bytes(current_bytes, total_bytes)),
            Step::Extracting => Self::going_on("Extracting", Amount::Seconds(1)),
            Step::Done(outcome) => match outcome {
                Outcome::Fetched => Self::complete(),
                Outcome::AlreadyExists => Self::last("Already exists"),
                Outcome::Lazy(Some(Rung::Estargz)) => Self::last("Mounted lazily (eStargz)"),
                Outcome::Lazy(Some(Rung::LocalIndex)) => Self::last("Mounted lazily (local index)"),
                Outcome::Lazy(Some(Rung::StreamingPass)) => Self::last("Indexed while streaming"),
                Outcome::Lazy(None) => Self::last("Mounted lazily"),
                Outcome::Unpacked => Self::last("Pull complete"),
                Outcome::Declined { reason } => Self::last(format!("Unpacked: {}", one_line(&reason))),
            },
        }
    }
}

impl Amount {
    /// Docker's text for it; empty where there is nothing to count.
    pub(crate) fn text(self, with_bar: bool) -> String {
        let (current, total) = match self {
            Self::None | Self::All | Self::Bytes { current: 0, total: 0 } => return String::new(),
            Self::Seconds(seconds) => return format!("{seconds} s"),
            Self::Bytes { current, total: 0 } => return format!("{:>8}", docker_size(current)),
            Self::Bytes { current, total } => (current, total),
        };
        let of_total = if current > total { String::new() } else { format!("/{}", docker_size(total)) };
        let bar = if with_bar { bar(current, total) } else { String::new() };
        format!("{bar}{:>8}{of_total}", docker_size(current))
    }
}

fn bar(current: u64, total: u64) -> String {
    let done = (u128::from(current) * u128::from(BAR_WIDTH) / u128::from(total)).min(u128::from(BAR_WIDTH)) as usize;
    format!("[{}>{}] ", "=".repeat(done), " ".repeat(BAR_WIDTH as usize - done))
}

/// `text` as a terminal and a log take it: in one line and without control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_as_docker_tells_them() {
        let bytes = |current, total| Amount::Bytes { current, total };
        let empty_bar = format!("[>{}] ", " ".repeat(50));
        let half = format!("[{}>{}] ", "=".repeat(25), " ".repeat(25));
        let full = format!("[{}>] ", "=".repeat(50));
        for (amount, text) in [
            (Amount::None, String::new()),
            (Amount::All, String::new()),
            (Amount::Seconds(3), "3 s".to_owned()),
            (bytes(0, 0), String::new()),
            (bytes(1234, 0), " 1.234kB".to_owned()),
            (bytes(0, 100), format!("{empty_bar}      0B/100B")),
            (bytes(1_250_000, 2_500_000), format!("{half}  1.25MB/2.5MB")),
            (bytes(100, 100), format!("{full}    100B/100B")),
            (bytes(200, 100), format!("{full}    200B")),
            (bytes(u64::MAX, u64::MAX), format!("{full} 18.45EB/18.45EB")),
        ] {
            assert_eq!(amount.text(true), text);
        }
        assert_eq!(bytes(1_250_000, 2_500_000).text(false), "  1.25MB/2.5MB");
    }

    #[test]
    fn a_reason_stays_in_its_line() {
        let said = Said::from(Step::Done(Outcome::Declined { reason: "bad\r\n\x1b[2Jtar".to_owned() }));
        assert_eq!(said.status, "Unpacked: bad   [2Jtar");
    }
}
