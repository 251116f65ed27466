//! Fetching chunks, once: single-flight per point, neighbours in the same request.
//!
//! A *run* is a sequence of points that one request fetches. While it is on its way each of its points is in the table of flights, and
//! whoever wants a chunk of one waits for that flight instead of starting another. Chunks are handed over one by one as they verify.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use snap_cache::ChunkState;
use snap_index::{IndexError, decode_point, verify_chunk};
use tokio::sync::watch;

use crate::error::{LayerError, ReadError};
use crate::layer::Layer;
use crate::limits;
use crate::pieces::{PieceReader, fetch_range, registry_error};

/// What became of a flight.
#[derive(Clone, Debug)]
enum Outcome {
    /// So many chunks have arrived.
    Flying(u32),
    Landed,
    /// Failed; at this point, where the failure is one point's own.
    Failed(Option<u32>, ReadError),
}

/// One run that is being fetched.
pub(crate) struct Flight {
    outcome: watch::Sender<Outcome>,
}

impl Flight {
    fn arrived(&self) {
        self.outcome.send_modify(|outcome| {
            if let Outcome::Flying(count) = outcome {
                *count += 1;
            }
        });
    }
}

/// The runs of one layer that are being fetched, by point.
#[derive(Default)]
pub(crate) struct Flights {
    by_point: Mutex<HashMap<u32, Arc<Flight>>>,
}

/// How far a run may reach beyond the point it is for.
#[derive(Clone, Copy)]
pub(crate) struct Reach {
    /// Chunks before this one are wanted as well.
    wanted_end: u32,
    /// Compressed bytes for what is not wanted yet.
    ahead_bytes: u64,
}

impl Flights {
    /// Waits until a chunk is verified. `wanted_end`: the same reader wants the chunks up to there.
    pub(crate) async fn demand(&self, layer: &Arc<Layer>, chunk: u32, wanted_end: u32, deadline: Instant) -> Result<(), ReadError> {
        let started = Instant::now();
        let point = layer.index().chunk(chunk).point;
        for _ in 0..limits::JOIN_TRIES {
            if layer.is_verified(chunk) {
                return Ok(());
            }
            let reach = Reach { wanted_end, ahead_bytes: limits::DEMAND_RUN_BYTES };
            let mut outcome = self.join(layer, point, reach).outcome.subscribe();
            let settled = outcome.wait_for(|outcome| layer.is_verified(chunk) || !matches!(outcome, Outcome::Flying(_)));
            match tokio::time::timeout_at(deadline.into(), settled).await {
                Err(_) => return Err(ReadError::Deadline { waited_ms: started.elapsed().as_millis() as u64 }),
                Ok(Err(_)) => return Err(ReadError::GivenUp),
                Ok(Ok(outcome)) => match &*outcome {
                    // Another point's bytes were wrong; this chunk's own may be right.
                    Outcome::Failed(Some(failed), _) if *failed != point => {}
                    Outcome::Failed(_, error) if !layer.is_verified(chunk) => return Err(error.clone()),
                    _ => {}
                },
            }
        }
        if layer.is_verified(chunk) { Ok(()) } else { Err(ReadError::GivenUp) }
    }

