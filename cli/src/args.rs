//! The command line, as data. What it means is in the commands' own files.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use snap_digest::Digest;
use snap_registry::{Platform, Reference};

use crate::size::parse_size;

/// The hidden flag with which this program starts itself as the process that serves.
pub(crate) const AS_DAEMON: &str = "as-daemon";

const LAYOUT_HELP: &str = "An image is named as docker names it (python:3.13, ghcr.io/org/app@sha256:…), or is a tag of an OCI layout on disk \
(oci:DIR, oci:DIR:TAG).";

/// Starts containers without waiting for their images.
///
/// snap mounts an OCI image as a directory at once, fetches what is read, and brings the rest behind it. Every byte is verified before
/// anyone sees it, and what is here once is never fetched again.
#[derive(Parser, Debug)]
#[command(name = "snap", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Example:
  mkdir -p /mnt/python
  snap mount python:3.13-slim /mnt/python
  chroot /mnt/python python3 --version
  snap umount /mnt/python")]
pub(crate) struct Cli {
    /// Log more on standard error; twice: everything.
    ///
    /// The environment variable SNAP_LOG overrides it, with a filter such as snap_registry=debug.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Logging")]
    pub(crate) verbose: u8,
    /// Write log lines as JSON.
    #[arg(long, global = true, help_heading = "Logging")]
    pub(crate) log_json: bool,
    #[arg(long = AS_DAEMON, hide = true)]
    pub(crate) as_daemon: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Mount(Box<MountArgs>),
    #[command(alias = "unmount")]
    Umount(UmountArgs),
    Serve(ServeArgs),
    Status(StatusArgs),
    Inspect(InspectArgs),
    Cache(CacheArgs),
    Index(IndexArgs),
}

/// Where what was fetched is kept.
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    /// Keep what is fetched in this directory [default: /var/lib/snap for root, else ~/.cache/snap].
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Evict what was used least recently when the cache is larger than this, such as 20G.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub(crate) cache_size: Option<u64>,
}

/// How images are found.
#[derive(Args, Debug)]
pub(crate) struct RegistryArgs {
    /// Take the image for this platform [default: this machine's].
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Talk to the registry without TLS.
    ///
    /// Registries on this machine are always talked to that way, and hosts files decide for themselves.
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Read registry hosts and certificates from this directory, in the form of /etc/containerd/certs.d or /etc/docker/certs.d, instead
    /// of from those two. May be repeated.
    #[arg(long, value_name = "DIR")]
    pub(crate) certs_dir: Vec<PathBuf>,
}

/// Mount an image at a directory.
///
/// Returns when the files are there to be used; a process in the background serves them, fetches what is read first, and everything else
/// behind it. Until the command returns, Ctrl-C undoes it. The mount is read-only, shows what the image's layers make together, and
/// ends with `snap umount` (or umount).
#[derive(Args, Debug)]
#[command(after_help = format!("{LAYOUT_HELP}

Examples:
  snap mount python:3.13-slim /mnt/python
  snap mount --wait --json ghcr.io/org/app:1.2 /mnt/app
  snap mount --rw /var/tmp/changes python:3.13-slim /mnt/python"))]
pub(crate) struct MountArgs {
    /// The image.
    pub(crate) image: Reference,
    /// An empty directory.
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Return only when everything is here: no registry is needed from then on.
    #[arg(long, conflicts_with = "no_background")]
    pub(crate) wait: bool,
    /// Fetch nothing but what is read.
    #[arg(long)]
    pub(crate) no_background: bool,
    /// Let a read wait for the network for at most this long, then fail with EIO [default: 60].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) read_timeout: Option<NonZeroU64>,
    /// Make the mount writable, with what is changed kept in this directory.
    ///
    /// An overlay goes over the image; its changes are in DIR/upper and outlive the mount. Needs root, and a local file system. `snap
    /// umount` takes both away; after a plain umount the serving process takes the image away itself.
    #[arg(long, value_name = "DIR")]
    pub(crate) rw: Option<PathBuf>,
    /// Serve from this process, until the mount is unmounted or a signal comes.
    ///
    /// SIGTERM and Ctrl-C unmount. Where files are open, the mount disappears at once and they are served until they are closed; a second
    /// signal ends that.
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Print what was mounted as one JSON object: dir, image, manifest, pid, complete.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Unmount an image.
///
/// Returns when the process that served it has ended. Also takes away what a killed process left behind.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  snap umount /mnt/python")]
pub(crate) struct UmountArgs {
    /// Take it away although files of it are open; they are served until they are closed.
    #[arg(short, long)]
    pub(crate) lazy: bool,
    /// The directory it is mounted at.
    pub(crate) dir: PathBuf,
}

/// Serve containerd: pulled images start without being unpacked.
///
/// Is containerd's remote snapshotter, for docker, Kubernetes and other clients of containerd. It listens on a socket that containerd's
/// configuration names as a proxy plugin; docs/CONTAINERD.md, DOCKER.md and KUBERNETES.md say how. A layer that is pulled is shown below
/// one mount at once, fetched as it is read, and the rest of it behind.
///
/// It can be stopped, killed and replaced under running containers: their files wait, and the next one started with the same
/// directories goes on with them. To take everything away, remove the containers and images, stop it, and `snap umount STATE/fs`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snap serve --print-config >/etc/snap/config.toml
  snap serve
  snap serve --root /data/snap --socket /run/snap/snap.sock")]
pub(crate) struct ServeArgs {
    /// Read the configuration from this file [default: /etc/snap/config.toml, where there is one].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep layers and snapshots in this directory [default: /var/lib/snap].
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Keep sockets and the mount in this directory, which must be empty after a boot [default: /run/snap].
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Listen here [default: snap.sock in the state directory].
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print the configuration that would be used, every key explained, and serve nothing.
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// Show what is mounted and served, and how much of it is here.
///
/// Lists the mounts of this user: the image, who serves it, what of each layer is here, what was fetched, and which reads waited or
/// failed. Where the process that served a mount has died, that is said. For root, and where `snap serve` runs, what that serves comes
/// first, with the layers that were left to containerd to unpack, and why.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snap status
  snap status --json /mnt/python | jq '.mounts[0].bytes_fetched'")]
pub(crate) struct StatusArgs {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where `snap serve` has its sockets.
    #[arg(long, value_name = "DIR", default_value = "/run/snap")]
    pub(crate) state: PathBuf,
    /// Only what is mounted here.
    pub(crate) dir: Option<PathBuf>,
}

/// Show an image's layers, and whether it is mounted without reading it first.
///
/// Fetches the manifest and the configuration, no layer.
#[derive(Args, Debug)]
#[command(after_help = format!("{LAYOUT_HELP}

Example:
  snap inspect --platform linux/arm64 python:3.13-slim"))]
pub(crate) struct InspectArgs {
    /// The image.
    pub(crate) image: Reference,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_example() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{} has no example", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

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
