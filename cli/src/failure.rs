//! How an error is told: `error:`, its causes, and last what can be done about it.

use std::error::Error;
use std::fmt::Write as _;

const HINT: &str = "hint: ";

/// An error, its causes and its hints, a line each. Causes that the message above them has said already are left out.
pub(crate) fn text(error: &anyhow::Error) -> String {
    chain_text(error.as_ref())
}

/// The same without the word `error:`, for where that is said otherwise.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let text = text(error);
    text.strip_prefix("error: ").map_or_else(|| text.clone(), str::to_owned)
}

fn chain_text(error: &(dyn Error + 'static)) -> String {
    let mut hints: Vec<String> = Vec::new();
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        let mut parts = message.split(HINT);
        let body = parts.next().unwrap_or_default().trim_end_matches(|end: char| end == ';' || end.is_whitespace()).to_owned();
        for hint in parts.map(|hint| hint.trim_end().to_owned()) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        if !body.is_empty() && !said.iter().any(|above| above.contains(&body)) {
            said.push(body);
        }
        next = error.source();
    }
    let mut text = String::new();
    for (position, body) in said.iter().enumerate() {
        let label = if position == 0 { "error" } else { "\n  caused by" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{label}: {body}");
    }
    for hint in hints {
        let _ = write!(text, "\n{HINT}{hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_follow_and_hints_come_last() {
        let error =
            anyhow!("no such host\nhint: check the name").context("cannot ask the registry; hint: try again").context("cannot mount x");
        let wanted =
            "error: cannot mount x\n  caused by: cannot ask the registry\n  caused by: no such host\nhint: try again\nhint: check the name";
        assert_eq!(text(&error), wanted);
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let error = anyhow!("disk full\nhint: free space").context("layer 12: disk full\nhint: free space");
        assert_eq!(text(&error), "error: layer 12: disk full\nhint: free space");
        assert_eq!(message(&error), "layer 12: disk full\nhint: free space");
    }
}
