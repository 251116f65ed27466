//! What a pull tells while it runs, in docker's JSON lines, whoever says it: docker's API or `snap pull --progress json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Message {
    /// What it is about: a layer's short digest, or a tag.
    pub(crate) id: Option<String>,
    pub(crate) status: Option<String>,
    /// A bar, drawn.
    pub(crate) progress: Option<String>,
    pub(crate) progress_detail: Option<ProgressDetail>,
    pub(crate) error: Option<String>,
    pub(crate) error_detail: Option<ErrorDetail>,
    /// What there is no word of docker's for.
    pub(crate) aux: Option<Value>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgressDetail {
    pub(crate) current: Option<u64>,
    pub(crate) total: Option<u64>,
    /// Of what the numbers are, where not of bytes: `s`.
    pub(crate) units: Option<String>,
    /// That a status without numbers is none that has lost them.
    pub(crate) hidecounts: Option<bool>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErrorDetail {
    pub(crate) message: String,
    pub(crate) code: Option<i64>,
}

impl Message {
    fn says(&self, start: &str) -> bool {
        self.status.as_ref().is_some_and(|status| status.starts_with(start))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transcript(pub(crate) Vec<Message>);

impl Transcript {
    #[track_caller]
    pub(crate) fn parse(lines: &str) -> Self {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        Self(lines.lines().map(parse).collect())
    }

    /// What is said of each ID, in order, a status that follows itself once. What comes with numbers is left out: whether there is time
    /// for that is chance.
    pub(crate) fn steps(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut steps = BTreeMap::<_, Vec<_>>::new();
        let is_number =
            |message: &&Message| message.progress_detail.as_ref().is_some_and(|detail| detail.current.or(detail.total).is_some());
        for message in self.0.iter().filter(|message| !is_number(message)) {
            if let (Some(id), Some(status)) = (message.id.as_deref(), message.status.as_deref()) {
                let own = steps.entry(id).or_default();
                if own.last() != Some(&status) {
                    own.push(status);
                }
            }
        }
        steps
    }

    /// IDs in the order in which something was first said of them.
    pub(crate) fn ids(&self) -> Vec<&str> {
        let mut ids = Vec::new();
        for id in self.0.iter().filter_map(|message| message.id.as_deref()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// What is said of no ID, in order.
    pub(crate) fn remarks(&self) -> Vec<&str> {
        self.0.iter().filter(|message| message.id.is_none()).filter_map(|message| message.status.as_deref()).collect()
    }

    /// What it ended with, where it failed.
    pub(crate) fn error(&self) -> Option<&str> {
        self.0.last()?.error.as_deref()
    }

    /// That numbers of a status only grow, and not beyond their total; and that what an image's pull ends with comes after all that is
    /// said of its layers.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let mut before = BTreeMap::new();
        for message in &self.0 {
            let Some(detail) = &message.progress_detail else { continue };
            let (Some(current), Some(total)) = (detail.current, detail.total) else { continue };
            assert!(current <= total, "{message:?}");
            let last = before.insert((&message.id, &message.status), current).unwrap_or_default();
            assert!(last <= current, "{last} before {message:?}");
        }
        for image in self.0.split(|message| message.says("Pulling from ")) {
            let end = image.iter().skip_while(|message| !message.says("Digest: "));
            let is_end = |message: &Message| message.says("Status: ") || message.aux.is_some();
            assert!(end.skip(1).all(is_end), "more after the digest: {image:?}");
        }
    }
}
