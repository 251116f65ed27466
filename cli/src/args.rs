//! The command line, as data. What it means is in the commands' own files.

mod login;
mod pull;
mod store;

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use snap_registry::{Platform, Reference};

pub(crate) use login::{LoginArgs, LogoutArgs};
pub(crate) use pull::{ContainerdArgs, FetchArgs, ImageName, Progress, PullArgs};
pub(crate) use store::{CacheArgs, CacheCommand, DumpArgs, IndexArgs, IndexCommand, find_digest};

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
    Pull(Box<PullArgs>),
    Fetch(Box<FetchArgs>),
    Login(LoginArgs),
    Logout(LogoutArgs),
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
    #[command(flatten)]
    pub(crate) hosts: HostArgs,
}

/// How registries are talked to.
#[derive(Args, Debug, Default)]
pub(crate) struct HostArgs {
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
}
