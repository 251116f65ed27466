//! A chain of attempts: every host in turn, with pauses between the rounds, until one succeeds or all are given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cause::Cause;
use crate::error::{Error, RequestError};
use crate::host::Host;
use crate::limits::Limits;
use crate::secret::redacted;

/// The attempts at one request, and what came of them.
///
/// A host that fails for good (not found, refused, no ranges) is left out of further rounds. Bytes that arrive begin the
/// count and the deadline anew.
pub(crate) struct Chain {
    /// The registry's name, for messages.
    registry: String,
    /// The path below the API's base, for messages.
    path: String,
    hosts: Vec<Arc<Host>>,
    limits: Arc<Limits>,
    /// The last failure of each host.
    failures: Vec<Option<Cause>>,
    given_up: Vec<bool>,
    current: usize,
    /// Times round the list since bytes arrived.
    rounds: u32,
    /// The longest pause that a server asked for in this round.
    asked_pause: Duration,
    attempts: u32,
    began: Instant,
    progress_at: Instant,
    progress_bytes: u64,
}

impl Chain {
    /// `hosts` in the order of trying; the last is the registry itself. `purpose` is for the message if there are none.
    pub(crate) fn new(
        registry: &str,
        path: &str,
        hosts: Vec<Arc<Host>>,
        limits: Arc<Limits>,
        purpose: &'static str,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let chain = Self {
            registry: registry.to_owned(),
            path: path.to_owned(),
            failures: vec![None; hosts.len()],
            given_up: vec![false; hosts.len()],
            hosts,
            limits,
            current: 0,
            rounds: 0,
            asked_pause: Duration::ZERO,
            attempts: 1,
            began: now,
            progress_at: now,
            progress_bytes: 0,
        };
        if chain.hosts.is_empty() { Err(chain.error(Cause::NoHost(purpose))) } else { Ok(chain) }
    }

    /// The host to ask now, and its place in the list.
    pub(crate) fn host(&self) -> (usize, &Arc<Host>) {
        (self.current, &self.hosts[self.current])
    }

    /// How many hosts there are. The last is the registry itself.
    pub(crate) fn host_count(&self) -> usize {
        self.hosts.len()
    }

    /// Bytes have arrived.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.progress_bytes += bytes;
        if self.progress_bytes >= self.limits.progress_bytes {
            self.progress_bytes = 0;
            self.progress_at = Instant::now();
            self.rounds = 0;
        }
    }

    /// The attempt at the current host failed: goes on to the next host, after a pause if all have been asked, or gives up.
    pub(crate) async fn failed(&mut self, cause: Cause) -> Result<(), Error> {
        let (_, host) = self.host();
        tracing::debug!(host = %redacted(&host.config.base), path = %self.path, %cause, "an attempt failed");
        let asked = match &cause {
            Cause::RateLimited { retry_after: Some(wait) } => *wait,
            _ => Duration::ZERO,
        };
        let is_broken_body = matches!(cause, Cause::BrokenBody { .. });
        self.given_up[self.current] = !cause.is_temporary() || asked > self.limits.retry_after_max;
        self.failures[self.current] = Some(cause);
        self.asked_pause = self.asked_pause.max(asked.min(self.limits.retry_after_max));
        let Some(next) = self.next_host() else { return Err(self.final_error()) };
        if next <= self.current {
            self.pause(is_broken_body).await?;
        }
        self.current = next;
        self.attempts += 1;
        Ok(())
    }

    /// The next host that has not been given up, round the list.
    fn next_host(&self) -> Option<usize> {
        let count = self.hosts.len();
        (1..=count).map(|step| (self.current + step) % count).find(|index| !self.given_up[*index])
    }

    /// The pause between two rounds, or the end. The first time that a body breaks off it is resumed at once.
    async fn pause(&mut self, is_broken_body: bool) -> Result<(), Error> {
        self.rounds += 1;
        if self.rounds >= self.limits.attempts {
            return Err(self.final_error());
        }
        let doubled = self.limits.backoff_first.saturating_mul(1 << (self.rounds - 1).min(16)).min(self.limits.backoff_max);
        let own_pause = if is_broken_body && self.rounds == 1 { Duration::ZERO } else { jittered(doubled) };
        let pause = own_pause.max(self.asked_pause);
        self.asked_pause = Duration::ZERO;
        if self.progress_at.elapsed() + pause > self.limits.chain_deadline {
            return Err(self.final_error());
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// What the registry itself said, if it was asked; a mirror's word counts less.
    fn final_error(&self) -> Error {
        let last = self.failures.last().cloned().flatten();
        let cause = last.or_else(|| self.failures[self.current].clone()).unwrap_or(Cause::NoHost("ask"));
        self.error(cause)
    }

    /// The error that ends this chain.
    pub(crate) fn error(&self, cause: Cause) -> Error {
        let url = match self.hosts.last() {
            Some(host) => redacted(&host.url(&self.path)),
            None => format!("{}/{}", self.registry, self.path),
        };
        let (host, attempts, elapsed) = (self.registry.clone(), self.attempts, self.began.elapsed());
        Error::Request(Box::new(RequestError { host, url, attempts, elapsed, cause }))
    }
}

/// Between half of `pause` and all of it, so that many clients do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // A fresh hasher has random keys: enough randomness for a pause.
    let random = RandomState::new().build_hasher().finish();
    pause / 2 + pause.mul_f64((random % 1024) as f64 / 2048.0)
}
