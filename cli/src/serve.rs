//! The process that serves a mount, in the background or in the foreground.
//!
//! Up to the moment it is *committed* (the tree is usable; with `--wait`, everything is here) it belongs to the command that asked for
//! it: a signal, or the end of that command, undoes everything. From then on it lives until it is unmounted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use snap_fs::{Completion, Engine, ImageStatus, MountError, MountOptions, OpenImage, Progress};
use snap_registry::{Platform, Reference};
use tokio::time::{MissedTickBehavior, interval};

use crate::console::Console;
use crate::control::Control;
use crate::engine::{RegistryOptions, StoreOptions, open_engine};
use crate::log::log_into;
use crate::process::{keep_memory_small, trim_memory};
use crate::report::{Outcome, Report, Reporter};
use crate::signals::{Signals, Stop};
use crate::state::State;
use crate::view::{View, check_mount_point, mount_point};
use crate::{failure, limits, overlay};

/// What to mount, where and how. Paths are absolute.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) image: Reference,
    pub(crate) dir: PathBuf,
    pub(crate) platform: Platform,
    pub(crate) store: StoreOptions,
    pub(crate) registry: RegistryOptions,
    pub(crate) changes: Option<PathBuf>,
    pub(crate) mount: MountOptions,
    pub(crate) wait: bool,
    pub(crate) background: bool,
}

/// How serving ended, short of an error.
enum End {
    /// It was asked to stop before it was committed.
    Undone(Stop),
    /// It was unmounted.
    Unmounted,
    /// It was asked twice, and left open files behind.
    Abandoned(Stop),
}

/// Serves in the background: standard output is the report pipe.
pub(crate) fn in_background(job: &Job) -> anyhow::Result<ExitCode> {
    nix::unistd::setsid().context("cannot leave the terminal's session")?;
    // What the kernel shows in process lists; the program was started by way of /proc/self/exe.
    nix::sys::prctl::set_name(c"snap")?;
    std::env::set_current_dir("/")?;
    run(job, || Reporter::take_stdout().context("cannot report"), true)
}

/// Serves as the command itself.
pub(crate) fn in_foreground(job: &Job, json: bool) -> anyhow::Result<ExitCode> {
    run(job, || Ok(Reporter::Console(Console::new(json))), false)
}

fn run(job: &Job, reporter: impl FnOnce() -> anyhow::Result<Reporter>, detached: bool) -> anyhow::Result<ExitCode> {
    keep_memory_small();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits::WORKER_THREADS)
        .max_blocking_threads(limits::BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start")?;
    let code = runtime.block_on(async {
        let mut reporter = reporter()?;
        let mut signals = Signals::catch().context("cannot catch signals")?;
        match serve(job, &mut reporter, &mut signals, detached).await {
            Ok(End::Unmounted) => Ok(ExitCode::SUCCESS),
            Ok(End::Undone(stop) | End::Abandoned(stop)) => Ok(ExitCode::from(stop.exit_code())),
            Err(error) => {
                let mut text = failure::text(&error);
                text.truncate(text.floor_char_boundary(limits::REPORT_TEXT_BYTES_MAX));
                let is_heard = !matches!(reporter, Reporter::Closed) && reporter.tell(&Report::Error { text: text.clone() }).await.is_ok();
                if !is_heard {
                    tracing::error!("{text}");
                }
                Ok(ExitCode::FAILURE)
            }
        }
    });
    // Blocking threads may be in the middle of a download; the store is made for processes that end at any moment.
    runtime.shutdown_background();
    code
}

