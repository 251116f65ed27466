//! What has been asked at a door, and what has passed it.

use std::collections::HashMap;

use crate::http::Head;

const BLOBS: &str = "/blobs/";

/// A request as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// The scheme of its authorization, where it has one.
    pub(crate) authorization: Option<String>,
}

/// How often a blob was fetched.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    /// GET requests for it or parts of it.
    pub(crate) requests: usize,
    /// Bytes of its content that were handed to clients. One that goes away in the middle may not have read the last few megabytes: the
    /// kernel keeps those for it.
    pub(crate) bytes: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    asked: Vec<Asked>,
    /// Bytes that passed, by the digest of the blob.
    bytes: HashMap<String, u64>,
}

impl Ledger {
    pub(super) fn ask(&mut self, request: &Head) {
        let scheme = request.header("authorization").and_then(|value| value.split(' ').next());
        let authorization = scheme.map(str::to_owned);
        self.asked.push(Asked { method: request.method().to_owned(), target: request.target().to_owned(), authorization });
    }

    pub(super) fn pass(&mut self, target: &str, bytes: u64) {
        if let Some(digest) = digest_of(target) {
            *self.bytes.entry(digest.to_owned()).or_default() += bytes;
        }
    }

    pub(super) fn asked(&self) -> &[Asked] {
        &self.asked
    }

    pub(super) fn passed(&self, digest: &str) -> Passed {
        let fetches = self.asked.iter().filter(|asked| asked.method == "GET" && digest_of(&asked.target) == Some(digest));
        Passed { requests: fetches.count(), bytes: self.bytes.get(digest).copied().unwrap_or_default() }
    }
}

/// The blob that a target names.
fn digest_of(target: &str) -> Option<&str> {
    let (_, rest) = target.split_once(BLOBS)?;
    rest.split('?').next()
}
