//! Why one request to a registry failed, and whether another may not.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use snap_digest::{Digest, DigestError};

use crate::docker_config::DockerConfigError;
use crate::error::ErrorKind;
use crate::tags::TagsProblem;

/// Why one request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Cause {
    /// 404, and the registry does not say of what.
    #[error("not found")]
    NotFound,
    /// 404: the registry knows no such repository, or does not let us know of it.
    #[error("the repository is not known{}", Said(message))]
    RepositoryUnknown {
        /// What the registry says.
        message: String,
    },
    /// 404: the repository has no manifest of this tag or digest.
    #[error("the manifest is not known{}", Said(message))]
    ManifestUnknown {
        /// What the registry says.
        message: String,
    },
    /// The registry asks for a user and a password, and there are none.
    #[error("no basic auth credentials")]
    NoBasicCredentials,
    /// The registry or its token server refuses the user or password of a login.
    #[error("incorrect username or password{}", Said(message))]
    LoginRefused {
        /// What it says.
        message: String,
    },
    /// 401, with the credentials there are or without any.
    #[error("unauthorized{}", Said(message))]
    Unauthorized {
        /// Whether credentials were sent.
        with_credentials: bool,
        /// What the registry says.
        message: String,
    },
    /// 403.
    #[error("access denied{}", Said(message))]
    Denied {
        /// What the registry says.
        message: String,
    },
    /// 429, or 503 with a time to wait.
    #[error("the registry asks to wait{}", Wait(*retry_after))]
    RateLimited {
        /// How long, if it says.
        retry_after: Option<Duration>,
    },
    /// 5xx.
    #[error("the server failed with status {status}{}", Said(message))]
    Server {
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// Any other status that is no success.
    #[error("unexpected status {status}{}", Said(message))]
    Status {
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// No connection, or it broke before an answer.
    #[error("cannot connect: {}", Chain(source.as_ref()))]
    Connection {
        /// Why, without the URL.
        source: Arc<reqwest::Error>,
        /// What TLS has to do with it.
        tls: Option<TlsTrouble>,
    },
    /// Nothing came in time.
    #[error("no {awaited} within {} s", after.as_secs_f32())]
    Timeout {
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        after: Duration,
    },
    /// A body slower than the least rate.
    #[error("only {bytes} bytes came in {} s", over.as_secs_f32())]
    TooSlow {
        /// What came.
        bytes: u64,
        /// In what time.
        over: Duration,
    },
    /// A body that ended or broke before its end.
    #[error("the body broke off after {got_bytes} of {expected_bytes} bytes")]
    BrokenBody {
        /// What came.
        got_bytes: u64,
        /// What should have come.
        expected_bytes: u64,
    },
    /// The answer to a range request describes other bytes than those asked for.
    #[error("bytes {}-{} of {size_bytes} were asked for, and the answer is {answer:?}", asked.start, asked.end)]
    RangeLied {
        /// What was asked for.
        asked: Range<u64>,
        /// The size of the blob.
        size_bytes: u64,
        /// The answer's own words.
        answer: String,
    },
    /// The server sends the whole blob when it is asked for a range too far in to skip to.
    #[error("the server does not serve ranges")]
    NoRanges,
    /// Content with another digest.
    #[error("the content has digest {actual}, not {expected}")]
    DigestMismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Content with another size, or more than there may be.
    #[error("the content has {actual_bytes} bytes or more, not {expected_bytes}")]
    SizeMismatch {
        /// The size expected, or the most there may be.
        expected_bytes: u64,
        /// What came.
        actual_bytes: u64,
    },
    /// More redirects than are followed.
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    /// A redirect to nowhere, or to where it must not lead.
    #[error("a redirect {0}")]
    BadRedirect(&'static str),
    /// The storage that a redirect led to refuses, with this status.
    #[error("the storage it redirects to answers with status {0}")]
    Target(u16),
    /// A challenge that names no way to authorize, or one that is not known.
    #[error("cannot answer the challenge of the registry: {0}")]
    Challenge(&'static str),
    /// Credentials would have gone in the clear to another host.
    #[error("the token server {realm} is not asked with credentials: it is another host, over plain http")]
    UnsafeRealm {
        /// The realm, redacted.
        realm: String,
    },
    /// The token server failed or refused.
    #[error("token server {realm}: {cause}")]
    Token {
        /// The realm, redacted.
        realm: String,
        /// Why.
        cause: Box<Cause>,
    },
    /// The token server's answer is not one.
    #[error("the answer holds no token")]
    NoToken,
    /// The docker configuration or a credential helper failed.
    #[error("credentials: {0}")]
    Credentials(Arc<DockerConfigError>),
    /// A header that has to be there is missing or unreadable.
    #[error("the answer's header {0} is missing or wrong")]
    Header(&'static str),
    /// A digest in the answer that is none.
    #[error(transparent)]
    BadDigest(#[from] DigestError),
    /// A list of tags that is none, or goes on without end or elsewhere.
    #[error("the list of tags {0}")]
    Tags(#[from] TagsProblem),
    /// No host of this registry may serve this kind of request.
    #[error("no host is configured to {0}")]
    NoHost(&'static str),
}

/// The answers that mean "you do not get this". Which of them a registry gives for a repository that is not there is its own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The registry asks for a user and a password, and there are none.
    NoBasicCredentials,
    /// Credentials are refused, or none were sent where tokens are asked for.
    Unauthorized,
    /// What is known of us does not allow it.
    Denied,
    /// No such repository, or none that we may know of.
    RepositoryUnknown,
    /// The repository has no such manifest.
    ManifestUnknown,
    /// Not there, and the registry does not say of what.
    NotFound,
}

/// What TLS has to do with a connection that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsTrouble {
    /// The certificate is signed by nobody that is trusted here.
    UnknownIssuer,
    /// The certificate is bad in another way: name, time, use.
    Certificate,
    /// The other side does not speak TLS.
    NotTls,
}

impl Cause {
    /// The kind of this cause.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound | Self::RepositoryUnknown { .. } | Self::ManifestUnknown { .. } => ErrorKind::NotFound,
            Self::Unauthorized { .. }
            | Self::NoBasicCredentials
            | Self::LoginRefused { .. }
            | Self::UnsafeRealm { .. }
            | Self::Challenge(_)
            | Self::Credentials(_) => ErrorKind::Unauthorized,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Timeout { .. } | Self::TooSlow { .. } => ErrorKind::Timeout,
            Self::Server { .. } | Self::Target(_) | Self::Connection { .. } | Self::BrokenBody { .. } => ErrorKind::Unreachable,
            Self::RangeLied { .. } | Self::NoRanges => ErrorKind::RangeLied,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ErrorKind::DigestMismatch,
            Self::Token { cause, .. } => cause.kind(),
            Self::Status { .. }
            | Self::TooManyRedirects(_)
            | Self::BadRedirect(_)
            | Self::NoToken
            | Self::Header(_)
            | Self::BadDigest(_) => ErrorKind::Protocol,
            Self::Tags(problem) => problem.kind(),
            Self::NoHost(_) => ErrorKind::Invalid,
        }
    }

    /// Which of the answers that mean "you do not get this" it is, if it is one of them.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::NoBasicCredentials => Some(Refusal::NoBasicCredentials),
            Self::Unauthorized { .. } | Self::LoginRefused { .. } => Some(Refusal::Unauthorized),
            Self::Denied { .. } => Some(Refusal::Denied),
            Self::RepositoryUnknown { .. } => Some(Refusal::RepositoryUnknown),
            Self::ManifestUnknown { .. } => Some(Refusal::ManifestUnknown),
            Self::NotFound => Some(Refusal::NotFound),
            Self::Token { cause, .. } => cause.refusal(),
            _ => None,
        }
    }

    /// What the server itself said about it, if it said something.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Unauthorized { message, .. }
            | Self::LoginRefused { message }
            | Self::Denied { message }
            | Self::RepositoryUnknown { message }
            | Self::ManifestUnknown { message }
            | Self::Server { message, .. }
            | Self::Status { message, .. } => Some(message.as_str()).filter(|message| !message.is_empty()),
            Self::Token { cause, .. } => cause.message(),
            _ => None,
        }
    }

    /// Whether another attempt at the same host may help. A range that lied once may come right on another back end;
    /// a certificate that is not trusted will not.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::RangeLied { .. } => true,
            Self::Connection { tls, .. } => tls.is_none(),
            Self::Token { cause, .. } => cause.is_temporary(),
            cause => matches!(cause.kind(), ErrorKind::RateLimited | ErrorKind::Timeout | ErrorKind::Unreachable),
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self, host: &str) -> Option<String> {
        match self {
            Self::Unauthorized { .. } | Self::NoBasicCredentials | Self::Denied { .. } => {
                Some(format!("the repository may not exist or may need `docker login {host}`"))
            }
            Self::RateLimited { .. } if host == "docker.io" => Some("`docker login` raises the limit of docker.io".to_owned()),
            Self::Connection { tls: Some(TlsTrouble::UnknownIssuer), .. } => {
                Some(format!("name the registry's CA in /etc/containerd/certs.d/{host}/hosts.toml (ca = \"…\")"))
            }
            Self::Connection { tls: Some(TlsTrouble::NotTls), .. } => Some(format!(
                "the registry speaks plain http: allow it, or name it as \"http://{host}\" in /etc/containerd/certs.d/{host}/hosts.toml"
            )),
            Self::NoRanges => Some("a proxy between here and the registry may take range requests away".to_owned()),
            Self::Token { cause, .. } => cause.hint(host),
            _ => None,
        }
    }

    /// A failure of the HTTP client. Its own text would show the URL with the query, so that is taken away first.
    pub(crate) fn connection(error: reqwest::Error) -> Self {
        let tls = tls_trouble(&error);
        Self::Connection { source: Arc::new(error.without_url()), tls }
    }
}

/// Looks through the chain of sources for what TLS has to say. An `io::Error` hides the error it carries from `source`.
fn tls_trouble(error: &reqwest::Error) -> Option<TlsTrouble> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            next = Some(inner);
            continue;
        }
        match error.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => return Some(TlsTrouble::UnknownIssuer),
            Some(rustls::Error::InvalidCertificate(_)) => return Some(TlsTrouble::Certificate),
            Some(rustls::Error::InvalidMessage(_)) => return Some(TlsTrouble::NotTls),
            _ => next = error.source(),
        }
    }
    None
}

struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

struct Wait(Option<Duration>);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |wait| write!(f, " {} s", wait.as_secs()))
    }
}

struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Wrappers often repeat what they wrap.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            next = error.source();
        }
        Ok(())
    }
}
