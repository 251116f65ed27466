//! Every way a server or the network can fail a range request.

use super::*;
use snap_registry::testing::{Fault, Matcher};
use snap_registry::{Cause, ErrorKind};

const SIZE: u64 = 300 << 10;

struct Case {
    registry: FaultyRegistry,
    setup: Setup,
    bytes: Bytes,
    blob: Arc<dyn Blob>,
}

impl Case {
    async fn with(limits: Limits) -> Self {
        let (registry, setup, bytes) = (FaultyRegistry::start().await, Setup::with(limits), sample(SIZE as usize));
        let blob = setup.blob(&registry, &registry.add_blob(bytes.clone()));
        Self { registry, setup, bytes, blob }
    }

    async fn new() -> Self {
        Self::with(limits()).await
    }

    /// Reads a range, which has to come right, and tells how many requests that took.
    async fn requests_for(&self, range: std::ops::Range<u64>) -> usize {
        self.registry.forget_requests();
        let got = streamed(&*self.blob, range.clone()).await.unwrap();
        assert!(got == self.bytes[range.start as usize..range.end as usize]);
        self.registry.requests().len()
    }

    /// Reads a range, which has to fail, and tells why and how many requests that took.
    async fn failure_of(&self, range: std::ops::Range<u64>) -> (Cause, usize) {
        self.registry.forget_requests();
        match streamed(&*self.blob, range).await.unwrap_err() {
            Error::Request(error) => (error.cause, self.registry.requests().len()),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_whole_blob_in_place_of_a_near_range_is_skipped_through() {
    let case = Case::new().await;
    case.registry.fault(Fault::WholeInsteadOfRange, Matcher::blobs());
    assert_eq!(case.requests_for(1000..2000).await, 1);
    assert_eq!(case.requests_for(0..SIZE).await, 1);
}

#[tokio::test]
async fn a_server_without_ranges_is_remembered_and_near_ranges_still_work() {
    let case = Case::new().await;
    case.registry.fault(Fault::WholeInsteadOfRange, Matcher::blobs());
    let (cause, requests) = case.failure_of(200_000..200_001).await;
    assert!(matches!(cause, Cause::NoRanges) && requests == 1, "{cause} {requests}");
    let (cause, requests) = case.failure_of(200_000..200_001).await;
    assert!(matches!(cause, Cause::NoRanges) && requests == 0, "{cause} {requests}");
    assert_eq!(case.requests_for(10..20).await, 1);
    // One right answer, and far ranges are asked for again.
    case.registry.heal();
    assert_eq!(case.requests_for(10..20).await, 1);
    assert_eq!(case.requests_for(200_000..200_100).await, 1);
}

#[tokio::test]
async fn a_range_that_lies_is_never_handed_out() {
    for lie in [
        "bytes 0-99/307200",
        "bytes 1000-1998/307200",
        "bytes 1000-1999/307201",
        "bytes 1000-1999",
        "1000-1999/307200",
        "",
        "items 1000-1999/307200",
    ] {
        let case = Case::new().await;
        case.registry.fault(Fault::ContentRange(lie.to_owned()), Matcher::blobs());
        let (cause, requests) = case.failure_of(1000..2000).await;
        assert!(matches!(cause, Cause::RangeLied { .. }) && requests == 3, "{lie}: {cause} {requests}");
        assert_eq!(cause.kind(), ErrorKind::RangeLied);
    }
    let once = Case::new().await;
    once.registry.fault(Fault::ContentRange("bytes 0-99/307200".to_owned()), Matcher::blobs().times(1));
    assert_eq!(once.requests_for(1000..2000).await, 2);
    once.registry.fault(Fault::ContentRange("bytes 1000-1999/*".to_owned()), Matcher::blobs());
    assert_eq!(once.requests_for(1000..2000).await, 1);
}

#[tokio::test]
async fn bytes_that_a_range_cannot_vouch_for_are_left_to_the_caller() {
    // No digest is known here for a range: these are the two faults that only the caller's verification can see.
    let case = Case::new().await;
    case.registry.fault(Fault::OtherBytes(1000), Matcher::blobs().times(1));
    assert_eq!(&case.blob.read(0..100).await.unwrap()[..], &case.bytes[1000..1100]);
    case.registry.heal();
    case.registry.fault(Fault::AlteredByte(5), Matcher::blobs());
    let altered = case.blob.read(0..100).await.unwrap();
    assert_eq!(altered.iter().zip(&case.bytes[..100]).filter(|(a, b)| a != b).count(), 1);
    // What has a digest is checked.
    let source = case.setup.source(&case.registry.reference("a/b:t"));
    let error = source.small_blob(&Descriptor::of(&case.bytes, LAYER)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DigestMismatch, "{error}");
}

#[tokio::test]
async fn a_broken_body_is_resumed_from_where_it_broke() {
    for fault in [Fault::TruncateAt(150_000), Fault::ResetAt(150_000)] {
        let case = Case::new().await;
        case.registry.fault(fault.clone(), Matcher::blobs().times(1));
        assert_eq!(case.requests_for(0..SIZE).await, 2, "{fault:?}");
        let requests = case.registry.requests();
        assert_eq!(requests[0].header("range"), None);
        let resumed = requests[1].header("range").unwrap();
        let start: u64 = resumed.strip_prefix("bytes=").unwrap().split_once('-').unwrap().0.parse().unwrap();
        assert!(start <= 150_000 && resumed.ends_with(&format!("-{}", SIZE - 1)), "{resumed}");
        if matches!(fault, Fault::TruncateAt(_)) {
            assert_eq!(start, 150_000);
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_again_and_again_comes_through_as_long_as_it_gets_on() {
    let case = Case::new().await;
    // Each attempt gets 70,000 bytes further, which is progress: more attempts than `attempts` allows without.
    case.registry.fault(Fault::TruncateAt(70_000), Matcher::blobs());
    assert_eq!(case.requests_for(0..SIZE).await, 5);
    let stuck = Case::new().await;
    stuck.registry.fault(Fault::TruncateAt(0), Matcher::blobs());
    let (cause, requests) = stuck.failure_of(0..SIZE).await;
    assert!(matches!(cause, Cause::BrokenBody { .. } | Cause::Connection { .. }) && requests == 3, "{cause} {requests}");
}

#[tokio::test]
async fn a_stalled_body_is_broken_off_and_resumed() {
    let case = Case::with(Limits { stall_timeout: Duration::from_millis(400), ..limits() }).await;
    case.registry.fault(Fault::StallAt(100_000), Matcher::blobs().times(1));
    assert_eq!(case.requests_for(0..SIZE).await, 2);
    case.registry.fault(Fault::StallAt(0), Matcher::blobs());
    let (cause, requests) = case.failure_of(0..SIZE).await;
    assert!(matches!(cause, Cause::Timeout { .. }) && requests == 3, "{cause} {requests}");
}

#[tokio::test]
async fn a_dripping_body_is_broken_off_and_resumed() {
    let window = Limits { rate_window: Duration::from_millis(300), min_rate_bytes_per_s: 10_000, ..limits() };
    let case = Case::with(window).await;
    case.registry.fault(Fault::Drip(Duration::from_millis(20)), Matcher::blobs().times(1));
    assert_eq!(case.requests_for(0..SIZE).await, 2);
    case.registry.fault(Fault::Drip(Duration::from_millis(20)), Matcher::blobs());
    let (cause, _) = case.failure_of(0..SIZE).await;
    assert!(matches!(cause, Cause::TooSlow { .. }), "{cause}");
    assert_eq!(cause.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let case = Case::with(Limits { response_timeout: Duration::from_millis(300), ..limits() }).await;
    case.registry.fault(Fault::NoAnswer, Matcher::blobs());
    let (cause, requests) = case.failure_of(0..10).await;
    assert!(matches!(cause, Cause::Timeout { .. }) && requests == 3, "{cause} {requests}");
    case.registry.heal();
    case.registry.fault(Fault::NoAnswer, Matcher::blobs().times(1));
    assert_eq!(case.requests_for(0..10).await, 2);
}

#[tokio::test]
async fn final_statuses_are_not_retried() {
    for (status, kind) in [(404, ErrorKind::NotFound), (416, ErrorKind::Protocol), (400, ErrorKind::Protocol), (403, ErrorKind::Denied)] {
        let case = Case::new().await;
        case.registry.fault(Fault::Status(status, None), Matcher::blobs());
        let (cause, requests) = case.failure_of(0..10).await;
        assert_eq!((cause.kind(), requests), (kind, 1), "{status}: {cause}");
    }
}

#[tokio::test]
async fn a_failing_server_is_asked_again() {
    for status in [500, 502, 503, 504, 429] {
        let case = Case::new().await;
        case.registry.fault(Fault::Status(status, None), Matcher::blobs().times(2));
        assert_eq!(case.requests_for(0..10).await, 3, "{status}");
        case.registry.fault(Fault::Status(status, None), Matcher::blobs());
        let (cause, requests) = case.failure_of(0..10).await;
        assert!(requests == 3 && matches!(cause.kind(), ErrorKind::Unreachable | ErrorKind::RateLimited), "{status}: {cause}");
    }
}

#[tokio::test]
async fn retry_after_is_obeyed_within_reason() {
    let case = Case::new().await;
    case.registry.fault(Fault::Status(429, Some(1)), Matcher::blobs().times(1));
    assert_eq!(case.requests_for(0..10).await, 2);
    // An hour is more than anyone waits: no second request.
    case.registry.fault(Fault::Status(503, Some(3600)), Matcher::blobs());
    let (cause, requests) = case.failure_of(0..10).await;
    assert!(matches!(cause, Cause::RateLimited { retry_after: Some(wait) } if wait.as_secs() == 3600) && requests == 1, "{cause}");
}

#[tokio::test]
async fn a_chain_of_attempts_ends_at_its_deadline() {
    let deadline = Limits { attempts: u32::MAX, chain_deadline: Duration::from_millis(100), ..limits() };
    let case = Case::with(deadline).await;
    case.registry.fault(Fault::Status(500, None), Matcher::blobs());
    let (cause, requests) = case.failure_of(0..10).await;
    assert!(matches!(cause, Cause::Server { status: 500, .. }) && requests > 1, "{cause} {requests}");
}

#[tokio::test]
async fn nobody_listening_is_an_error_with_attempts_and_url() {
    let case = Case::new().await;
    let url = format!("http://{}/v2/a/b/blobs/{}", case.registry.addr(), case.blob.digest());
    drop(case.registry);
    // The server's task ends with its handle; whether the socket is closed by now or soon, the read fails.
    let error = case.blob.read(0..10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    let text = error.to_string();
    assert!(text.starts_with(&url) && text.contains("3 attempts in "), "{text}");
    assert!(error.is_temporary());
}

#[tokio::test]
async fn connections_are_limited_and_a_dropped_stream_frees_its_own() {
    let case = Case::with(Limits { connections_per_host: 2, ..limits() }).await;
    case.registry.fault(Fault::StallAt(10), Matcher::blobs().times(2));
    let stalled = (case.blob.stream(0..SIZE).await.unwrap(), case.blob.stream(0..SIZE).await.unwrap());
    let mut third = Box::pin(case.blob.read(0..10));
    // Two bodies are open, so the third has to wait before it makes a request.
    tokio::select! {
        biased;
        read = &mut third => panic!("a third connection: {read:?}"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(case.registry.requests().len(), 2);
    drop(stalled);
    assert_eq!(&third.await.unwrap()[..], &case.bytes[..10]);
    let reads = (0..16).map(|i| case.blob.read(i * 1000..(i + 1) * 1000));
    futures_util::future::try_join_all(reads).await.unwrap();
    assert!(case.registry.peak_requests() <= 3, "{}", case.registry.peak_requests());
}

#[tokio::test]
async fn an_unread_stream_is_not_taken_for_a_slow_server() {
    let window = Limits { rate_window: Duration::from_millis(50), min_rate_bytes_per_s: 1 << 20, ..limits() };
    let case = Case::with(window).await;
    let mut stream = case.blob.stream(0..SIZE).await.unwrap();
    let mut got = Vec::new();
    while let Some(piece) = stream.try_next().await.unwrap() {
        got.extend_from_slice(&piece);
        if got.len() < 100_000 {
            // The reader is slow here, not the server.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(got == case.bytes);
    assert_eq!(case.registry.requests().len(), 1);
}
