//! Credentials from docker's `config.json`: its `auths`, and the programs it names in `credHelpers` and `credsStore`.
//!
//! The file is read each time a credential is needed, so a `docker login` elsewhere is seen at the next token.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::credential::Credential;
use crate::credential_helper;
use crate::error::ErrorKind;
use crate::limits::DOCKER_CONFIG_MAX_BYTES;
use crate::secret::Secret;

/// The key under which docker keeps the credentials of docker.io.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Why credentials could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// There is no place for the file: no option, no `$DOCKER_CONFIG` and no home directory.
    #[error("there is no docker configuration: neither $DOCKER_CONFIG nor $HOME is set")]
    NoPath,
    /// Someone else has been writing the file all the time.
    #[error("{}: another program has held it for {} s", path.display(), after.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is longer than such files are.
    #[error("{}: larger than {DOCKER_CONFIG_MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not JSON of the right shape. Where it is wrong is said, what is there is not.
    #[error("{}: line {line}, column {column} is not what a docker configuration has there", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// An `auth` value that is not base64 of `user:password`.
    #[error("{}: the auth of {key:?} is not base64 of user:password", path.display())]
    Auth {
        /// The file.
        path: PathBuf,
        /// Which entry.
        key: String,
    },
    /// A helper whose name could lead anywhere but to a program `docker-credential-…`.
    #[error("{name:?} is not the name of a credential helper")]
    HelperName {
        /// The name.
        name: String,
    },
    /// The helper could not be run.
    #[error("{program}: {source}")]
    HelperIo {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper took too long.
    #[error("{program} gave no answer within {} s and was ended", after.as_secs())]
    HelperTimeout {
        /// The program.
        program: String,
        /// How long.
        after: Duration,
    },
    /// The helper failed, or printed what is no credential. Its output is not shown: it may hold one.
    #[error("{program} failed or gave no credential")]
    HelperAnswer {
        /// The program.
        program: String,
    },
}

impl DockerConfigError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::HelperIo { .. } | Self::HelperAnswer { .. } => ErrorKind::Io,
            Self::HelperTimeout { .. } | Self::Locked { .. } => ErrorKind::Timeout,
            Self::NoPath | Self::TooLarge { .. } | Self::Json { .. } | Self::Auth { .. } | Self::HelperName { .. } => ErrorKind::Invalid,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct ConfigFile {
    auths: BTreeMap<String, AuthEntry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

impl ConfigFile {
    /// The helper for a registry with these keys, if the file names one.
    pub(crate) fn helper(&self, keys: &[String]) -> Option<&str> {
        let own = keys.iter().find_map(|key| self.helpers.get(key)).filter(|name| !name.is_empty());
        own.or(Some(&self.store).filter(|name| !name.is_empty())).map(String::as_str)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Docker's configuration, by the name of its file.
#[derive(Debug, Clone)]
pub(crate) struct DockerConfig {
    pub(crate) path: Option<PathBuf>,
    pub(crate) helper_timeout: Duration,
}

impl DockerConfig {
    /// `path`: the configuration file; without one `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub(crate) fn new(path: Option<PathBuf>, helper_timeout: Duration) -> Self {
        let home = || {
            let directory = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
            let directory = directory.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
            Some(directory.join("config.json"))
        };
        Self { path: path.or_else(home), helper_timeout }
    }

    /// The credential for the registry `host` (`docker.io`, `r.example:5000`), if there is one.
    pub(crate) async fn credential(&self, host: &str) -> Result<Option<Credential>, DockerConfigError> {
        let Some(path) = &self.path else { return Ok(None) };
        let Some(config) = self.read(path).await? else { return Ok(None) };
        let keys = keys_of(host);
        if let Some(name) = config.helper(&keys) {
            // The first key is the one docker asks its helpers for.
            if let Some(credential) = credential_helper::get(name, &keys[0], self.helper_timeout).await? {
                return Ok(Some(credential));
            }
        }
        in_auths(&config.auths, &keys, path)
    }

    /// What the file at `path` says; `None` if there is none.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<ConfigFile>, DockerConfigError> {
        let file = path.to_owned();
        blocking(path, move || read_config(&file)?.map(|bytes| parse(&bytes, &file)).transpose()).await
    }
}

/// Runs disk I/O where it may block. `path` names the file if the runtime is shutting down.
pub(crate) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, DockerConfigError> + Send + 'static,
) -> Result<T, DockerConfigError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(DockerConfigError::Io { path: path.to_owned(), source: io::Error::other(error) }),
    }
}

pub(crate) fn read_config(path: &Path) -> Result<Option<Vec<u8>>, DockerConfigError> {
    let failed = |source| DockerConfigError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(DOCKER_CONFIG_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > DOCKER_CONFIG_MAX_BYTES { Err(DockerConfigError::TooLarge { path: path.to_owned() }) } else { Ok(Some(bytes)) }
}

/// The file as a type. An empty one says nothing, as it does to docker.
pub(crate) fn parse<T: DeserializeOwned + Default>(bytes: &[u8], path: &Path) -> Result<T, DockerConfigError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| DockerConfigError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}

