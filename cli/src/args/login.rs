//! The words of `snap login` and `snap logout`.

use std::convert::Infallible;

use clap::Args;

use super::HostArgs;

/// Log in to a registry, for snap and docker.
///
/// Asks the registry whether it takes the user and the password (or token), and keeps them where docker does: with the credential helper
/// that docker's configuration names, else in its file, $DOCKER_CONFIG/config.json or ~/.docker/config.json. `snap serve` looks for them
/// there, too, if it runs as the same user.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snap login ghcr.io
  snap login --username me --password-stdin ghcr.io <token.txt
  vault kv get -field=password ci/registry | snap login -u ci --password-stdin registry.example:5000")]
pub(crate) struct LoginArgs {
    /// The user [default: asked for].
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Read the password or token from standard input, where no terminal is.
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// Docker has it. It is taken to be refused, and what it was given is not kept.
    #[arg(short, long, hide = true, num_args = 0..=1, value_parser = forget)]
    pub(crate) password: Option<Option<Forgotten>>,
    #[command(flatten)]
    pub(crate) hosts: HostArgs,
    /// The registry, a host name with an optional port.
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
}

/// Log out of a registry, for snap and docker.
///
/// Takes away what `snap login` or `docker login` kept. Tokens that a registry gave for it end by themselves.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  snap logout ghcr.io")]
pub(crate) struct LogoutArgs {
    /// The registry, a host name with an optional port.
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
}

/// What was there, but should not have been.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forgotten;

fn forget(_: &str) -> Result<Forgotten, Infallible> {
    Ok(Forgotten)
}

impl LoginArgs {
    /// Checks what the command line cannot by itself.
    ///
    /// # Errors
    /// Where there is a password on it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.password.is_some() {
            anyhow::bail!(
                "a password on the command line can be seen by everybody on this machine\n\
                 hint: snap login --username USER --password-stdin <FILE; or leave it out, and it is asked for"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Login {
        #[command(flatten)]
        args: LoginArgs,
    }

    fn login(words: &str) -> Result<LoginArgs, clap::Error> {
        Login::try_parse_from(["login"].into_iter().chain(words.split_whitespace())).map(|login| login.args)
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_shown() {
        for words in ["-u me -p hunter2", "-u me -phunter2 ghcr.io", "--password=hunter2", "--username me ghcr.io --password"] {
            let args = login(words).unwrap();
            assert!(!format!("{args:?}").contains("hunter2"), "{words}");
            let error = args.check().unwrap_err().to_string();
            assert!(error.contains("--password-stdin") && !error.contains("hunter2"), "{error}");
        }
        assert!(login("-u me ghcr.io").unwrap().check().is_ok());
    }

    #[test]
    fn a_password_from_standard_input_needs_a_user() {
        assert!(login("--password-stdin").unwrap_err().to_string().contains("--username"));
    }

    #[test]
    fn the_default_is_dockers_registry() {
        assert_eq!(login("").unwrap().registry, "docker.io");
        assert_eq!(login("ghcr.io").unwrap().registry, "ghcr.io");
    }
}
