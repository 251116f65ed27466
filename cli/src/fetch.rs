//! `snap fetch`: completes what was pulled lazily.

use std::process::ExitCode;

use anyhow::Context;
use snap_registry::RegistryReference;
use snap_snapshotter::pull::Puller;

use crate::args::FetchArgs;
use crate::control;
use crate::progress::{Form, Said, Teller, until_stopped};
use crate::pull::{open_puller, telling};
use crate::service::control_socket;

/// Completes the images that are named. Ctrl-C stops it; what was fetched is kept.
pub(crate) async fn fetch(args: &FetchArgs) -> anyhow::Result<ExitCode> {
    until_stopped(Form::of_stdout(args.progress, false), async |teller| {
        let puller = open_puller(&args.containerd, &args.registry, false).await?;
        for image in &args.images {
            fetch_image(args, &puller, &image.reference, teller).await?;
        }
        Ok(())
    })
    .await
}

async fn fetch_image(args: &FetchArgs, puller: &Puller, reference: &RegistryReference, teller: &Teller) -> anyhow::Result<()> {
    let contents = puller.contents(reference).await?;
    if !contents.served.is_empty() {
        let socket = control_socket(&args.containerd.state);
        let completed = control::complete(&socket, &contents.served, |layers| {
            for layer in layers {
                teller.layer(layer.digest, Said::fetching(layer.present_bytes, layer.total_bytes));
            }
        });
        let named = || format!("cannot complete {} by the service at {}", reference.familiar(), socket.display());
        completed.await.with_context(named)?;
    }
    let what = if args.content {
        puller.fetch_content(reference, telling(teller)).await?;
        "all its files are here, and its blobs are in containerd"
    } else {
        contents.served.iter().for_each(|&layer| teller.layer(layer, Said::complete()));
        "all its files are here"
    };
    teller.say(format!("{}: {what}", contents.name));
    Ok(())
}
