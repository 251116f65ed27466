//! The rest of some layers, for someone who waits until all of it is here.
//!
//! It is fetched as the background fetches: the same flights, the same bound on requests, behind every read. Where the background of a
//! layer runs, the two share the work.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use snap_cache::Cache;
use snap_digest::Digest;
use tokio::time::{Instant, sleep_until};

use crate::background::Completion;
use crate::error::{FsError, ReadError};
use crate::layer::Layer;
use crate::limits;
use crate::open_layers::OpenLayers;

/// How much of a layer is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayerPresence {
    /// Digest of its blob.
    pub digest: Digest,
    /// Bytes of it, decoded, that are here and verified.
    pub present_bytes: u64,
    /// Bytes of it, decoded, in all.
    pub total_bytes: u64,
}

/// Layers that are to be brought here whole.
pub struct Completing {
    layers: Vec<Arc<Layer>>,
    open: Arc<OpenLayers>,
    cache: Cache,
}

impl Completing {
    pub(crate) fn new(layers: Vec<Arc<Layer>>, open: Arc<OpenLayers>, cache: Cache) -> Self {
        Self { layers, open, cache }
    }

    /// How much of each layer is here, in the order in which they were named.
    pub fn presence(&self) -> Vec<LayerPresence> {
        let presence = |layer: &Arc<Layer>| LayerPresence {
            digest: layer.digest(),
            present_bytes: layer.verified_bytes(),
            total_bytes: layer.total_bytes(),
        };
        self.layers.iter().map(presence).collect()
    }

    /// Fetches what is missing, and returns when everything is here and verified. Then frees what the store has over its budget.
    /// Dropping the future ends the work, but for what is on its way.
    ///
    /// # Errors
    /// [`FsError::Incomplete`]: for a reason that will not go away by itself, at the latest [`limits::COMPLETE_STRUGGLE_MS`] after
    /// failures began and [`limits::COMPLETE_STALL_MS`] after anything last arrived.
    pub async fn run(&self) -> Result<(), FsError> {
        self.fetch().await?;
        let cache = self.cache.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || cache.enforce_budget()).await? {
            tracing::warn!(%error, "cannot bring the store within its budget");
        }
        Ok(())
    }

    async fn fetch(&self) -> Result<(), FsError> {
        let background = self.open.background_of(&self.layers);
        let mut completion = background.completion();
        let running = background.run();
        tokio::pin!(running);
        let (mut patience, mut verified_bytes) = (Patience::from(Instant::now()), self.verified_bytes());
        loop {
            tokio::select! {
                () = &mut running => return Ok(()),
                Ok(()) = completion.changed() => {
                    patience.hear(completion.borrow_and_update().clone(), Instant::now()).map_err(|source| self.incomplete(source))?;
                }
                () = sleep_until(patience.until) => {
                    let before = std::mem::replace(&mut verified_bytes, self.verified_bytes());
                    if before == verified_bytes {
                        return Err(self.incomplete(patience.reason(Instant::now())));
                    }
                    patience.renew(Instant::now());
                }
            }
        }
    }

    fn verified_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.verified_bytes()).sum()
    }

    fn incomplete(&self, source: ReadError) -> FsError {
        let first = self.layers.iter().find(|layer| !layer.is_complete()).or(self.layers.first());
        // There is at least one where something fails.
        FsError::Incomplete { layer: first.map_or_else(|| Digest::of(b""), |layer| layer.digest()), source }
    }
}

/// How long it is worth waiting.
struct Patience {
    since: Instant,
    until: Instant,
    trouble: Option<ReadError>,
}

impl Patience {
    fn from(since: Instant) -> Self {
        Self { since, until: since + Duration::from_millis(limits::COMPLETE_STALL_MS), trouble: None }
    }

    /// Something came.
    fn renew(&mut self, now: Instant) {
        let limit_ms = if self.trouble.is_some() { limits::COMPLETE_STRUGGLE_MS } else { limits::COMPLETE_STALL_MS };
        (self.since, self.until) = (now, now + Duration::from_millis(limit_ms));
    }

    /// # Errors
    /// What will not go away by itself.
    fn hear(&mut self, completion: Completion, now: Instant) -> Result<(), ReadError> {
        match completion {
            Completion::Struggling(error) if !error.is_temporary() => return Err(error),
            Completion::Struggling(error) => {
                if self.trouble.replace(error).is_none() {
                    self.until = self.until.min(now + Duration::from_millis(limits::COMPLETE_STRUGGLE_MS));
                }
            }
            Completion::Working => *self = Self::from(now),
            Completion::Complete => {}
        }
        Ok(())
    }

    fn reason(&self, now: Instant) -> ReadError {
        let waited_ms = (now - self.since).as_millis() as u64;
        self.trouble.clone().unwrap_or(ReadError::Deadline { waited_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LayerError;

    const STALL: Duration = Duration::from_millis(limits::COMPLETE_STALL_MS);
    const STRUGGLE: Duration = Duration::from_millis(limits::COMPLETE_STRUGGLE_MS);

    #[test]
    fn patience_ends_sooner_where_there_is_trouble_and_at_once_where_waiting_is_no_use() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::from(start);
        assert_eq!(patience.until, start + STALL);
        assert!(matches!(patience.reason(later(300)), ReadError::Deadline { waited_ms: 300_000 }));
        patience.hear(Completion::Struggling(ReadError::GivenUp), later(1)).unwrap();
        assert_eq!(patience.until, later(1) + STRUGGLE);
        patience.hear(Completion::Struggling(ReadError::GivenUp), later(2)).unwrap();
        assert_eq!(patience.until, later(1) + STRUGGLE, "more of the same trouble is no reason to wait longer");
        assert!(matches!(patience.reason(later(3)), ReadError::GivenUp));
        patience.renew(later(10));
        assert_eq!(patience.until, later(10) + STRUGGLE, "something came, but the trouble is there");
        patience.hear(Completion::Working, later(20)).unwrap();
        assert_eq!(patience.until, later(20) + STALL);
        patience.hear(Completion::Struggling(ReadError::GivenUp), later(20) + STALL - Duration::from_secs(1)).unwrap();
        assert_eq!(patience.until, later(20) + STALL, "trouble never lengthens it");
        let lasting = ReadError::Fetch(Arc::new(LayerError::NotHere));
        assert!(patience.hear(Completion::Struggling(lasting), later(30)).is_err());
    }
}
