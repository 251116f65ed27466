//! `snap inspect`: an image's layers, and whether it is lazy.

use std::io::{self, Write};

use anyhow::Context;
use snap_fs::ImageReport;
use snap_registry::Platform;

use crate::args::InspectArgs;
use crate::engine::{open_engine, registry_options, store_options};
use crate::size::human;

pub(crate) async fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let engine = open_engine(&store_options(&args.store)?, &registry_options(&args.registry.hosts)?)?;
    let platform = args.registry.platform.clone().unwrap_or_else(Platform::host);
    let image = engine.resolve(&args.image, &platform).await.with_context(|| format!("cannot resolve {}", args.image))?;
    let report = ImageReport::of(args.image.to_string(), &image, engine.cache())?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    if let Some(why) = &report.stale {
        eprintln!("warning: this is what {} named before, because the registry cannot be asked: {why}", report.image);
    }
    print(&report, &mut out)?;
    Ok(())
}

fn print(report: &ImageReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "image:     {}", report.image)?;
    writeln!(out, "manifest:  {}", report.manifest)?;
    writeln!(out, "platform:  {}", report.platform)?;
    writeln!(out, "size:      {} in {} layers, compressed", human(report.size_bytes), report.layers.len())?;
    let lazy = report.layers.iter().filter(|layer| layer.lazy).count();
    match report.layers.len() {
        _ if report.lazy => writeln!(out, "lazy:      yes")?,
        count => writeln!(out, "lazy:      {lazy} of {count} layers")?,
    }
    for layer in &report.layers {
        writeln!(out)?;
        writeln!(out, "layer:     {}", layer.digest)?;
        writeln!(out, "  size:    {}", human(layer.size_bytes))?;
        writeln!(out, "  format:  {} ({})", layer.format, layer.media_type)?;
        writeln!(out, "  lazy:    {}, because {}", if layer.lazy { "yes" } else { "no" }, layer.because)?;
    }
    Ok(())
}