/// The keys under which a registry's credentials may be, the usual one first.
pub(crate) fn keys_of(host: &str) -> Vec<String> {
    match host {
        "docker.io" | "registry-1.docker.io" | "index.docker.io" => {
            [HUB_KEY, "docker.io", "index.docker.io", "registry-1.docker.io"].map(str::to_owned).to_vec()
        }
        host => {
            let portless = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80"));
            [Some(host), portless].into_iter().flatten().map(str::to_owned).collect()
        }
    }
}

/// Whether `key` is one of `keys`, or a URL at the host of one, which are the keys of old files.
pub(crate) fn is_key_of(key: &str, keys: &[String]) -> bool {
    keys.iter().any(|wanted| bare_host(key) == bare_host(wanted))
}

fn in_auths(auths: &BTreeMap<String, AuthEntry>, keys: &[String], path: &Path) -> Result<Option<Credential>, DockerConfigError> {
    let exact = keys.iter().find_map(|key| auths.get_key_value(key));
    let found = exact.or_else(|| auths.iter().find(|(key, _)| is_key_of(key, keys)));
    let Some((key, entry)) = found else { return Ok(None) };
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Credential::IdentityToken(Secret::new(&entry.identitytoken))));
    }
    if !entry.registrytoken.is_empty() {
        return Ok(Some(Credential::RegistryToken(Secret::new(&entry.registrytoken))));
    }
    if !entry.auth.is_empty() {
        return match decode_auth(&entry.auth) {
            Some((username, password)) => Ok(Some(Credential::Password { username, password })),
            None => Err(DockerConfigError::Auth { path: path.to_owned(), key: key.clone() }),
        };
    }
    if entry.username.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential::Password { username: entry.username.clone(), password: Secret::new(&entry.password) }))
}

fn bare_host(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

fn decode_auth(auth: &str) -> Option<(String, Secret)> {
    let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    // Docker strips the padding that old versions left.
    Some((username.to_owned(), Secret::new(password.trim_end_matches('\0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { username: username.to_owned(), password: Secret::new(password) })
    }

    async fn lookup(json: &str, host: &str) -> Result<Option<Credential>, DockerConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        DockerConfig::new(Some(path), Duration::from_secs(5)).credential(host).await
    }

    #[tokio::test]
    async fn auths_are_found_under_all_their_keys() {
        let auth = STANDARD.encode("me:pa:ss");
        for (key, host) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "registry-1.docker.io"),
            ("r.example:5000", "r.example:5000"),
            ("https://r.example/v1/", "r.example"),
            ("r.example:443", "r.example:443"),
            ("r.example", "r.example:443"),
        ] {
            let json = format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}},"other.example":{{"auth":"x"}}}}}}"#);
            assert_eq!(lookup(&json, host).await.unwrap(), password("me", "pa:ss"), "{key}");
            assert_eq!(lookup(&json, "r.example:1").await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn the_other_forms_of_an_entry_are_understood() {
        let entry = |text: &str| format!(r#"{{"auths":{{"r.example":{text}}}}}"#);
        assert_eq!(lookup(&entry(r#"{"username":"u","password":"p"}"#), "r.example").await.unwrap(), password("u", "p"));
        assert_eq!(
            lookup(&entry(r#"{"identitytoken":"t"}"#), "r.example").await.unwrap(),
            Some(Credential::IdentityToken(Secret::new("t")))
        );
        assert_eq!(
            lookup(&entry(r#"{"registrytoken":"t"}"#), "r.example").await.unwrap(),
            Some(Credential::RegistryToken(Secret::new("t")))
        );
        assert_eq!(lookup(&entry("{}"), "r.example").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_broken_file_is_an_error_that_shows_none_of_it() {
        let error = lookup(r#"{"auths":{"r.example":{"auth":"secretsecret!"}}}"#, "r.example").await.unwrap_err();
        assert!(matches!(error, DockerConfigError::Auth { .. }) && !error.to_string().contains("secretsecret"));
        let error = lookup(r#"{"auths":"secretsecret"}"#, "r.example").await.unwrap_err();
        assert!(matches!(error, DockerConfigError::Json { line: 1, .. }) && !format!("{error:?}").contains("secretsecret"));
        assert!(matches!(lookup(r#"{"credsStore":"../x"}"#, "r.example").await, Err(DockerConfigError::HelperName { .. })));
    }

    #[tokio::test]
    async fn no_file_is_no_credential() {
        let none = DockerConfig::new(Some(PathBuf::from("/nonexistent/config.json")), Duration::from_secs(1));
        assert_eq!(none.credential("r.example").await.unwrap(), None);
    }
}
