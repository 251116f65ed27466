//! What the started processes do.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use snap_cache::{BuildOutcome, Cache, Error, Lease};
use snap_digest::Digest;

use crate::fixture::{self, Chunks, NEXT_BOOT, begin, build_index, chunk_bytes, complete, index_bytes, layer, open, open_data, soon};
use snap_cache::ChunkLayout as _;

/// The first argument of a started process.
pub(crate) const MARK: &str = "--actor";
pub(crate) const CHUNKS: u32 = 5;
pub(crate) const DOCUMENT: &[u8] = b"{\"schemaVersion\":2}";
pub(crate) const REFERENCE: &str = "registry.example/app:1";
const ROUNDS: u32 = 40;

pub(crate) fn the_layer() -> Digest {
    layer("shared")
}

/// Starts this program as an actor; its standard output and input are pipes.
pub(crate) fn start(role: &str, dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(MARK).arg(role).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn run(role: &str, dir: &Path) {
    match role {
        "open" => drop(open(dir)),
        "fetch" => fetch(&open(dir)),
        "fetch-often" => (0..ROUNDS).for_each(|_| fetch(&open(dir))),
        "prune-often" => prune_often(&open(dir)),
        "build-and-wait" => build_and_wait(&open(dir)),
        "lease-and-wait" => {
            let cache = open(dir);
            let _lease = cache.lease(&the_layer()).unwrap();
            say_and_wait();
        }
        "traced-fetch" => traced(|| {
            let cache = open(dir);
            cache.put_document(&Digest::of(DOCUMENT), DOCUMENT).unwrap();
            cache.set_reference(REFERENCE, "{}").unwrap();
            fetch(&cache);
        }),
        "traced-indexed-fetch" => traced(|| {
            let lease = open(dir).lease(&the_layer()).unwrap();
            build_index(&lease);
            complete(&open_data(&lease, CHUNKS));
        }),
        "traced-return" => traced(|| fetch(&fixture::open_in(dir, NEXT_BOOT))),
        "traced-restoration" => traced(|| fetch(&open(dir))),
        "traced-repair" => traced(|| {
            let cache = open(dir);
            let lease = cache.lease(&the_layer()).unwrap();
            drop(lease.read_index().unwrap());
            lease.discard_index().unwrap();
            fetch(&cache);
        }),
        "traced-eviction" => traced(|| {
            let cache = open(dir);
            cache.prune(8192).unwrap();
            match cache.remove(&the_layer()) {
                Ok(_) | Err(Error::NotCached { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }),
        other => panic!("no role {other}"),
    }
}

/// Makes sure of the whole layer, by whatever it takes; says whether it was built here.
fn fetch(cache: &Cache) {
    let lease = cache.lease(&the_layer()).unwrap();
    while lease.read_index().unwrap().is_none() {
        if let BuildOutcome::Build(build) = lease.begin_build(soon()).unwrap() {
            for chunk in 0..CHUNKS {
                build.data().write_all_at(Chunks(CHUNKS).range(chunk).start, &chunk_bytes(&the_layer(), chunk)).unwrap();
            }
            build.finish(&index_bytes(&the_layer()), CHUNKS).unwrap();
            println!("built");
        }
    }
    complete(&open_data(&lease, CHUNKS));
}

fn prune_often(cache: &Cache) {
    for round in 0..ROUNDS * 5 {
        if round % 2 == 0 {
            cache.prune(0).unwrap();
        } else {
            match cache.remove(&the_layer()) {
                Ok(_) | Err(Error::InUse { .. } | Error::NotCached { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        cache.layers().unwrap();
    }
}

fn build_and_wait(cache: &Cache) {
    let lease: Lease = cache.lease(&the_layer()).unwrap();
    let build = begin(&lease);
    build.data().write_all_at(0, &[0xff; 1500]).unwrap();
    say_and_wait();
    for chunk in 0..CHUNKS {
        build.data().write_all_at(Chunks(CHUNKS).range(chunk).start, &chunk_bytes(&the_layer(), chunk)).unwrap();
    }
    build.finish(&index_bytes(&the_layer()), CHUNKS).unwrap();
}

/// Tells the parent that the point is reached, and goes on when it closes the pipe.
fn say_and_wait() {
    println!("there");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Lets the parent trace everything that `action` does.
fn traced(action: impl FnOnce()) {
    ptrace::traceme().unwrap();
    raise(Signal::SIGSTOP).unwrap();
    action();
}
