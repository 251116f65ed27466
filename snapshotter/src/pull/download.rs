//! Brings blobs into containerd's content store: ranges of the registry's in parallel, written in order, the lowest layer first.
//!
//! One task hands out the ranges of all layers, always of the lowest layer that still wants some: so that it can be unpacked while those
//! above it arrive. A range that is under way or not written yet holds a permit, which bounds memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use snap_registry::{Blob, Cause, Descriptor, Source};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::containerd::{Begin, Containerd, ContainerdError, ContentWriter};
use crate::limits;
use crate::pull::busy::Patience;
use crate::pull::error::PullError;
use crate::pull::event::Step;
use crate::record::Labels;

/// The blobs of one image on their way to containerd. Dropping it ends every transfer.
pub(crate) struct Downloads {
    containerd: Containerd,
    source: Arc<dyn Source>,
    orders: mpsc::UnboundedSender<Order>,
    _issuing: AbortOnDropHandle<()>,
}

/// Ranges that a layer wants to have fetched.
struct Order {
    /// The layer's place in the image: lower ones go first.
    place: usize,
    blob: Arc<dyn Blob>,
    /// What was not handed out yet.
    range: Range<u64>,
    ranges: mpsc::UnboundedSender<Fetching>,
}

/// A range under way.
struct Fetching {
    bytes: AbortOnDropHandle<Result<Bytes, snap_registry::Error>>,
    /// Given back when the bytes are written.
    _permit: OwnedSemaphorePermit,
}

impl Downloads {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(containerd: Containerd, source: Arc<dyn Source>) -> Arc<Self> {
        let (orders, incoming) = mpsc::unbounded_channel();
        let issuing = AbortOnDropHandle::new(tokio::spawn(issue(incoming)));
        Arc::new(Self { containerd, source, orders, _issuing: issuing })
    }

    /// Brings the blob at `place` of the image into the content store, verified, with `labels`. Goes on where an earlier attempt ended.
    /// Gives whether it was not there yet.
    ///
    /// # Errors
    /// The registry's and containerd's; [`PullError::Busy`] where another client holds the blob for too long.
    pub(crate) async fn fetch(&self, place: usize, blob: &Descriptor, labels: &Labels, tell: impl Fn(Step)) -> Result<bool, PullError> {
        let mut writer = match self.begin(blob, &tell).await? {
            Begin::Here => return Ok(false),
            Begin::Writer(writer) => writer,
        };
        let resumed_at = writer.offset();
        match self.transfer(place, blob, labels, writer, &tell).await {
            // What an earlier attempt left may be wrong; what came now is not known to be.
            Err(PullError::Containerd(ContainerdError::DigestMismatch { .. })) if resumed_at > 0 => {
                tracing::warn!(blob = %blob.digest, resumed_at, "what was left of an earlier pull is damaged; the blob is fetched anew");
                writer = match self.begin(blob, &tell).await? {
                    Begin::Here => return Ok(false),
                    Begin::Writer(writer) => writer,
                };
                self.transfer(place, blob, labels, writer, &tell).await?;
            }
            result => result?,
        }
        Ok(true)
    }

    /// Waits until no other client writes the blob.
    async fn begin(&self, blob: &Descriptor, tell: &impl Fn(Step)) -> Result<Begin, PullError> {
        let patience = Patience::with(blob.digest);
        loop {
            match self.containerd.begin_write(blob).await {
                Err(ContainerdError::Busy { .. }) => tell(Step::Waiting),
                result => return Ok(result?),
            }
            patience.wait().await?;
        }
    }

    async fn transfer(
        &self,
        place: usize,
        descriptor: &Descriptor,
        labels: &Labels,
        mut writer: Box<ContentWriter>,
        tell: &impl Fn(Step),
    ) -> Result<(), PullError> {
        let total_bytes = descriptor.size_bytes;
        let blob = self.source.blob(descriptor);
        let (ranges, mut fetching) = mpsc::unbounded_channel();
        let range = writer.offset()..total_bytes;
        tell(Step::Downloading { current_bytes: range.start, total_bytes });
        // The other end lives as long as `self`.
        let _ = self.orders.send(Order { place, blob: Arc::clone(&blob), range, ranges });
        while writer.offset() < total_bytes {
            let Some(Fetching { bytes, _permit }) = fetching.recv().await else { return Err(PullError::Stopped) };
            match bytes.await? {
                Ok(bytes) => writer.write(bytes).await?,
                Err(error) if is_without_ranges(&error) => {
                    drop(fetching);
                    write_whole(&*blob, &mut writer, total_bytes, tell).await?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            tell(Step::Downloading { current_bytes: writer.offset(), total_bytes });
        }
        writer.commit(labels).await?;
        tell(Step::Downloaded);
        Ok(())
    }
}

/// Hands out ranges for as long as anyone may want some.
async fn issue(mut incoming: mpsc::UnboundedReceiver<Order>) {
    let permits = Arc::new(Semaphore::new(limits::PULL_RANGES_MAX));
    // By place, and by the order they came in where a place comes twice.
    let mut waiting: BTreeMap<(usize, u64), Order> = BTreeMap::new();
    let mut count = 0;
    loop {
        let permit = tokio::select! {
            biased;
            order = incoming.recv() => {
                let Some(order) = order else { return };
                count += 1;
                waiting.insert((order.place, count), order);
                continue;
            }
            permit = Arc::clone(&permits).acquire_owned(), if !waiting.is_empty() => permit,
        };
        let (Ok(permit), Some(mut first)) = (permit, waiting.first_entry()) else { return };
        let order = first.get_mut();
        let range = order.range.start..(order.range.start + limits::PULL_RANGE_BYTES).min(order.range.end);
        order.range.start = range.end;
        let is_gone = !range.is_empty() && {
            let blob = Arc::clone(&order.blob);
            let bytes = AbortOnDropHandle::new(tokio::spawn(async move { blob.read(range).await }));
            order.ranges.send(Fetching { bytes, _permit: permit }).is_err()
        };
        if is_gone || order.range.is_empty() {
            first.remove();
        }
    }
}

fn is_without_ranges(error: &snap_registry::Error) -> bool {
    matches!(error, snap_registry::Error::Request(request) if matches!(request.cause, Cause::NoRanges))
}

/// For a server that knows no ranges: the whole blob in one request, of which what is written already is passed over.
async fn write_whole(blob: &dyn Blob, writer: &mut ContentWriter, total_bytes: u64, tell: &impl Fn(Step)) -> Result<(), PullError> {
    tracing::warn!(blob = %blob.digest(), "the server does not serve ranges: the blob is fetched in one request");
    let mut position = 0;
    let mut body = blob.stream(0..total_bytes).await?;
    while let Some(piece) = body.next().await {
        let mut piece = piece?;
        let known = (writer.offset() - position).min(piece.len() as u64);
        position += piece.len() as u64;
        let new = piece.split_off(known as usize);
        if !new.is_empty() {
            writer.write(new).await?;
            tell(Step::Downloading { current_bytes: writer.offset(), total_bytes });
        }
    }
    Ok(())
}
