//! `snap cache`: the local store's layers.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;
use snap_cache::{Cache, LayerUsage};
use snap_digest::Digest;

use crate::args::{CacheArgs, CacheCommand, StoreArgs, find_digest};
use crate::engine::{open_cache, store_options};
use crate::size::human;

#[derive(Serialize)]
struct Listing<'a> {
    dir: &'a std::path::Path,
    bytes_on_disk: u64,
    layers: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    digest: Digest,
    bytes_on_disk: u64,
    data_bytes_on_disk: u64,
    index_bytes: u64,
    /// Seconds since 1970.
    last_used: u64,
    in_use: bool,
}

#[derive(Serialize)]
struct Removal {
    removed: Vec<Digest>,
    freed_bytes: u64,
}

#[derive(Serialize)]
struct Pruning {
    freed_bytes: u64,
    data_evicted: u32,
    layers_evicted: u32,
    leftovers_removed: u32,
    remaining_bytes: u64,
}

pub(crate) fn cache(args: &CacheArgs) -> anyhow::Result<()> {
    let store = StoreArgs { cache_dir: args.cache_dir.clone(), cache_size: None };
    let cache = open_cache(&store_options(&store)?)?;
    match &args.command {
        CacheCommand::Ls => list(&cache, args.json),
        CacheCommand::Rm { digests } => remove(&cache, digests, args.json),
        CacheCommand::Prune { keep } => prune(&cache, *keep, args.json),
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}

fn list(cache: &Cache, json: bool) -> anyhow::Result<()> {
    let mut layers = cache.layers()?;
    layers.sort_by_key(|layer| std::cmp::Reverse((layer.last_used, layer.digest)));
    let bytes_on_disk = cache.usage_bytes()?;
    if json {
        let layers = layers.iter().map(listed).collect();
        return print_json(&Listing { dir: cache.dir(), bytes_on_disk, layers });
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{:12}  {:>10}  {:14}  USED", "LAYER", "SIZE", "HERE")?;
    for layer in &layers {
        let here = match (layer.has_index, layer.data_bytes_on_disk) {
            (false, _) => "being made",
            (true, 0) => "index",
            (true, _) => "index and data",
        };
        let used = if layer.in_use { "now".to_owned() } else { ago(layer.last_used) };
        writeln!(out, "{:12}  {:>10}  {here:14}  {used}", layer.digest.short(), human(layer.bytes_on_disk))?;
    }
    eprintln!("{} layers in {} take {}", layers.len(), cache.dir().display(), human(bytes_on_disk));
    Ok(())
}

fn listed(layer: &LayerUsage) -> Listed {
    let &LayerUsage { digest, bytes_on_disk, data_bytes_on_disk, index_bytes, last_used, in_use, .. } = layer;
    let last_used = last_used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Listed { digest, bytes_on_disk, data_bytes_on_disk, index_bytes, last_used, in_use }
}

/// A time as a person wants it: in the largest unit that there are at least two of, so that no plural is wrong.
fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().map_or(0, |elapsed| elapsed.as_secs());
    let fitting =
        [("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1)].into_iter().find(|(_, length)| seconds >= 2 * length);
    fitting.map_or_else(|| "just now".to_owned(), |(unit, length)| format!("{} {unit} ago", seconds / length))
}

fn remove(cache: &Cache, prefixes: &[String], json: bool) -> anyhow::Result<()> {
    let known: Vec<Digest> = cache.layers()?.iter().map(|layer| layer.digest).collect();
    // All are found before any is removed: a typing error removes nothing.
    let mut found = prefixes.iter().map(|prefix| find_digest(prefix, &known)).collect::<anyhow::Result<Vec<_>>>()?;
    found.sort_unstable();
    found.dedup();
    let mut removal = Removal { removed: Vec::new(), freed_bytes: 0 };
    for layer in found {
        removal.freed_bytes += cache.remove(&layer).with_context(|| format!("cannot remove layer {}", layer.short()))?.freed_bytes;
        removal.removed.push(layer);
        eprintln!("removed {layer}");
    }
    if json { print_json(&removal) } else { Ok(()) }
}

fn prune(cache: &Cache, keep: Option<u64>, json: bool) -> anyhow::Result<()> {
    let pruned = cache.prune(keep.unwrap_or(u64::MAX))?;
    eprintln!(
        "freed {}: {} layers, the data of {} more, {} leftovers; {} remain",
        human(pruned.freed_bytes),
        pruned.layers_evicted,
        pruned.data_evicted,
        pruned.leftovers_removed,
        human(pruned.remaining_bytes)
    );
    if let Some(keep) = keep.filter(|keep| pruned.remaining_bytes > *keep) {
        eprintln!("warning: that is more than {}, because the rest is in use", human(keep));
    }
    let snap_cache::Pruned { freed_bytes, data_evicted, layers_evicted, leftovers_removed, remaining_bytes } = pruned;
    if json { print_json(&Pruning { freed_bytes, data_evicted, layers_evicted, leftovers_removed, remaining_bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_told_in_fitting_units() {
        for (seconds, told) in
            [(1, "just now"), (119, "119 seconds ago"), (120, "2 minutes ago"), (7200, "2 hours ago"), (400_000, "4 days ago")]
        {
            assert_eq!(ago(SystemTime::now() - Duration::from_secs(seconds)), told);
        }
        assert_eq!(ago(SystemTime::now() + Duration::from_secs(60)), "just now");
    }
}
