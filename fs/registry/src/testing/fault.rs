//! What can go wrong, to which requests, and what a request was.

use std::time::Duration;

/// One way to misbehave.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The whole blob with status 200, whatever range was asked for.
    WholeInsteadOfRange,
    /// The right bytes under this `Content-Range`; empty: without one.
    ContentRange(String),
    /// The right headers over bytes that lie this many further on (or before the end, if there are none).
    OtherBytes(u64),
    /// One bit of this byte of the body is flipped.
    AlteredByte(u64),
    /// The connection is closed after this many bytes of the body.
    TruncateAt(u64),
    /// The connection is reset after this many bytes of the body.
    ResetAt(u64),
    /// Nothing more comes after this many bytes of the body.
    StallAt(u64),
    /// One byte of the body, then a pause of this length, and so on.
    Drip(Duration),
    /// This status and no content, with `Retry-After` in seconds if given.
    Status(u16, Option<u64>),
    /// The request is read and never answered.
    NoAnswer,
    /// The right answer with this `Link`.
    Link(String),
    /// A redirect to this URL.
    Redirect(String),
}

/// Which requests a fault strikes: by default all, for ever.
#[derive(Debug, Clone)]
pub struct Matcher {
    part: String,
    method: Option<String>,
    skip: u32,
    times: Option<u32>,
}

impl Matcher {
    /// Requests with `part` in their path.
    pub fn path(part: &str) -> Self {
        Self { part: part.to_owned(), method: None, skip: 0, times: None }
    }

    /// Requests for blobs, at the registry; those at the storage have `/storage/` in their path.
    pub fn blobs() -> Self {
        Self::path("/blobs/")
    }

    /// Requests for manifests.
    pub fn manifests() -> Self {
        Self::path("/manifests/")
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self { method: Some(method.to_owned()), ..self }
    }

    /// Not the first `requests` that would match.
    #[must_use]
    pub fn skip(self, requests: u32) -> Self {
        Self { skip: requests, ..self }
    }

    /// At most so many requests.
    #[must_use]
    pub fn times(self, requests: u32) -> Self {
        Self { times: Some(requests), ..self }
    }

    /// Whether the fault strikes this request. Counts.
    pub(super) fn strikes(&mut self, method: &str, path: &str) -> bool {
        if !path.contains(&self.part) || self.method.as_ref().is_some_and(|own| own != method) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.times {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// `GET`, `HEAD`, `POST`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, as it came.
    pub query: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whether it came to the storage address.
    pub at_storage: bool,
}

impl Recorded {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}
