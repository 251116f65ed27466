//! `snap status`: what is mounted, and how much of it is here.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;
use snap_fs::{Costs, ImageStatus, LayerStatus, Rung};

use crate::args::StatusArgs;
use crate::control::{ask, ask_on};
use crate::service;
use crate::size::{human, human_part};
use crate::state::{Entry, Phase, State};
use crate::view::mount_point;

#[derive(Serialize)]
struct Mounts {
    /// What `snap serve` serves, where it runs and this user may ask it.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<service::Status>,
    mounts: Vec<MountStatus>,
}

#[derive(Serialize)]
struct MountStatus {
    dir: PathBuf,
    pid: i32,
    state: Health,
    /// Of a writable view: where its changes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    rw: Option<PathBuf>,
    /// Why the process could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_because: Option<String>,
    #[serde(flatten)]
    image: Known,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Health {
    /// The image is being opened.
    Starting,
    Serving,
    /// It was detached; files of it are open.
    Detached,
    /// The process lives and does not answer.
    Silent,
    /// The process is gone; the mount is still there.
    Dead,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Known {
    Status(Box<ImageStatus>),
    Name { image: String },
}

pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let state = State::open()?;
    let mut entries = state.entries()?;
    if let Some(dir) = &args.dir {
        let dir = mount_point(dir)?;
        entries.retain(|entry| entry.record.dir == dir);
        if entries.is_empty() {
            bail!("no image of this user's is mounted at {}\nhint: snap status lists all", dir.display());
        }
    }
    let service = match &args.dir {
        Some(_) => None,
        None => look_at_service(&args.state)?,
    };
    let mounts = Mounts { service, mounts: entries.into_iter().map(look).collect() };
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &mounts)?;
        writeln!(out)?;
    } else if mounts.mounts.is_empty() && mounts.service.is_none() {
        eprintln!("nothing is mounted");
    } else {
        mounts.service.iter().try_for_each(|service| print_service(service, &mut out))?;
        mounts.mounts.iter().try_for_each(|mount| print(mount, &mut out))?;
    }
    Ok(())
}

/// Nothing where no service runs, or where it is not this user's.
fn look_at_service(state: &Path) -> anyhow::Result<Option<service::Status>> {
    match UnixStream::connect(service::control_socket(state)) {
        Ok(reached) => ask_on(&reached),
        Err(_) => Ok(None),
    }
}

fn print_service(service: &service::Status, out: &mut impl Write) -> io::Result<()> {
    let layers = &service.layers;
    let here = if layers.complete { "complete" } else { "not complete" };
    writeln!(out, "{}  containerd's snapshots", service.socket.display())?;
    writeln!(out, "  served by process {}; {} layers, {here}", service.pid, layers.layers.len())?;
    print_costs(&layers.costs, out)?;
    print_layers(&layers.layers, out)?;
    for layer in &layers.streaming {
        writeln!(out, "  {:12}  being read: {}", layer.digest.short(), human_part(layer.done_bytes, layer.total_bytes))?;
    }
    let snapshots = match &service.snapshots {
        Ok(snapshots) => snapshots,
        Err(why) => return writeln!(out, "  the snapshots are not known: {why}"),
    };
    let snap_snapshotter::Status { active, views, unpacked, served, refusals } = snapshots;
    writeln!(out, "  snapshots: {served} served, {unpacked} unpacked, {active} active, {views} views")?;
    for refusal in refusals {
        let image = refusal.reference.as_deref().unwrap_or("an image that the client did not name");
        writeln!(out, "  left to containerd: {} of {image}: {}", refusal.chain_id, refusal.reason)?;
    }
    Ok(())
}

fn look(entry: Entry) -> MountStatus {
    let phase = entry.phase();
    let Entry { record, folder, .. } = entry;
    let answer = record.process.is_alive().then(|| ask(&folder.socket()));
    let (state, status, silent_because) = match answer {
        None => (Health::Dead, None, None),
        Some(Ok(None)) => (Health::Starting, None, None),
        Some(Ok(Some(status))) if phase == Phase::Detached => (Health::Detached, Some(status), None),
        Some(Ok(Some(status))) => (Health::Serving, Some(status), None),
        Some(Err(error)) => (Health::Silent, None, Some(format!("{error:#}"))),
    };
    let image = status.map_or(Known::Name { image: record.image }, |status| Known::Status(Box::new(status)));
    MountStatus { dir: record.dir, pid: record.process.pid, state, rw: record.writable, silent_because, image }
}

