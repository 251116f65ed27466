//! `snap pull`: images into containerd, told as docker tells it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use async_trait::async_trait;
use snap_registry::{Platform, Refusal, RegistryReference};
use snap_snapshotter::containerd::Containerd;
use snap_snapshotter::pull::{PullError, PullOptions, Puller, Reading, Tell, Watch};

use crate::args::{ContainerdArgs, ImageName, PullArgs, RegistryArgs};
use crate::control;
use crate::engine::{open_client, registry_options};
use crate::progress::{Form, Pulled, Teller, until_stopped};
use crate::service::{self, control_socket};
use crate::state::private_folder;

/// Pulls what is asked for. Ctrl-C stops it; what was fetched is kept.
pub(crate) async fn pull(args: &PullArgs) -> anyhow::Result<ExitCode> {
    args.check()?;
    until_stopped(Form::of_stdout(args.progress, args.quiet), async |teller| {
        let puller = open_puller(&args.containerd, &args.registry, args.allow_schema1).await?;
        for image in &args.images {
            let name =
                if args.all_tags { pull_tags(&puller, &image.reference, teller).await? } else { pull_one(&puller, image, teller).await? };
            teller.name(name);
        }
        Ok(())
    })
    .await
}

/// Goes to containerd, with what the command says of it and of registries.
pub(crate) async fn open_puller(containerd: &ContainerdArgs, registry: &RegistryArgs, allow_schema1: bool) -> anyhow::Result<Puller> {
    let client = open_client(&registry_options(&registry.hosts)?)?;
    let options = PullOptions {
        snapshotter: containerd.snapshotter.clone(),
        platform: registry.platform.clone().unwrap_or_else(Platform::host),
        locks_dir: private_folder("pulls")?,
        allow_schema1,
        watch: Some(Arc::new(Service { control: control_socket(&containerd.state) })),
    };
    let containerd = Containerd::connect(&containerd.address, &containerd.namespace).await?;
    Ok(Puller::new(containerd, client, options).await?)
}

/// What hands everything that a pull tells to the printer.
pub(crate) fn telling(teller: &Teller) -> Tell {
    let teller = teller.clone();
    Arc::new(move |event| teller.event(event))
}

async fn pull_one(puller: &Puller, image: &ImageName, teller: &Teller) -> anyhow::Result<String> {
    if image.is_bare {
        teller.say("Using default tag: latest");
    }
    match pull_reference(puller, &image.reference, teller).await {
        Err(PullError::Registry(error)) if image.is_bare && error.refusal() == Some(Refusal::ManifestUnknown) => {
            Err(error).context(format!(
                "{0} has no tag latest, and none was named\nhint: name one, as in {0}:1; snap pull --all-tags {0} pulls all there are",
                image.reference.familiar_repository()
            ))
        }
        pulled => Ok(pulled?),
    }
}

/// Every tag of the repository, one after another. What is no tag is passed over.
async fn pull_tags(puller: &Puller, repository: &RegistryReference, teller: &Teller) -> anyhow::Result<String> {
    let tags = puller.tags(repository).await?;
    if tags.is_empty() {
        bail!("{} has no tags", repository.familiar_repository());
    }
    for tag in tags {
        match repository.with_tag(&tag) {
            Ok(reference) => {
                let pulled = pull_reference(puller, &reference, teller).await;
                pulled.with_context(|| format!("error pulling {}", reference.familiar()))?;
            }
            Err(problem) => tracing::warn!("the tag {tag:?} is not pulled: {problem}"),
        }
    }
    Ok(format!("{}/{}", repository.host(), repository.repository()))
}

/// Gives the image's name in full.
async fn pull_reference(puller: &Puller, reference: &RegistryReference, teller: &Teller) -> Result<String, PullError> {
    let snap_snapshotter::pull::Pulled { name, digest, is_newer } = puller.pull(reference, telling(teller)).await?;
    teller.pulled(Pulled { name: name.clone(), familiar: reference.decisive().familiar(), digest, is_newer });
    Ok(name)
}

/// `snap serve`, where it is the snapshotter, and this user may ask it.
struct Service {
    control: PathBuf,
}

#[async_trait]
impl Watch for Service {
    async fn reading(&self) -> Vec<Reading> {
        let control = self.control.clone();
        let asked = tokio::task::spawn_blocking(move || control::ask::<service::Status>(&control)).await;
        let Ok(Ok(Some(status))) = asked else { return Vec::new() };
        let reading = status.layers.streaming.into_iter();
        reading.map(|layer| Reading { layer: layer.digest, current_bytes: layer.done_bytes, total_bytes: layer.total_bytes }).collect()
    }
}