async fn serve(job: &Job, reporter: &mut Reporter, signals: &mut Signals, detached: bool) -> anyhow::Result<End> {
    let dir = mount_point(&job.dir)?;
    let changes = job.changes.as_deref().map(overlay::prepare).transpose()?;
    let mut claim = State::open()?.claim(&dir, &job.image.to_string(), changes.as_deref())?;
    check_mount_point(&dir)?;
    if detached {
        log_into(&claim.folder().log()).context("cannot write the log")?;
    }
    let control = Control::start(&claim.folder().socket()).context("cannot open the control socket")?;
    let engine = open_engine(&job.store, &job.registry)?;
    let image = match open(job, &engine, reporter, signals).await? {
        Ok(image) => image,
        Err(stop) => return Ok(End::Undone(stop)),
    };
    trim_memory();
    let mut view = View::mount(&image, &dir, changes.as_deref(), claim.folder(), &job.mount)
        .with_context(|| format!("cannot mount {} at {}", image.reference(), dir.display()))?;
    claim.record_mount()?;
    let told = Arc::clone(&image);
    control.tells(None, move || std::future::ready(ImageStatus::of(&told)));
    let fetching = job.background.then(|| tokio::spawn(fetch_all(Arc::clone(&image))));
    let outcome = || Outcome {
        dir: dir.clone(),
        image: image.reference().to_owned(),
        manifest: image.image().manifest.descriptor.digest,
        pid: std::process::id(),
        complete: image.is_complete(),
        stale: image.image().stale.clone(),
    };
    if job.wait {
        reporter.tell(&Report::Ready(outcome())).await?;
        if let Err(stop) = wait_complete(&image, reporter, signals).await? {
            return Ok(End::Undone(stop));
        }
        reporter.commit(&Report::Complete(outcome())).await?;
    } else {
        reporter.commit(&Report::Ready(outcome())).await?;
    }
    tracing::info!(image = image.reference(), dir = %dir.display(), "mounted");
    let end = until_unmounted(&mut view, signals).await;
    if let Some(fetching) = fetching {
        fetching.abort();
    }
    tracing::info!(dir = %dir.display(), "unmounted");
    end
}

/// Opens the image while reporting how far that is. The inner error is the signal that stopped it.
async fn open(job: &Job, engine: &Engine, reporter: &mut Reporter, signals: &mut Signals) -> anyhow::Result<Result<Arc<OpenImage>, Stop>> {
    let progress = Arc::new(Progress::default());
    let opening = engine.open(&job.image, &job.platform, Arc::clone(&progress));
    tokio::pin!(opening);
    let mut ticks = interval(limits::PROGRESS_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            opened = &mut opening => {
                return Ok(Ok(opened.with_context(|| format!("cannot open {}", job.image))?));
            }
            stop = signals.next() => return Ok(Err(stop)),
            _ = ticks.tick() => reporter.tell_progress(&opening_report(&progress))?,
        }
    }
}

fn opening_report(progress: &Progress) -> Report {
    let layers = progress.layers();
    Report::Opening {
        layers: layers.len(),
        done_bytes: layers.iter().map(|layer| layer.done_bytes()).sum(),
        total_bytes: layers.iter().map(|layer| layer.total_bytes).sum(),
    }
}

async fn fetch_all(image: Arc<OpenImage>) {
    image.fetch_all().await;
    trim_memory();
    tracing::info!(image = image.reference(), "everything is here");
}

/// Waits until everything is here. The inner error is the signal that stopped it.
async fn wait_complete(image: &Arc<OpenImage>, reporter: &mut Reporter, signals: &mut Signals) -> anyhow::Result<Result<(), Stop>> {
    let mut completion = image.completion();
    let mut ticks = interval(limits::PROGRESS_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = completion.borrow_and_update().clone();
        match now {
            Completion::Complete => return Ok(Ok(())),
            Completion::Struggling(why) => reporter.tell(&Report::Struggling { why: why.to_string() }).await?,
            Completion::Working => {}
        }
        tokio::select! {
            changed = completion.changed() => changed.context("fetching the rest ended early")?,
            stop = signals.next() => return Ok(Err(stop)),
            _ = ticks.tick() => {
                let status = ImageStatus::of(image);
                reporter.tell_progress(&Report::Fetching { present_bytes: status.bytes_present, total_bytes: status.bytes_total })?;
            }
        }
    }
}

/// Serves until the mount is gone. The first signal unmounts it, the second ends everything.
async fn until_unmounted(view: &mut View, signals: &mut Signals) -> anyhow::Result<End> {
    let stop = tokio::select! {
        ended = view.ended() => return ended.map(|()| End::Unmounted),
        stop = signals.next() => stop,
    };
    match view.unmount(false) {
        Ok(()) => {}
        Err(error) if is_busy(&error) => {
            tracing::warn!(
                "files of the mount are open: it is detached, and served until they are closed; a second signal ends this at once"
            );
            view.unmount(true)?;
        }
        Err(error) => return Err(error),
    }
    tokio::select! {
        ended = view.ended() => ended.map(|()| End::Unmounted),
        _ = signals.next() => Ok(End::Abandoned(stop)),
    }
}

/// Whether an unmount failed because something is in use.
pub(crate) fn is_busy(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<MountError>() {
        // fusermount3 says it in words only.
        Some(MountError::Unmount { source, .. }) => {
            source.raw_os_error() == Some(libc::EBUSY) || source.to_string().contains("Device or resource busy")
        }
        _ => false,
    }
}
