//! Reading answers: bodies with a deadline and a least rate, refusals with their reason.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::cause::Cause;
use crate::limits::{ERROR_BODY_MAX_BYTES, ERROR_MESSAGE_MAX_CHARS, Limits};
use crate::timestamp::http_date;

/// The body of an answer, watched: it may neither stall nor drip.
pub(crate) struct Body {
    response: Response,
    limits: Arc<Limits>,
    /// Time spent waiting for the server since the rate was last judged. Time that the reader takes does not count.
    waited: Duration,
    /// Bytes that came in that time.
    window_bytes: u64,
    got_bytes: u64,
    expected_bytes: u64,
}

impl Body {
    /// `expected_bytes` is for messages: how much should come.
    pub(crate) fn new(response: Response, expected_bytes: u64, limits: Arc<Limits>) -> Self {
        Self { response, limits, waited: Duration::ZERO, window_bytes: 0, got_bytes: 0, expected_bytes }
    }

    /// The next piece, never empty; `None` at the end of the body.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Cause> {
        loop {
            let began = Instant::now();
            let stall = self.limits.stall_timeout;
            let read =
                timeout(stall, self.response.chunk()).await.map_err(|_| Cause::Timeout { awaited: "byte of the body", after: stall })?;
            let piece = read.map_err(|error| {
                tracing::debug!(error = %error.without_url(), "a body broke off");
                self.broken()
            })?;
            let Some(piece) = piece else { return Ok(None) };
            self.judge_rate(began.elapsed(), piece.len() as u64)?;
            if !piece.is_empty() {
                self.got_bytes += piece.len() as u64;
                return Ok(Some(piece));
            }
        }
    }

    /// What it means that the body ends here.
    pub(crate) fn broken(&self) -> Cause {
        Cause::BrokenBody { got_bytes: self.got_bytes, expected_bytes: self.expected_bytes }
    }

    fn judge_rate(&mut self, waited: Duration, bytes: u64) -> Result<(), Cause> {
        self.waited += waited;
        self.window_bytes += bytes;
        if self.waited < self.limits.rate_window {
            return Ok(());
        }
        let least = (self.limits.min_rate_bytes_per_s as f64 * self.waited.as_secs_f64()) as u64;
        if self.window_bytes < least {
            return Err(Cause::TooSlow { bytes: self.window_bytes, over: self.waited });
        }
        self.waited = Duration::ZERO;
        self.window_bytes = 0;
        Ok(())
    }
}

/// A whole body of at most `limit_bytes`.
pub(crate) async fn limited_body(response: Response, limit_bytes: u64, limits: &Arc<Limits>) -> Result<Bytes, Cause> {
    let announced = response.content_length();
    let too_large = |actual_bytes| Cause::SizeMismatch { expected_bytes: limit_bytes, actual_bytes };
    if let Some(length) = announced.filter(|length| *length > limit_bytes) {
        return Err(too_large(length));
    }
    let mut body = Body::new(response, announced.unwrap_or(limit_bytes), limits.clone());
    let mut whole = BytesMut::new();
    while let Some(piece) = body.piece().await? {
        whole.extend_from_slice(&piece);
        if whole.len() as u64 > limit_bytes {
            return Err(too_large(whole.len() as u64));
        }
    }
    Ok(whole.freeze())
}

/// Codes of the distribution specification.
const NAME_UNKNOWN: &str = "NAME_UNKNOWN";
const MANIFEST_UNKNOWN: &str = "MANIFEST_UNKNOWN";

/// The errors of the distribution specification.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize, Default)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What an answer that is no success means.
pub(crate) async fn refusal(response: Response, with_credentials: bool, limits: &Arc<Limits>) -> Cause {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    if status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some()) {
        return Cause::RateLimited { retry_after };
    }
    // A reason that cannot be read is none.
    let body = limited_body(response, ERROR_BODY_MAX_BYTES, limits).await.unwrap_or_default();
    let error = first_error(&body);
    let message = error.message();
    match status {
        StatusCode::NOT_FOUND => match error.code.as_str() {
            NAME_UNKNOWN => Cause::RepositoryUnknown { message },
            MANIFEST_UNKNOWN => Cause::ManifestUnknown { message },
            _ => Cause::NotFound,
        },
        StatusCode::UNAUTHORIZED => Cause::Unauthorized { with_credentials, message },
        StatusCode::FORBIDDEN => Cause::Denied { message },
        status if status.is_server_error() => Cause::Server { status: status.as_u16(), message },
        status => Cause::Status { status: status.as_u16(), message },
    }
}

/// The first error of a refusal's body; an empty one if there is none that can be read.
fn first_error(body: &[u8]) -> OneError {
    let errors = serde_json::from_slice::<Errors>(body).map(|body| body.errors).unwrap_or_default();
    errors.into_iter().next().unwrap_or_default()
}

impl OneError {
    /// What it says, fit to be shown.
    fn message(&self) -> String {
        let text = if self.message.is_empty() { &self.code } else { &self.message };
        text.chars().filter(|character| !character.is_control()).take(ERROR_MESSAGE_MAX_CHARS).collect()
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(http_date(text)?.duration_since(SystemTime::now()).unwrap_or_default()),
    }
}
