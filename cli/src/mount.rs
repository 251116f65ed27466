//! `snap mount`, the command: starts the process that serves, and tells what it reports until the mount is committed.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snap_fs::MountOptions;
use snap_registry::{Platform, Reference};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::args::{AS_DAEMON, MountArgs};
use crate::console::Console;
use crate::engine::{absolute, registry_options, store_options};
use crate::process::keep_descriptors;
use crate::report::{Report, Reports};
use crate::serve::Job;
use crate::signals::{Signals, Stop};
use crate::state::State;
use crate::view::{mount_point, take_down};
use crate::{limits, log};

impl MountArgs {
    /// What is asked for, independent of the working directory.
    pub(crate) fn job(&self) -> anyhow::Result<Job> {
        if self.rw.is_some() && !nix::unistd::geteuid().is_root() {
            bail!("--rw mounts an overlay, which needs root\nhint: run it with sudo, or put an overlay of your own on the mount");
        }
        let mut mount = MountOptions::default();
        if let Some(seconds) = self.read_timeout {
            mount.read_deadline = std::time::Duration::from_secs(seconds.get());
        }
        Ok(Job {
            image: absolute_image(&self.image)?,
            dir: absolute(&self.dir)?,
            platform: self.registry.platform.clone().unwrap_or_else(Platform::host),
            store: store_options(&self.store)?,
            registry: registry_options(&self.registry.hosts)?,
            changes: self.rw.as_deref().map(absolute).transpose()?,
            mount,
            wait: self.wait,
            background: !self.no_background,
        })
    }
}

/// The reference with the path of an OCI layout made absolute.
pub(crate) fn absolute_image(image: &Reference) -> anyhow::Result<Reference> {
    let Reference::Layout(layout) = image else { return Ok(image.clone()) };
    let path = absolute(layout.path())?;
    // The slash at the end keeps a colon in the last component from being read as a tag's.
    let text = match layout.tag() {
        Some(tag) => format!("oci:{}:{tag}", path.display()),
        None => format!("oci:{}/", path.display()),
    };
    Ok(text.parse()?)
}

/// Mounts in the background; returns when the mount is usable, with `wait` when everything is here.
pub(crate) async fn mount(job: &Job, json: bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let mut child = start()?;
    let stdout = child.stdout.take().context("the background process has no standard output")?;
    let mut reports = Reports::new(stdout);
    let mut console = Console::new(json);
    let mut is_usable = false;
    loop {
        let report = tokio::select! {
            report = reports.next() => report?,
            stop = signals.next() => return undo(job, child, stop, is_usable, &mut console).await,
        };
        let Some(report) = report else { return Err(unexpected_end(job, child).await) };
        console.show(&report);
        match report {
            Report::Ready(outcome) if !job.wait => return console.finish(&outcome).map(|()| ExitCode::SUCCESS).map_err(Into::into),
            Report::Complete(outcome) => return console.finish(&outcome).map(|()| ExitCode::SUCCESS).map_err(Into::into),
            Report::Error { .. } => return Ok(ExitCode::FAILURE),
            Report::Ready(_) => is_usable = true,
            Report::Opening { .. } | Report::Fetching { .. } | Report::Struggling { .. } => {}
        }
    }
}

/// Starts this program again with the same arguments, to serve.
fn start() -> anyhow::Result<Child> {
    keep_descriptors();
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("snap"));
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).arg(format!("--{AS_DAEMON}")).args(arguments);
    // Standard error is this one's until the background process has its log.
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("cannot start the background process")
}

/// Asks the background process to undo what it did, and waits for it.
async fn undo(job: &Job, mut child: Child, stop: Stop, is_usable: bool, console: &mut Console) -> anyhow::Result<ExitCode> {
    let Some(pid) = child.id() else { return Ok(ExitCode::from(stop.exit_code())) };
    console.say("stopping");
    // It was not waited for, so the number is still its own.
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    if timeout(limits::STOP_TIMEOUT, child.wait()).await.is_err() {
        if is_usable {
            console.say(&format!("files of the mount are open: process {pid} serves them until they are closed"));
        } else {
            child.kill().await?;
            clean_up(&job.dir, pid);
            console.say("the background process did not stop and was killed");
        }
    }
    Ok(ExitCode::from(stop.exit_code()))
}

async fn unexpected_end(job: &Job, mut child: Child) -> anyhow::Error {
    let pid = child.id();
    let how = match child.wait().await {
        Ok(status) => describe(status),
        Err(error) => format!("ended; how is not known: {error}"),
    };
    let log = pid.map(|pid| clean_up(&job.dir, pid)).unwrap_or_default();
    let mut text = format!("the background process {how}");
    if !log.is_empty() {
        text.push_str(&format!("\nthe end of its log:\n{log}"));
    }
    anyhow::Error::msg(text)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(code), _) => format!("ended with code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Takes away what a background process that was killed left behind. Returns the end of its log.
fn clean_up(dir: &std::path::Path, pid: u32) -> String {
    let clean = || -> anyhow::Result<String> {
        let dir: PathBuf = mount_point(dir)?;
        let state = State::open()?;
        // Read before anyone who looks at the records removes it.
        let tail = log::tail(&state.folder(&dir, pid).log());
        if let Some(entry) = state.entry(&dir)?
            && !entry.record.process.is_alive()
        {
            take_down(&entry, true)?;
            state.forget_dead()?;
        }
        Ok(tail)
    };
    clean().unwrap_or_else(|error| {
        tracing::warn!("what the background process left cannot be taken away: {error:#}");
        String::new()
    })
}