    /// The next run for the background, from `point` on: fetches it and waits for its end. Gives the first point after it.
    pub(crate) async fn background(&self, layer: &Arc<Layer>, point: u32) -> Result<(), ReadError> {
        let reach = Reach { wanted_end: 0, ahead_bytes: limits::BACKGROUND_RUN_BYTES };
        let mut outcome = self.join(layer, point, reach).outcome.subscribe();
        let settled = outcome.wait_for(|outcome| !matches!(outcome, Outcome::Flying(_))).await.map_err(|_| ReadError::GivenUp)?;
        match &*settled {
            Outcome::Failed(_, error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The first point at or after `from` that has a chunk to fetch or verify and is not in flight.
    pub(crate) fn next_missing(&self, layer: &Layer, from: u32) -> Option<u32> {
        let flights = self.by_point.lock().unwrap_or_else(PoisonError::into_inner);
        (from..layer.index().point_count()).find(|point| !flights.contains_key(point) && !layer.is_point_verified(*point))
    }

    /// The flight that brings `point`, started if there is none.
    fn join(&self, layer: &Arc<Layer>, point: u32, reach: Reach) -> Arc<Flight> {
        let mut flights = self.by_point.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&point) {
            return Arc::clone(flight);
        }
        let run = plan_run(layer, point, reach, |point| flights.contains_key(&point));
        let flight = Arc::new(Flight { outcome: watch::Sender::new(Outcome::Flying(0)) });
        flights.extend(run.clone().map(|point| (point, Arc::clone(&flight))));
        drop(flights);
        let landing = Landing { layer: Arc::clone(layer), run: run.clone(), flight: Arc::clone(&flight) };
        tokio::spawn(async move {
            let outcome = match fly(&landing.layer, run, &landing.flight).await {
                Ok(()) => Outcome::Landed,
                Err(failure) => failure.logged(&landing.layer),
            };
            landing.flight.outcome.send_replace(outcome);
        });
        flight
    }
}

/// Takes a run out of the table however its task ends.
struct Landing {
    layer: Arc<Layer>,
    run: Range<u32>,
    flight: Arc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.layer.flights.by_point.lock().unwrap_or_else(PoisonError::into_inner);
        for point in self.run.clone() {
            flights.remove(&point);
        }
        drop(flights);
        self.flight.outcome.send_if_modified(|outcome| {
            let given_up = matches!(outcome, Outcome::Flying(_));
            if given_up {
                *outcome = Outcome::Failed(None, ReadError::GivenUp);
            }
            given_up
        });
    }
}

/// Extends a run from `point` over neighbours that are missing too.
fn plan_run(layer: &Layer, point: u32, reach: Reach, in_flight: impl Fn(u32) -> bool) -> Range<u32> {
    let index = layer.index();
    let first = index.point(point).blob_range();
    let (mut end_point, mut end_byte) = (point + 1, first.end);
    for next in (point + 1..index.point_count()).take(limits::RUN_POINTS_MAX as usize) {
        let range = index.point(next).blob_range();
        let wanted = index.chunks_of_point(next).start < reach.wanted_end;
        let room = if wanted { limits::DEMAND_RUN_BYTES_MAX } else { reach.ahead_bytes };
        if range.start > end_byte + limits::RUN_GAP_BYTES_MAX || range.end - first.start > room || in_flight(next) {
            break;
        }
        if !layer.is_point_verified(next) {
            (end_point, end_byte) = (next + 1, range.end);
        }
    }
    point..end_point
}

struct Failure {
    point: Option<u32>,
    error: Arc<LayerError>,
}

impl Failure {
    fn of(point: Option<u32>, error: impl Into<LayerError>) -> Self {
        Self { point, error: Arc::new(error.into()) }
    }

