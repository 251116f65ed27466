//! The words of what is about the local store: `snap cache`, `snap index`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use snap_digest::Digest;

use crate::size::parse_size;

/// Look at the local store of layers, and free space.
///
/// The store holds what was fetched, by layer, for all images that share it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snap cache ls
  snap cache rm 3f4a8c
  snap cache prune --keep 10G")]
pub(crate) struct CacheArgs {
    /// Where it is [default: /var/lib/snap for root, else ~/.cache/snap].
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum CacheCommand {
    /// List the layers, the one used last first.
    ///
    /// SIZE is what a layer takes on disk.
    #[command(after_help = "Example:
  snap cache ls --json | jq '.layers[].digest'")]
    Ls,
    /// Remove layers, with all that is known of them.
    ///
    /// A layer that a mounted image uses is refused.
    #[command(after_help = "Example:
  snap cache rm sha256:3f4a8c 91d0e2")]
    Rm {
        /// Digests, or their first digits; sha256: may be left out.
        #[arg(required = true, value_name = "DIGEST")]
        digests: Vec<String>,
    },
    /// Remove what killed processes left, and the least recently used layers down to a size.
    ///
    /// Layers that mounted images use stay. A layer's data goes before its index, so that the next mount of it is still quick.
    #[command(after_help = "Examples:
  snap cache prune
  snap cache prune --keep 0")]
    Prune {
        /// Evict until the store takes at most this much; without it, no layer is evicted.
        #[arg(long, value_name = "BYTES", value_parser = parse_size)]
        keep: Option<u64>,
    },
}

/// Look into layer indexes.
#[derive(Args, Debug)]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    pub(crate) command: IndexCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum IndexCommand {
    Dump(DumpArgs),
}

/// List what a layer contains, as snap indexes it.
///
/// Reads a layer's blob (a tar, gzip, zstd or eStargz file), makes its index as a mount would, and prints one JSON object a line: name,
/// type, mode, uid, gid, mtime, size, sha256, link, dev and xattrs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snap index dump blobs/sha256/3f4a…
  snap index dump --hash layer.tar.gz | jq -r 'select(.type == \"reg\") | .sha256 + \"  \" + .name'
  snap index dump --annotation containerd.io/snapshot/stargz/toc.digest=sha256:… layer.esgz")]
pub(crate) struct DumpArgs {
    /// The layer's blob.
    pub(crate) file: PathBuf,
    /// What the manifest says the blob is [default: told from its first bytes].
    #[arg(long, value_name = "TYPE")]
    pub(crate) media_type: Option<String>,
    /// An annotation of the layer's descriptor. One that names the digest of an eStargz table of contents has that used. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_annotation)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Read every file and print the SHA-256 of its bytes.
    #[arg(long)]
    pub(crate) hash: bool,
}

fn parse_annotation(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("an annotation is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Of `digests`, the one that starts with `prefix` (hex digits, with or without `sha256:`).
pub(crate) fn find_digest(prefix: &str, digests: &[Digest]) -> anyhow::Result<Digest> {
    let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix).to_ascii_lowercase();
    let matching: Vec<&Digest> = digests.iter().filter(|digest| !hex.is_empty() && digest.hex().starts_with(&hex)).collect();
    match matching.as_slice() {
        [one] => Ok(**one),
        [] => anyhow::bail!("no layer in the cache has a digest that starts with {prefix:?}\nhint: snap cache ls"),
        several => {
            let list: Vec<String> = several.iter().map(|digest| digest.short()).collect();
            anyhow::bail!("{} layers have digests that start with {prefix:?}: {}\nhint: give more digits", list.len(), list.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_must_be_unique() {
        let digests = [Digest::from_bytes([0x11; 32]), Digest::from_bytes([0x12; 32])];
        assert_eq!(find_digest("sha256:11", &digests).unwrap(), digests[0]);
        assert_eq!(find_digest("12", &digests).unwrap(), digests[1]);
        assert_eq!(find_digest(&digests[1].to_string(), &digests).unwrap(), digests[1]);
        assert!(find_digest("1", &digests).unwrap_err().to_string().contains("more digits"));
        for none in ["", "sha256:", "2", "xyz"] {
            assert!(find_digest(none, &digests).unwrap_err().to_string().contains("no layer"), "{none}");
        }
    }
}
