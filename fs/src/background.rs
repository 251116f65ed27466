//! The rest of an image, behind the reads: starts at once, several large requests at a time, steps aside for every read that waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::demand::DemandGate;
use crate::error::ReadError;
use crate::layer::Layer;
use crate::limits;

/// How far the background of an image is.
#[derive(Clone, Debug)]
pub enum Completion {
    /// At work, or not started.
    Working,
    /// Everything is here and verified.
    Complete,
    /// It failed several times in a row, last with this; it goes on trying.
    Struggling(ReadError),
}

/// Fetches everything that is missing, and tells how it goes.
pub(crate) struct Background {
    layers: Mutex<VecDeque<(Arc<Layer>, u32)>>,
    gate: Arc<DemandGate>,
    /// Bounds the requests that are made at a time, of this and of all others that share it.
    slots: Arc<Semaphore>,
    completion: watch::Sender<Completion>,
}

impl Background {
    pub(crate) fn new(layers: &[Arc<Layer>], gate: Arc<DemandGate>, slots: Arc<Semaphore>) -> Arc<Self> {
        let layers = layers.iter().map(|layer| (Arc::clone(layer), 0)).collect();
        Arc::new(Self { layers: Mutex::new(layers), gate, slots, completion: watch::Sender::new(Completion::Working) })
    }

    pub(crate) fn completion(&self) -> watch::Receiver<Completion> {
        self.completion.subscribe()
    }

    /// Runs until everything is here. Dropping the future stops it.
    pub(crate) async fn run(self: Arc<Self>) {
        let layers: Vec<Arc<Layer>> = self.queue().iter().map(|(layer, _)| Arc::clone(layer)).collect();
        loop {
            let mut workers = JoinSet::new();
            for _ in 0..limits::BACKGROUND_RUNS_MAX {
                workers.spawn(Arc::clone(&self).work());
            }
            while workers.join_next().await.is_some() {}
            // Points that a reader was fetching were passed over; they may have failed.
            let missing: VecDeque<_> = layers.iter().filter(|layer| !layer.is_complete()).map(|layer| (Arc::clone(layer), 0)).collect();
            if missing.is_empty() {
                self.completion.send_replace(Completion::Complete);
                return;
            }
            *self.queue() = missing;
            tokio::time::sleep(Duration::from_millis(limits::BACKGROUND_PAUSE_MS)).await;
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<(Arc<Layer>, u32)>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next point to start from, of the first layer that lacks one.
    fn next(&self) -> Option<(Arc<Layer>, u32)> {
        let mut queue = self.queue();
        while let Some((layer, from)) = queue.front_mut() {
            if let Some(point) = layer.flights.next_missing(layer, *from) {
                *from = point + 1;
                return Some((Arc::clone(layer), point));
            }
            queue.pop_front();
        }
        None
    }

    async fn fetch(&self, layer: &Arc<Layer>, point: u32) -> Result<(), ReadError> {
        let _slot = self.slots.acquire().await;
        self.gate.quiet().await;
        layer.flights.background(layer, point).await
    }

    async fn work(self: Arc<Self>) {
        let mut failures = 0;
        let mut pause_ms = limits::BACKGROUND_PAUSE_MS;
        loop {
            let Some((layer, point)) = self.next() else { return };
            while let Err(error) = self.fetch(&layer, point).await {
                failures += 1;
                if failures >= limits::BACKGROUND_FAILURES_TOLD {
                    self.completion.send_replace(Completion::Struggling(error));
                }
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(limits::BACKGROUND_PAUSE_MS_MAX);
            }
            if failures > 0 {
                (failures, pause_ms) = (0, limits::BACKGROUND_PAUSE_MS);
                self.completion.send_if_modified(|completion| {
                    let recovered = matches!(completion, Completion::Struggling(_));
                    if recovered {
                        *completion = Completion::Working;
                    }
                    recovered
                });
            }
        }
    }
}