    /// The one line that the log gets for a flight that failed.
    fn logged(self, layer: &Layer) -> Outcome {
        tracing::error!(layer = %layer.digest(), point = self.point, error = %self.error, "cannot fetch a part of a layer");
        Outcome::Failed(self.point, ReadError::Fetch(self.error))
    }
}

/// Brings every chunk of a run: verifies what an earlier boot left, fetches the rest.
async fn fly(layer: &Arc<Layer>, run: Range<u32>, flight: &Arc<Flight>) -> Result<(), Failure> {
    verify_stored(layer, run.clone(), flight).await?;
    let mut tries = 0;
    loop {
        let Some(missing) = missing_part(layer, run.clone()) else { return Ok(()) };
        tries += 1;
        match fetch(layer, missing, flight).await {
            Ok(()) => return Ok(()),
            Err(failure) if tries < limits::VERIFY_TRIES && is_wrong_bytes(&failure.error) => {
                tracing::warn!(layer = %layer.digest(), error = %failure.error, "fetched bytes are wrong, trying once more");
            }
            Err(failure) if is_full(&failure.error) && make_room(layer) && tries < limits::VERIFY_TRIES => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn is_wrong_bytes(error: &LayerError) -> bool {
    matches!(error, LayerError::Index(IndexError::ChunkDigest { .. } | IndexError::Compressed { .. } | IndexError::Truncated { .. }))
}

fn is_full(error: &LayerError) -> bool {
    matches!(error, LayerError::Cache(snap_cache::Error::NoSpace { .. }))
}

/// Gives up every layer that nobody uses; whether that freed anything.
fn make_room(layer: &Layer) -> bool {
    match layer.cache.prune(0) {
        Ok(pruned) => pruned.freed_bytes > 0,
        Err(error) => {
            tracing::warn!(%error, "cannot make room in the store");
            false
        }
    }
}

/// Verifies chunks that were stored in an earlier boot, from disk.
async fn verify_stored(layer: &Arc<Layer>, run: Range<u32>, flight: &Arc<Flight>) -> Result<(), Failure> {
    let chunks = layer.index().chunks_of_point(run.start).start..layer.index().chunks_of_point(run.end - 1).end;
    let stored: Vec<u32> = chunks.filter(|&chunk| layer.data().state(chunk) == ChunkState::Stored).collect();
    if stored.is_empty() {
        return Ok(());
    }
    let (layer, flight) = (Arc::clone(layer), Arc::clone(flight));
    let verified = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        for chunk in stored {
            let range = layer.index().chunk_range(chunk);
            bytes.resize((range.end - range.start) as usize, 0);
            let holds = layer.data().read_at(&mut bytes, range.start).is_ok() && verify_chunk(layer.index(), chunk, &bytes).is_ok();
            if holds {
                layer.data().mark_verified(chunk);
            } else {
                tracing::warn!(layer = %layer.digest(), chunk, "a stored chunk is damaged and is fetched again");
                layer.data().mark_absent(chunk);
            }
            flight.arrived();
        }
    });
    verified.await.map_err(|error| Failure::of(None, error))
}

/// From the first to the last point of a run that still lacks something.
fn missing_part(layer: &Layer, run: Range<u32>) -> Option<Range<u32>> {
    let missing = |point: &u32| !layer.is_point_verified(*point);
    let first = run.clone().find(missing)?;
    let last = run.rev().find(missing)?;
    Some(first..last + 1)
}

async fn fetch(layer: &Arc<Layer>, run: Range<u32>, flight: &Arc<Flight>) -> Result<(), Failure> {
    let index = layer.index();
    let start = index.point(run.start).blob_offset;
    let end = run.clone().map(|point| index.point(point).blob_range().end).max().unwrap_or(start);
    let runtime = tokio::runtime::Handle::current();
    let source = fetch_range(&runtime, &layer.blob, start..end);
    let (layer, flight) = (Arc::clone(layer), Arc::clone(flight));
    let decoded = tokio::task::spawn_blocking(move || decode_run(&layer, run, source, &flight));
    decoded.await.map_err(|error| Failure::of(None, error))?
}

fn decode_run(layer: &Layer, run: Range<u32>, mut source: PieceReader, flight: &Flight) -> Result<(), Failure> {
    for point in run {
        if layer.is_point_verified(point) {
            continue;
        }
        let info = layer.index().point(point);
        source.advance_to(info.blob_offset).map_err(|error| Failure::of(None, registry_error(error.into())))?;
        let mut input = std::io::Read::take(&mut source, info.blob_bytes);
        let mut store_failure = None;
        let decoded = decode_point(layer.index(), point, &mut input, &mut |chunk| {
            if let Err(error) = layer.data().store(chunk.number(), chunk.bytes()) {
                store_failure = Some(error);
                return Err(IndexError::Io(std::io::Error::other("not stored")));
            }
            flight.arrived();
            Ok(())
        });
        if let Some(error) = store_failure {
            return Err(Failure::of(None, error));
        }
        decoded.map_err(|error| {
            let error = registry_error(error);
            let own = is_wrong_bytes(&error).then_some(point);
            Failure::of(own, error)
        })?;
    }
    Ok(())
}