fn print(mount: &MountStatus, out: &mut impl Write) -> io::Result<()> {
    let pid = mount.pid;
    let name = match &mount.image {
        Known::Status(status) => &status.image,
        Known::Name { image } => image,
    };
    writeln!(out, "{}  {name}", mount.dir.display())?;
    match (mount.state, &mount.silent_because) {
        (Health::Starting, _) => writeln!(out, "  being opened by process {pid}")?,
        (Health::Dead, _) => writeln!(out, "  dead: process {pid} is gone; snap umount {} takes it away", mount.dir.display())?,
        (Health::Silent, Some(why)) => writeln!(out, "  process {pid} is there, but: {why}")?,
        (Health::Detached, _) => writeln!(out, "  detached: nobody finds it any more, but files of it are open")?,
        (Health::Silent, None) | (Health::Serving, _) => {}
    }
    if let Some(changes) = &mount.rw {
        writeln!(out, "  writable, with its changes in {}", changes.display())?;
    }
    if let Known::Status(status) = &mount.image {
        print_image(status, pid, out)?;
    }
    Ok(())
}

fn print_image(status: &ImageStatus, pid: i32, out: &mut impl Write) -> io::Result<()> {
    let here =
        if status.complete { "complete".to_owned() } else { format!("{} here", human_part(status.bytes_present, status.bytes_total)) };
    writeln!(out, "  served by process {pid}; {here}")?;
    if let Some(why) = &status.stale {
        writeln!(out, "  what the image was called before, because the registry cannot be asked: {why}")?;
    }
    print_costs(&status.costs, out)?;
    print_layers(&status.layers, out)
}

fn print_costs(costs: &Costs, out: &mut impl Write) -> io::Result<()> {
    let waited = costs.read_wait_ms as f64 / 1000.0;
    writeln!(
        out,
        "  fetched {} in {} requests; {} reads waited, {waited:.1} s together; {} failed",
        human(costs.bytes_fetched),
        costs.requests,
        costs.reads_waited,
        costs.reads_failed
    )
}

fn print_layers(layers: &[LayerStatus], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "  {:12}  {:14}  {:>10}  {:>8}  {:>10}  HERE", "LAYER", "OPENED BY", "BLOB", "REQUESTS", "FETCHED")?;
    for layer in layers {
        let opened_by = match layer.opened_by {
            Rung::LocalIndex => "local index",
            Rung::Estargz => "eStargz",
            Rung::StreamingPass => "streaming pass",
        };
        let here = if layer.complete { "complete".to_owned() } else { human_part(layer.present_bytes, layer.total_bytes) };
        let (digest, blob, fetched) = (layer.digest.short(), human(layer.blob_bytes), human(layer.bytes_fetched));
        writeln!(out, "  {digest:12}  {opened_by:14}  {blob:>10}  {:>8}  {fetched:>10}  {here}", layer.requests)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_shown_with_what_it_streams_and_what_each_layer_cost() {
        let (open, streamed) = ("sha256:".to_owned() + &"1".repeat(64), "sha256:".to_owned() + &"2".repeat(64));
        let layer = json!({
            "digest": open, "opened_by": "estargz", "blob_bytes": 40 << 20, "present_bytes": 1 << 20, "total_bytes": 80 << 20,
            "complete": false,
        });
        let costs = json!({
            "bytes_fetched": 3 << 20, "requests": 5, "reads_waited": 0, "read_wait_ms": 0, "reads_failed": 0, "kernel_requests": 0,
        });
        let mut status = json!({
            "pid": 7, "socket": "/run/snap/snap.sock", "mount": "/run/snap/fs", "trees": [], "layers": [layer], "complete": false,
            "snapshots": { "Ok": { "active": 0, "views": 0, "unpacked": 0, "served": 1, "refusals": [] } },
        });
        status.as_object_mut().unwrap().extend(costs.as_object().unwrap().clone());
        let shown = |status: &serde_json::Value| {
            let mut text = Vec::new();
            print_service(&serde_json::from_value(status.clone()).unwrap(), &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        // As an older service tells it.
        assert!(!shown(&status).contains("being read"));
        status["streaming"] = json!([{ "digest": streamed, "done_bytes": 12 << 20, "total_bytes": 40 << 20 }]);
        (status["layers"][0]["bytes_fetched"], status["layers"][0]["requests"]) = (json!(2 << 20), json!(4));
        let text = shown(&status);
        assert!(text.contains("222222222222  being read: 12.0 of 40.0 MiB\n"), "{text}");
        let row = text.lines().find(|line| line.contains("111111111111")).unwrap();
        let cells: Vec<_> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["111111111111", "eStargz", "40.0 MiB", "4", "2.0 MiB", "1.0 of 80.0 MiB"]);
    }
}
