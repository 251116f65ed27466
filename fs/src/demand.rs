//! Demand before everything else: the background starts no request while a read waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the reads that wait.
#[derive(Default)]
pub(crate) struct DemandGate {
    waiting: AtomicUsize,
    quiet: Notify,
}

/// One read that waits; leaving is dropping it.
pub(crate) struct Demand<'a>(&'a DemandGate);

impl DemandGate {
    pub(crate) fn enter(&self) -> Demand<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Demand(self)
    }

    /// Returns as soon as no read waits.
    pub(crate) async fn quiet(&self) {
        loop {
            let notified = self.quiet.notified();
            tokio::pin!(notified);
            // Registered before the count is looked at, so that the last leaver cannot be missed.
            notified.as_mut().enable();
            if self.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.quiet.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn background_waits_for_the_last_read() {
        let gate = std::sync::Arc::new(DemandGate::default());
        gate.quiet().await;
        let (first, second) = (gate.enter(), gate.enter());
        let waiter = tokio::spawn({
            let gate = std::sync::Arc::clone(&gate);
            async move { gate.quiet().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(second);
        waiter.await.unwrap();
    }
}
