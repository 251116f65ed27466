//! What an image's serving has cost so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the image was opened; all monotonic.
#[derive(Default, Debug)]
pub struct Counters {
    /// Compressed bytes that came from the registry or the layout.
    pub fetched_bytes: AtomicU64,
    /// Ranges asked for.
    pub requests: AtomicU64,
    /// Reads that waited for a fetch.
    pub reads_waited: AtomicU64,
    /// How long those waited, together.
    pub read_wait_us: AtomicU64,
    /// Reads that failed.
    pub reads_failed: AtomicU64,
    /// Requests of the kernel that reached this process.
    pub kernel_requests: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Relaxed);
    }

    /// The value of a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Relaxed)
    }
}
