//! `snap login` and `snap logout`: docker's logins, checked at the registry and kept where docker keeps them.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use snap_registry::{Client, Credential, LoginPlace, Secret, parse_registry_name};

use crate::args::{HostArgs, LoginArgs, LogoutArgs};
use crate::engine::{open_client, registry_options};
use crate::prompt::{self, Answer};
use crate::wait_for;

/// Asks for what is missing, asks the registry, and keeps the login.
pub(crate) fn login(args: &LoginArgs) -> anyhow::Result<ExitCode> {
    args.check()?;
    let registry = parse_registry_name(&args.registry)?;
    let client = open_client(&registry_options(&args.hosts)?)?;
    if args.username.is_none() && wait_for(is_known(&client, &registry))?? {
        say("Login Succeeded")?;
        return Ok(ExitCode::SUCCESS);
    }
    // No runtime is there any more, or yet, with threads of its own: see `ask_secret`.
    let (username, password) = match ask(args)? {
        Answer::Given(given) => given,
        Answer::Stopped(stop) => return Ok(ExitCode::from(stop.exit_code())),
    };
    let credential = Credential::Password { username, password };
    let place = wait_for(async {
        let login = client.check_login(&registry, credential).await.with_context(|| format!("cannot log in to {registry}"))?;
        client.store_login(&login).await.context("cannot keep the login")
    })??;
    if let LoginPlace::File(path) = place {
        eprintln!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            path.display()
        );
    }
    say("Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

/// Whether there is a login already, and the registry still takes it. As with docker, one of a user and a password.
async fn is_known(client: &Client, registry: &str) -> anyhow::Result<bool> {
    let stored = client.stored_login(registry).await.context("cannot read the logins there are")?;
    let Some(Credential::Password { username, password }) = stored else { return Ok(false) };
    eprintln!("Authenticating with existing credentials... [Username: {username}]");
    eprintln!("To login with a different account, run 'snap logout' followed by 'snap login'\n");
    match client.check_login(registry, Credential::Password { username, password }).await {
        Ok(_) => Ok(true),
        Err(error) if error.refusal().is_some() => {
            eprintln!("Stored credentials invalid or expired");
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("cannot log in to {registry}")),
    }
}

fn ask(args: &LoginArgs) -> anyhow::Result<Answer<(String, Secret)>> {
    if !args.password_stdin && !prompt::can_ask() {
        bail!(
            "cannot ask for a user and a password, because standard input is no terminal\n\
             hint: snap login --username USER --password-stdin <FILE"
        );
    }
    let username = match &args.username {
        Some(username) => username.trim().to_owned(),
        None => prompt::ask("Username: ")?,
    };
    if username.is_empty() {
        bail!("a username is required");
    }
    if args.password_stdin {
        return Ok(Answer::Given((username, prompt::read_secret()?)));
    }
    Ok(match prompt::ask_secret("Password: ")? {
        Answer::Given(password) => Answer::Given((username, password)),
        Answer::Stopped(stop) => Answer::Stopped(stop),
    })
}

/// Takes a login away.
pub(crate) fn logout(args: &LogoutArgs) -> anyhow::Result<()> {
    let registry = parse_registry_name(&args.registry)?;
    let client = open_client(&registry_options(&HostArgs::default())?)?;
    match wait_for(client.erase_login(&registry))?.with_context(|| format!("cannot log out of {registry}"))? {
        true => say(&format!("Removing login credentials for {registry}")),
        false => say(&format!("Not logged in to {registry}")),
    }
}

/// The outcome, which goes to standard output.
fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write to standard output")
}
