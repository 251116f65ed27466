//! What the two sides of a control socket say.

use serde::{Deserialize, Serialize};
use snap_digest::Digest;
use snap_fs::LayerPresence;

/// What a caller wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// How the process is. Its answer is as the process has it, and no [`Answer`].
    Status {},
    /// All data of these layers here, and verified.
    Complete {
        /// Digests of their blobs.
        layers: Vec<Digest>,
    },
}

/// One line of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// How far it is; nothing as long as the layers are being opened.
    Layers(Vec<LayerPresence>),
    /// It is done.
    Done(bool),
    /// Why it is not.
    Error(String),
}

/// A message as it is sent.
pub(super) fn line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_they_are_documented() {
        let digest = Digest::of(b"layer");
        for (request, text) in [
            (Request::Status {}, r#"{"status":{}}"#.to_owned()),
            (Request::Complete { layers: vec![digest] }, format!(r#"{{"complete":{{"layers":["{digest}"]}}}}"#)),
        ] {
            assert_eq!(line(&request).unwrap(), format!("{text}\n").into_bytes());
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        let layer = LayerPresence { digest, present_bytes: 1, total_bytes: 2 };
        for (answer, text) in [
            (Answer::Layers(vec![layer]), format!(r#"{{"layers":[{{"digest":"{digest}","present_bytes":1,"total_bytes":2}}]}}"#)),
            (Answer::Done(true), r#"{"done":true}"#.to_owned()),
            (Answer::Error("why".to_owned()), r#"{"error":"why"}"#.to_owned()),
        ] {
            assert_eq!(line(&answer).unwrap(), format!("{text}\n").into_bytes());
            assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
        }
    }
}
