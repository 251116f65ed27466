//! As much HTTP/1.1 as a server of a test's own needs: heads, and bodies of a known length.

use std::io::{BufRead, Read, Write};

/// So long is no head that any client or registry here sends.
const HEAD_MAX_BYTES: u64 = 64 * 1024;

/// The first line of a request or an answer, and its headers.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn answer(status: u16) -> Self {
        // The words after the number are nobody's business.
        Self { first: format!("HTTP/1.1 {status} -"), headers: Vec::new() }
    }

    /// None where the other side has ended.
    pub(crate) fn read(from: &mut impl BufRead) -> Option<Self> {
        let mut bounded = from.take(HEAD_MAX_BYTES);
        let mut line = || {
            let mut line = String::new();
            bounded.read_line(&mut line).ok()?;
            line.strip_suffix("\r\n").map(str::to_owned)
        };
        let mut head = Self { first: line()?, headers: Vec::new() };
        loop {
            let line = line()?;
            if line.is_empty() {
                return Some(head);
            }
            let (name, value) = line.split_once(':')?;
            head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// A word of the first line.
    fn word(&self, number: usize) -> &str {
        self.first.split(' ').nth(number).unwrap_or_default()
    }

    /// Of a request.
    pub(crate) fn method(&self) -> &str {
        self.word(0)
    }

    /// Of a request: its path and query.
    pub(crate) fn target(&self) -> &str {
        self.word(1)
    }

    /// Of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    /// By its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(own, _)| own != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| own != name);
        self
    }

    /// How long the body says it is.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        [self.first.clone(), "\r\n".to_owned()].into_iter().chain(headers).chain(["\r\n".to_owned()]).collect::<String>().into_bytes()
    }
}

/// Sends an answer and its body, which one to HEAD has not. Whether the other side took it.
pub(crate) fn respond(to: &mut impl Write, head: Head, body: &[u8], is_head: bool) -> bool {
    let head = head.with("content-length", &body.len().to_string());
    let body = if is_head { &[] } else { body };
    to.write_all(&head.bytes()).and_then(|()| to.write_all(body)).and_then(|()| to.flush()).is_ok()
}
