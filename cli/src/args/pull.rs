//! The words of what is done through containerd: `snap pull`, `snap fetch`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use snap_registry::{Reference, RegistryReference};

use super::RegistryArgs;

/// Where containerd is, and where in it the images are.
#[derive(Args, Debug)]
pub(crate) struct ContainerdArgs {
    /// Use containerd's namespace of this name.
    ///
    /// An image is there for those who use the same namespace: docker uses moby, Kubernetes k8s.io, and ctr this default.
    #[arg(short, long, value_name = "NAME", default_value = "default", env = "CONTAINERD_NAMESPACE", hide_env_values = true)]
    pub(crate) namespace: String,
    /// Talk to containerd here.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/containerd/containerd.sock",
        env = "CONTAINERD_ADDRESS",
        hide_env_values = true
    )]
    pub(crate) address: PathBuf,
    /// Use this snapshotter, by the name that containerd's configuration gives it.
    ///
    /// One that stores files itself, such as overlayfs, makes it an ordinary pull: everything is downloaded and unpacked.
    #[arg(long, value_name = "NAME", default_value = "snap")]
    pub(crate) snapshotter: String,
    /// Where `snap serve` has its sockets.
    #[arg(long, value_name = "DIR", default_value = "/run/snap")]
    pub(crate) state: PathBuf,
}

/// How progress is shown.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Lines that change in place on a terminal, else as plain
    Auto,
    /// A line for each thing that happens
    Plain,
    /// Docker's JSON messages, one a line
    Json,
}

/// An image in a registry, as it was named.
#[derive(Clone, Debug)]
pub(crate) struct ImageName {
    /// What it stands for, with docker's defaults.
    pub(crate) reference: RegistryReference,
    /// Whether neither a tag nor a digest was given, so that the tag is a default.
    pub(crate) is_bare: bool,
}

/// Pull images into containerd, without waiting for what their layers hold.
///
/// As docker pull does, and with its words; but a layer that `snap serve` can show is not downloaded: it is mounted, and fetched as it is
/// read. An image whose layers nobody has indexed before is read once, while it streams by. What cannot be mounted is downloaded and
/// unpacked as ever, and the line of the layer says why.
///
/// A pull that was stopped goes on where it was with the same command. Credentials are docker's: see `snap login`.
#[derive(Args, Debug)]
#[command(after_help = "Docker sees what is in the namespace moby, Kubernetes what is in k8s.io.

Examples:
  snap pull python:3.13-slim
  snap pull --namespace moby python:3.13-slim && docker run --rm python:3.13-slim python3 --version
  snap pull --all-tags ghcr.io/org/app
  snap pull --progress json python:3.13-slim | jq -r 'select(.aux).aux.digest'")]
pub(crate) struct PullArgs {
    /// Pull every tag of the repository, which is named without one.
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) containerd: ContainerdArgs,
    /// Show progress in this form.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,
    /// Print nothing but the full name of what was pulled.
    #[arg(short, long, conflicts_with = "progress")]
    pub(crate) quiet: bool,
    /// Take images of the old format schema 1, too, and convert them.
    #[arg(long)]
    pub(crate) allow_schema1: bool,
    /// The images, one after another.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<ImageName>,
}

/// Complete images that were pulled lazily.
///
/// Returns when everything that the layers of an image hold is on this machine, so that its containers need no registry any more. With
/// --content containerd has the layers' blobs, too, which is what an export, a push and `docker save` read.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snap fetch python:3.13-slim
  snap fetch --content --namespace moby python:3.13-slim && docker save --output python.tar python:3.13-slim")]
pub(crate) struct FetchArgs {
    /// Put the layers' blobs into containerd's content store, as an ordinary pull would have.
    #[arg(long)]
    pub(crate) content: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) containerd: ContainerdArgs,
    /// Show progress in this form.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,
    /// The images, one after another.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<ImageName>,
}

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Reference::Registry(reference)) => Ok(Self { reference, is_bare: Reference::names_no_tag(text) }),
            Ok(Reference::Layout(_)) => {
                Err("an OCI layout on disk is in no registry; hint: tar it up and use `ctr images import`, or mount it with `snap mount`"
                    .to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl PullArgs {
    /// Checks what the command line cannot by itself.
    ///
    /// # Errors
    /// In docker's words, where all tags and one of them are asked for.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.images.iter().find(|image| self.all_tags && !image.is_bare) {
            Some(image) => {
                anyhow::bail!("tag can't be used with --all-tags/-a\nhint: snap pull --all-tags {}", image.reference.familiar_repository())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Pull {
        #[command(flatten)]
        args: PullArgs,
    }

    fn pull(words: &str) -> Result<PullArgs, clap::Error> {
        Pull::try_parse_from(["pull"].into_iter().chain(words.split_whitespace())).map(|pull| pull.args)
    }

    #[test]
    fn images_are_named_as_docker_names_them() {
        let args =
            pull("python ghcr.io/org/app 127.0.0.1:5000/app:1 a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
                .unwrap();
        let names: Vec<(String, bool)> = args.images.iter().map(|image| (image.reference.to_string(), image.is_bare)).collect();
        let digest = "docker.io/library/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let wanted =
            [("docker.io/library/python:latest", true), ("ghcr.io/org/app:latest", true), ("127.0.0.1:5000/app:1", false), (digest, false)];
        assert_eq!(names, wanted.map(|(name, is_bare)| (name.to_owned(), is_bare)));
        assert!(args.check().is_ok());
    }

    #[test]
    fn a_layout_and_no_name_are_refused() {
        assert!(pull("oci:/srv/image").unwrap_err().to_string().contains("in no registry"));
        assert!(pull("Debian").unwrap_err().to_string().contains("must be lower case"));
    }

    #[test]
    fn all_tags_are_not_one() {
        assert!(pull("-a python ghcr.io/org/app").unwrap().check().is_ok());
        let error = pull("--all-tags python ghcr.io/org/app:1").unwrap().check().unwrap_err().to_string();
        assert!(error.contains("tag can't be used") && error.ends_with("snap pull --all-tags ghcr.io/org/app"), "{error}");
    }
}
