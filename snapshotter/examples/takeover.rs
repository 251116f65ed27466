//! How long a reader waits when the process that serves its files is killed and the next one is started at once.
//!
//! `takeover FILE ROUNDS COMMAND…`: FILE lies in a mounted tree that is complete, and COMMAND starts the service in the foreground; no
//! other may be running. A reader reads 4 KiB at random offsets, past the kernel's cache, and every page must be what it was before the
//! first kill. The last service is ended by SIGTERM, which leaves the tree mounted. Prints one JSON object, microseconds.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PAGE_BYTES: usize = 4096;
/// Reads between a service's start and its end, so that each is killed at work.
const READS_PER_ROUND: usize = 1000;
/// How long a service may take to be ready, and its reader to have read enough.
const ROUND_SECONDS_MAX: u64 = 60;
const POLL: Duration = Duration::from_millis(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The kernel takes nothing less aligned for a read past its cache.
#[repr(align(4096))]
struct Page([u8; PAGE_BYTES]);

/// Reads until told to stop.
struct Reader {
    file: File,
    expected: Vec<u8>,
    count: AtomicUsize,
    stop: AtomicBool,
}

impl Reader {
    fn open(path: &str) -> Result<Self, Failure> {
        let expected = std::fs::read(path)?;
        if expected.len() < PAGE_BYTES {
            return Err(format!("{path} is too small").into());
        }
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
        Ok(Self { file, expected, count: AtomicUsize::new(0), stop: AtomicBool::new(false) })
    }

    /// When each read ended.
    fn read(&self) -> Result<Vec<Instant>, Failure> {
        let mut page = Box::new(Page([0; PAGE_BYTES]));
        let pages = self.expected.len() / PAGE_BYTES;
        let mut ends = Vec::new();
        let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
        while !self.stop.load(Ordering::Relaxed) {
            // Marsaglia's xorshift64.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let offset = random as usize % pages * PAGE_BYTES;
            self.file.read_exact_at(&mut page.0, offset as u64)?;
            ends.push(Instant::now());
            if page.0 != self.expected[offset..offset + PAGE_BYTES] {
                return Err(format!("other bytes than before at offset {offset}").into());
            }
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(ends)
    }
}

/// A running service, killed where it is dropped.
struct Service(Child);

impl Service {
    /// Starts it, and waits until it says that it is ready, as services of systemd do: sd_notify(3).
    fn start(command: &[String]) -> Result<(Self, Duration), Failure> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("notify");
        let notified = UnixDatagram::bind(&path)?;
        notified.set_read_timeout(Some(Duration::from_secs(ROUND_SECONDS_MAX)))?;
        let (program, arguments) = command.split_first().ok_or("no command")?;
        let started = Instant::now();
        let service = Self(Command::new(program).args(arguments).env("NOTIFY_SOCKET", &path).spawn()?);
        let mut message = [0; 4096];
        loop {
            let length = notified.recv(&mut message).map_err(|error| format!("the service did not become ready: {error}"))?;
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok((service, started.elapsed()));
            }
        }
    }

    /// Returns when it is gone: only then can another one start.
    fn end(&mut self, signal: Signal) -> Result<(), Failure> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), signal)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Default)]
struct Observed {
    kills: Vec<Instant>,
    starts: Vec<Duration>,
}

fn kill_again_and_again(service: &mut Service, reader: &Reader, rounds: usize, command: &[String]) -> Result<Observed, Failure> {
    let mut observed = Observed::default();
    for _ in 0..rounds {
        wait_for_reads(reader)?;
        observed.kills.push(Instant::now());
        service.end(Signal::SIGKILL)?;
        let (next, start) = Service::start(command)?;
        *service = next;
        observed.starts.push(start);
    }
    wait_for_reads(reader)?;
    Ok(observed)
}

fn wait_for_reads(reader: &Reader) -> Result<(), Failure> {
    let (before, since) = (reader.count.load(Ordering::Relaxed), Instant::now());
    while reader.count.load(Ordering::Relaxed) < before + READS_PER_ROUND {
        if reader.stop.load(Ordering::Relaxed) {
            return Err("the reader has ended".into());
        }
        if since.elapsed() > Duration::from_secs(ROUND_SECONDS_MAX) {
            return Err("the reader waits for too long".into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// For each kill the time until the first read ended that had to wait for the next service: after the longest pause before the next kill.
fn waits(ends: &[Instant], kills: &[Instant]) -> Result<Vec<Duration>, Failure> {
    let mut waits = Vec::new();
    for (number, killed) in kills.iter().enumerate() {
        // The last read before the kill begins the pause.
        let first = ends.partition_point(|end| end < killed).checked_sub(1).ok_or("no read before a kill")?;
        let last = kills.get(number + 1).map_or(ends.len(), |next| ends.partition_point(|end| end < next));
        let longest = ends[first..last].windows(2).max_by_key(|pair| pair[1] - pair[0]).ok_or("no read after a kill")?;
        waits.push(longest[1] - *killed);
    }
    Ok(waits)
}

fn summary(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2;
    serde_json::json!({
        "min_us": times[0].as_micros(),
        "median_us": median.as_micros(),
        "max_us": times[times.len() - 1].as_micros(),
    })
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rounds, command @ ..] = arguments.as_slice() else { return Err("usage: takeover FILE ROUNDS COMMAND…".into()) };
    let rounds: usize = rounds.parse()?;
    if rounds == 0 {
        return Err("no rounds: nothing to measure".into());
    }
    let (mut service, _) = Service::start(command)?;
    let reader = Arc::new(Reader::open(path)?);
    let reading = thread::spawn({
        let reader = Arc::clone(&reader);
        move || {
            let ends = reader.read();
            reader.stop.store(true, Ordering::Relaxed);
            ends
        }
    });
    let observed = match kill_again_and_again(&mut service, &reader, rounds, command) {
        // A reader that has ended knows why; one that has not may wait for ever, and ends with this process.
        Err(error) if !reader.stop.load(Ordering::Relaxed) => return Err(error),
        observed => observed,
    };
    reader.stop.store(true, Ordering::Relaxed);
    let ends = reading.join().map_err(|_| "the reader panicked")??;
    service.end(Signal::SIGTERM)?;
    report(&ends, observed?)
}

fn report(ends: &[Instant], observed: Observed) -> Result<(), Failure> {
    let reads = ends.len();
    let wait = summary(waits(ends, &observed.kills)?);
    println!("{}", serde_json::json!({ "reads": reads, "rounds": observed.kills.len(), "wait": wait, "start": summary(observed.starts) }));
    Ok(())
}
