//! `snap` on the command line: words in, words out. What happens in between is in `snap-fs` and the crates below it.
//!
//! `snap mount` ([`mount`]) starts this program again as the process that serves ([`serve`]); that one reports over a pipe ([`report`])
//! until the mount is committed, and leaves a record in the state folder ([`state`]) by which `snap status` and `snap umount` find it.
//! `snap serve` ([`service`]) is containerd's snapshotter, whose FUSE connection outlives it ([`connection`]).
//! Standard output is data, standard error is talk.

mod args;
mod cache;
mod config;
mod connection;
mod console;
mod control;
mod engine;
mod failure;
mod fetch;
mod index_dump;
mod inspect;
mod limits;
mod log;
mod login;
mod mount;
mod mount_table;
mod overlay;
mod process;
mod progress;
mod prompt;
mod pull;
mod report;
mod serve;
mod service;
mod signals;
mod size;
mod state;
mod status;
mod umount;
mod view;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::args::{Cli, Command, IndexCommand, MountArgs};

fn main() -> ExitCode {
    if let Some(socket) = connection::as_keeper() {
        return connection::keep(&socket);
    }
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", failure::text(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let is_service = matches!(cli.command, Command::Serve(_));
    log::start(cli.verbose, cli.log_json, cli.as_daemon || is_service)?;
    match &cli.command {
        Command::Mount(args) => return mount(args, cli.as_daemon),
        Command::Pull(args) => return wait_with_threads(pull::pull(args))?,
        Command::Fetch(args) => return wait_with_threads(fetch::fetch(args))?,
        Command::Login(args) => return login::login(args),
        Command::Logout(args) => login::logout(args)?,
        Command::Serve(args) => return service::serve(args),
        Command::Umount(args) => umount::umount(args)?,
        Command::Status(args) => status::status(args)?,
        Command::Inspect(args) => wait_for(inspect::inspect(args))??,
        Command::Cache(args) => cache::cache(args)?,
        Command::Index(args) => match &args.command {
            IndexCommand::Dump(args) => index_dump::dump(args)?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn mount(args: &MountArgs, as_daemon: bool) -> anyhow::Result<ExitCode> {
    let job = args.job()?;
    match (as_daemon, args.foreground) {
        (true, _) => serve::in_background(&job),
        (false, true) => serve::in_foreground(&job, args.json),
        (false, false) => wait_for(mount::mount(&job, args.json))?,
    }
}

fn wait_for<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    Ok(runtime.block_on(work))
}

/// As [`wait_for`], for work that moves many bytes.
fn wait_with_threads<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let outcome = runtime.block_on(work);
    // A thread that waits for the disk must not keep the command.
    runtime.shutdown_background();
    Ok(outcome)
}
