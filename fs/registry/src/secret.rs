//! Texts that must not reach a log, and URLs without the parts that might hold one.

use std::fmt;

use url::Url;

/// A password, token or header value. Neither `Debug` nor any error shows it; there is no `Display`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that puts it on the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `url` as messages show it: no user, no password, no query, no fragment. A signed URL carries its secret in the query.
pub(crate) fn redacted(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = if url.query().is_some() { "?[redacted]" } else { "" };
    format!("{}://{host}{port}{}{query}", url.scheme(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
    }

    #[test]
    fn a_url_loses_user_and_query() {
        let url = Url::parse("https://me:pw@store.example:444/a/b?X-Amz-Signature=abc#frag").unwrap();
        assert_eq!(redacted(&url), "https://store.example:444/a/b?[redacted]");
        assert_eq!(redacted(&Url::parse("http://[::1]:5000/v2/").unwrap()), "http://[::1]:5000/v2/");
    }
}
