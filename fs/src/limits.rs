//! Every bound and default of this crate, in one place.

/// A read that waits for the network fails with EIO after this long.
pub const READ_DEADLINE_MS: u64 = 60_000;
/// How long one process waits for another that is building the same layer.
pub const BUILD_WAIT_MS: u64 = 15 * 60_000;
/// Compressed bytes that a demand read fetches ahead in the same request, at most.
pub const DEMAND_RUN_BYTES: u64 = 256 * 1024;
/// Compressed bytes of one request where a demand read itself spans many chunks.
pub const DEMAND_RUN_BYTES_MAX: u64 = 8 << 20;
/// Compressed bytes of one background request.
pub const BACKGROUND_RUN_BYTES: u64 = 8 << 20;
/// Background requests of one image at a time.
pub const BACKGROUND_RUNS_MAX: usize = 4;
/// Points of one request: bounds the work of planning it.
pub const RUN_POINTS_MAX: u32 = 4096;
/// Bytes between two wanted ranges that are fetched and dropped rather than asked around.
pub const RUN_GAP_BYTES_MAX: u64 = 64 * 1024;
/// Tries of one chunk's fetch when what came did not verify.
pub const VERIFY_TRIES: u32 = 2;
/// Times that one read starts over because another read's fetch of neighbouring chunks failed.
pub const JOIN_TRIES: u32 = 4;
/// First pause of the background after a failure; doubled up to the next bound.
pub const BACKGROUND_PAUSE_MS: u64 = 500;
/// Longest pause of the background between failures.
pub const BACKGROUND_PAUSE_MS_MAX: u64 = 30_000;
/// Failures in a row after which whoever waits for completeness is told.
pub const BACKGROUND_FAILURES_TOLD: u32 = 4;
/// How long someone who waits for the rest of layers waits while nothing of them arrives, failures or not. A chunk must fit in, on a slow
/// line too.
pub const COMPLETE_STALL_MS: u64 = 300_000;
/// How long they wait once failures were told, if nothing arrives.
pub const COMPLETE_STRUGGLE_MS: u64 = 60_000;
/// Range size of the streaming pass.
pub const PASS_RANGE_BYTES: u64 = 8 << 20;
/// Ranges of one layer that the streaming pass has in flight or in memory.
pub const PASS_RANGES_AHEAD: usize = 3;
/// Layers that are streamed at a time.
pub const PASSES_MAX: usize = 3;
/// Layers whose indexes are opened at a time.
pub const OPENS_MAX: usize = 16;
/// Layers up to this size are streamed whole at once: asking for their table of contents costs more.
pub const SMALL_LAYER_BYTES: u64 = 128 * 1024;
/// Pieces of a body between the network and the decoder.
pub const PIECES_AHEAD: usize = 8;
/// Threads that answer the kernel for one image.
pub const FUSE_THREADS: usize = 2;
/// Threads that answer the kernel for all containers of a machine, where it has as many processors. More gain nothing: a read that has to
/// wait does not wait there.
pub const SERVICE_FUSE_THREADS_MAX: usize = 4;
/// Kernel readahead on the mount, set where the process may.
pub const READ_AHEAD_KIB: u32 = 1024;
/// Requests that the kernel keeps in flight for readahead and asynchronous reads.
pub const FUSE_MAX_BACKGROUND: u16 = 64;
/// How long the kernel may believe an answer: layers never change. Seconds; a century, as the wire format has no "for ever".
pub const CACHE_SECONDS: u64 = 100 * 365 * 24 * 3600;
/// Largest read that is answered; the kernel asks for at most 1 MiB.
pub const READ_BYTES_MAX: u32 = 4 << 20;
/// Repositories that one layer is remembered to be in.
pub const BLOB_SOURCES_MAX: usize = 8;
/// How long a layer that was opened ahead of being asked for is kept.
pub const UNCLAIMED_LAYER_MS: u64 = 10 * 60_000;
/// How long it is remembered that an image's manifest cannot be had.
pub const MISSING_IMAGE_MS: u64 = 30_000;
/// Images whose manifests are kept in memory, found or not.
pub const IMAGES_REMEMBERED_MAX: usize = 256;
/// How long a new mount's first request may take. The kernel sends it before mount(2) returns.
pub const HANDSHAKE_WAIT_MS: u16 = 5_000;
/// Room for the first request or its answer. The kernel wants 8 KiB of whoever reads it.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// Size of the file that keeps a handshake.
pub const HANDSHAKE_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Mounts on top of each other that are cleared away before a new one.
pub const LEFTOVER_MOUNTS_MAX: usize = 16;
/// How long a keeper may take to be ready.
pub const KEEPER_START_MS: u16 = 10_000;
/// How long a keeper may take to answer. Seconds.
pub const KEEPER_FETCH_SECONDS: i64 = 5;
/// How often a keeper looks whether its connection is still there, and so how long it outlives it.
pub const KEEPER_CHECK_MS: u16 = 1_000;
/// Tries to remove a layer that no snapshot has any more and that is still in use.
pub const REMOVE_TRIES: u32 = 10;
/// Pause between two of them. Together as long as a fetch that was given up may take to notice.
pub const REMOVE_PAUSE_MS: u64 = 6_000;
