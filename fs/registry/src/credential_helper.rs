//! The `docker-credential-*` programs (<https://github.com/docker/docker-credential-helpers>): a server name on stdin,
//! JSON with `Username` and `Secret` on stdout.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
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

/// Asks the helper `name` for the credential of `server`. `None`: it has none.
pub(crate) async fn get(name: &str, server: &str, timeout: Duration) -> Result<Option<Credential>, DockerConfigError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(DockerConfigError::HelperName { name: name.chars().take(100).collect() });
    }
    ask(format!("{PREFIX}{name}"), server, timeout).await
}

async fn ask(program: String, server: &str, timeout: Duration) -> Result<Option<Credential>, DockerConfigError> {
    // Dropping the future drops the child, which kills it.
    match tokio::time::timeout(timeout, run(&program, server)).await {
        Ok(Ok((succeeded, output))) => understand(program, succeeded, &output),
        Ok(Err(source)) => Err(DockerConfigError::HelperIo { program, source }),
        Err(_) => Err(DockerConfigError::HelperTimeout { program, after: timeout }),
    }
}

async fn run(program: &str, server: &str) -> io::Result<(bool, Vec<u8>)> {
    let mut child =
        Command::new(program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input is no reason to fail: its answer decides.
        let _ = stdin.write_all(server.as_bytes()).await;
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
