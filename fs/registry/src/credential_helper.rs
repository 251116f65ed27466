//! The `docker-credential-*` programs (<https://github.com/docker/docker-credential-helpers>): `get` takes a server name on stdin and
//! prints JSON with `Username` and `Secret`; `store` takes such JSON with the server's name in it, `erase` the name alone.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::credential::Credential;
use crate::docker_config::DockerConfigError;
use crate::limits::HELPER_OUTPUT_MAX_BYTES;
use crate::secret::Secret;

const PREFIX: &str = "docker-credential-";
/// The user name that marks the secret as an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers print when they know no credential, and exit with an error.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What is handed to a helper to keep.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kept<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

/// Asks the helper `name` for the credential of `server`. `None`: it has none.
pub(crate) async fn get(name: &str, server: &str, timeout: Duration) -> Result<Option<Credential>, DockerConfigError> {
    ask(program(name)?, server, timeout).await
}

/// Has the helper `name` keep `credential` for `server`: its program's name. `None`: helpers know no such kind of credential.
pub(crate) async fn store(
    name: &str,
    server: &str,
    credential: &Credential,
    timeout: Duration,
) -> Result<Option<String>, DockerConfigError> {
    let (username, secret) = match credential {
        Credential::Password { username, password } => (username.as_str(), password),
        Credential::IdentityToken(token) => (TOKEN_USER, token),
        Credential::RegistryToken(_) => return Ok(None),
    };
    let program = program(name)?;
    let kept = serde_json::to_vec(&Kept { server_url: server, username, secret: secret.reveal() });
    // Three texts can always be written.
    let kept = kept.map_err(|error| DockerConfigError::HelperIo { program: program.clone(), source: error.into() })?;
    told(&program, "store", &kept, timeout).await?;
    Ok(Some(program))
}

/// Has the helper `name` forget what it has for `server`.
pub(crate) async fn erase(name: &str, server: &str, timeout: Duration) -> Result<(), DockerConfigError> {
    told(&program(name)?, "erase", server.as_bytes(), timeout).await
}

/// The program of the helper `name`.
fn program(name: &str) -> Result<String, DockerConfigError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(DockerConfigError::HelperName { name: name.chars().take(100).collect() });
    }
    Ok(format!("{PREFIX}{name}"))
}

async fn ask(program: String, server: &str, timeout: Duration) -> Result<Option<Credential>, DockerConfigError> {
    let (succeeded, output) = answer(&program, "get", server.as_bytes(), timeout).await?;
    understand(program, succeeded, &output)
}

async fn told(program: &str, action: &str, input: &[u8], timeout: Duration) -> Result<(), DockerConfigError> {
    match answer(program, action, input, timeout).await? {
        (true, _) => Ok(()),
        (false, _) => Err(DockerConfigError::HelperAnswer { program: program.to_owned() }),
    }
}

/// Whether the program succeeded, and what it printed.
async fn answer(program: &str, action: &str, input: &[u8], timeout: Duration) -> Result<(bool, Vec<u8>), DockerConfigError> {
    // Dropping the future drops the child, which kills it.
    match tokio::time::timeout(timeout, run(program, action, input)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(DockerConfigError::HelperIo { program: program.to_owned(), source }),
        Err(_) => Err(DockerConfigError::HelperTimeout { program: program.to_owned(), after: timeout }),
    }
}

async fn run(program: &str, action: &str, input: &[u8]) -> io::Result<(bool, Vec<u8>)> {
    let mut child =
        Command::new(program).arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input is no reason to fail: its answer decides.
        let _ = stdin.write_all(input).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_OUTPUT_MAX_BYTES + 1).read_to_end(&mut output).await?;
    }
    if output.len() as u64 > HELPER_OUTPUT_MAX_BYTES {
        return Ok((false, Vec::new()));
    }
    Ok((child.wait().await?.success(), output))
}

fn understand(program: String, succeeded: bool, output: &[u8]) -> Result<Option<Credential>, DockerConfigError> {
    if !succeeded {
        let said = String::from_utf8_lossy(output);
        return if said.contains(NOT_FOUND) { Ok(None) } else { Err(DockerConfigError::HelperAnswer { program }) };
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(output) else {
        return Err(DockerConfigError::HelperAnswer { program });
    };
    let secret = Secret::new(answer.secret);
    Ok(Some(if answer.username == TOKEN_USER {
        Credential::IdentityToken(secret)
    } else {
        Credential::Password { username: answer.username, password: secret }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of these lines. Another process writes it: ours must not have it open for writing when it forks elsewhere.
    fn script(dir: &tempfile::TempDir, lines: &str) -> String {
        let path = dir.path().join("helper").display().to_string();
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 700 \"$0\"";
        assert!(std::process::Command::new("sh").args(["-c", write, &path, lines]).status().unwrap().success());
        path
    }

    #[tokio::test]
    async fn a_helper_is_given_the_server_and_answers() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(&dir, r#"read -r server; echo "{\"Username\":\"$1\",\"Secret\":\"for $server\"}""#);
        let expected = Credential::Password { username: "get".to_owned(), password: Secret::new("for r.example") };
        assert_eq!(ask(program, "r.example", Duration::from_secs(60)).await.unwrap(), Some(expected));
    }

    #[tokio::test]
    async fn a_helper_that_hangs_or_floods_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let hanging = script(&dir, "exec tail -f /dev/null");
        let error = ask(hanging, "r.example", Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(error, DockerConfigError::HelperTimeout { .. }), "{error}");
        let flooding = script(&dir, "exec yes");
        let error = ask(flooding, "r.example", Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, DockerConfigError::HelperAnswer { .. }), "{error}");
        let missing = ask("/nonexistent/helper".to_owned(), "r.example", Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(missing, DockerConfigError::HelperIo { .. }), "{missing}");
    }

    #[tokio::test]
    async fn a_helper_is_given_what_it_is_to_keep_and_no_failure_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let keeping = script(&dir, r#"cat > "$0.$1""#);
        let kept = serde_json::to_vec(&Kept { server_url: "r.example", username: "u", secret: "s\"" }).unwrap();
        told(&keeping, "store", &kept, Duration::from_secs(60)).await.unwrap();
        let kept = std::fs::read_to_string(format!("{keeping}.store")).unwrap();
        assert_eq!(kept, r#"{"ServerURL":"r.example","Username":"u","Secret":"s\""}"#);
        let failing = script(&dir, "cat; exit 1");
        let error = told(&failing, "store", b"secretsecret", Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, DockerConfigError::HelperAnswer { .. }) && !format!("{error} {error:?}").contains("secretsecret"));
        assert!(matches!(erase("../x", "r.example", Duration::from_secs(1)).await, Err(DockerConfigError::HelperName { .. })));
    }

    #[test]
    fn answers_are_understood() {
        let understood = |succeeded, output: &str| understand("p".to_owned(), succeeded, output.as_bytes());
        let password = Credential::Password { username: "u".to_owned(), password: Secret::new("s") };
        assert_eq!(understood(true, r#"{"ServerURL":"x","Username":"u","Secret":"s"}"#).unwrap(), Some(password));
        assert_eq!(understood(true, r#"{"Username":"<token>","Secret":"s"}"#).unwrap(), Some(Credential::IdentityToken(Secret::new("s"))));
        assert_eq!(understood(false, "credentials not found in native keychain\n").unwrap(), None);
        assert!(understood(false, "no such thing").is_err());
        assert!(understood(true, "{}").is_err());
    }
}
