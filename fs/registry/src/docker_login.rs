//! Logins in docker's configuration: kept and taken out as `docker login` and `docker logout` do it.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use crate::config_file;
use crate::credential::Credential;
use crate::credential_helper;
use crate::docker_config::{ConfigFile, DockerConfig, DockerConfigError, blocking, is_key_of, keys_of, parse};
use crate::login::LoginOutcome;

/// Where a login is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginPlace {
    /// With this credential helper: `docker-credential-pass`.
    Helper(String),
    /// In this file, where anyone can read it who can read the file.
    File(PathBuf),
}

impl DockerConfig {
    /// Keeps `login`, and tells where.
    pub(crate) async fn store(&self, login: &LoginOutcome) -> Result<LoginPlace, DockerConfigError> {
        let path = self.path.as_ref().ok_or(DockerConfigError::NoPath)?;
        let config = self.read(path).await?.unwrap_or_default();
        let keys = keys_of(&login.registry);
        let key = keys[0].clone();
        // The helper may ask its user something: it runs before the file is held.
        let helper = match config.helper(&keys) {
            Some(name) => credential_helper::store(name, &key, &login.credential, self.helper_timeout).await?,
            None => None,
        };
        // Docker finds a login that a helper has by an entry with nothing in it.
        let entry = if helper.is_some() { json!({}) } else { entry(login) };
        self.change(path, move |auths| {
            let old = auths.insert(key, entry.clone());
            old.as_ref() != Some(&entry)
        })
        .await?;
        Ok(helper.map_or_else(|| LoginPlace::File(path.clone()), LoginPlace::Helper))
    }

    /// Takes everything out that is kept for `registry`. Whether there was something.
    pub(crate) async fn erase(&self, registry: &str) -> Result<bool, DockerConfigError> {
        let Some(path) = &self.path else { return Ok(false) };
        let Some(config) = self.read(path).await? else { return Ok(false) };
        let keys = keys_of(registry);
        let by_helper = match config.helper(&keys) {
            Some(name) => self.erase_at_helper(name, &keys[0]).await,
            None => Ok(false),
        };
        // Also where the helper failed: what can be taken out is.
        let in_file = self
            .change(path, move |auths| {
                let before = auths.len();
                auths.retain(|key, _| !is_key_of(key, &keys));
                auths.len() != before
            })
            .await?;
        Ok(by_helper? || in_file)
    }

    /// Some helpers fail to forget what they do not have, so they are asked for it first.
    async fn erase_at_helper(&self, name: &str, key: &str) -> Result<bool, DockerConfigError> {
        if let Ok(None) = credential_helper::get(name, key, self.helper_timeout).await {
            return Ok(false);
        }
        credential_helper::erase(name, key, self.helper_timeout).await?;
        Ok(true)
    }

    /// Changes the `auths` of the file with `change`, which tells whether it did; so does this.
    async fn change(
        &self,
        path: &Path,
        change: impl FnOnce(&mut Map<String, Value>) -> bool + Send + 'static,
    ) -> Result<bool, DockerConfigError> {
        let file = path.to_owned();
        blocking(path, move || {
            config_file::update(&file, |bytes| {
                // Whoever reads the file next must be able to, so it is understood before it is touched.
                parse::<ConfigFile>(bytes, &file)?;
                let mut whole: Map<String, Value> = parse(bytes, &file)?;
                let auths = whole.entry("auths").or_insert_with(|| json!({}));
                let changed = auths.as_object_mut().is_some_and(change);
                Ok(changed.then(|| written(&whole)))
            })
        })
        .await
    }
}

/// The entry of a login that the file itself keeps.
fn entry(login: &LoginOutcome) -> Value {
    let auth = |username: &str, password: &str| STANDARD.encode(format!("{username}:{password}"));
    match (&login.credential, &login.username) {
        (Credential::Password { username, password }, _) => json!({"auth": auth(username, password.reveal())}),
        (Credential::IdentityToken(token), Some(username)) => json!({"auth": auth(username, ""), "identitytoken": token.reveal()}),
        (Credential::IdentityToken(token), None) => json!({"identitytoken": token.reveal()}),
        (Credential::RegistryToken(token), _) => json!({"registrytoken": token.reveal()}),
    }
}

/// The file in docker's own layout.
fn written(whole: &Map<String, Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"\t"));
    // A map of JSON values is always JSON, and a vector takes all of it.
    let _ = whole.serialize(&mut serializer);
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::secret::Secret;

    /// A configuration of its own directory.
    struct Case {
        dir: tempfile::TempDir,
        docker: DockerConfig,
    }

    impl Case {
        fn with(json: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config.json");
            std::fs::write(&path, json).unwrap();
            Self { dir, docker: DockerConfig::new(Some(path), Duration::from_secs(5)) }
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.dir.path().join("config.json")).unwrap()
        }

        fn auths(&self) -> Value {
            serde_json::from_str::<Value>(&self.text()).unwrap()["auths"].take()
        }
    }

    fn login(registry: &str, credential: Credential) -> LoginOutcome {
        LoginOutcome { registry: registry.to_owned(), username: Some("me".to_owned()), credential }
    }

    fn password(password: &str) -> Credential {
        Credential::Password { username: "me".to_owned(), password: Secret::new(password) }
    }

    #[tokio::test]
    async fn entries_are_written_as_docker_writes_them() {
        let case = Case::with("");
        let token = || Credential::IdentityToken(Secret::new("t"));
        for (login, key, entry) in [
            (login("docker.io", password("pa:ss")), "https://index.docker.io/v1/", json!({"auth": "bWU6cGE6c3M="})),
            (login("r.example:5000", password("")), "r.example:5000", json!({"auth": "bWU6"})),
            (login("t.example", token()), "t.example", json!({"auth": "bWU6", "identitytoken": "t"})),
            (LoginOutcome { username: None, ..login("u.example", token()) }, "u.example", json!({"identitytoken": "t"})),
        ] {
            case.docker.store(&login).await.unwrap();
            assert_eq!(case.auths()[key], entry);
            assert_eq!(case.docker.credential(&login.registry).await.unwrap().as_ref(), Some(&login.credential));
        }
        assert!(case.text().starts_with("{\n\t\"auths\": {\n\t\t\""), "{}", case.text());
    }

    #[tokio::test]
    async fn a_login_that_is_there_is_not_written_again() {
        let case = Case::with(r#"{ "auths" : {"r.example":{"auth":"bWU6cHc="}} }"#);
        let before = case.text();
        case.docker.store(&login("r.example", password("pw"))).await.unwrap();
        assert_eq!(case.text(), before);
        case.docker.store(&login("r.example", password("other"))).await.unwrap();
        assert_ne!(case.text(), before);
    }

    #[tokio::test]
    async fn a_logout_takes_every_key_of_the_registry() {
        let old = json!({"auth": "bWU6cHc="});
        let hub = json!({"auths": {"https://index.docker.io/v1/": old, "docker.io": old, "registry-1.docker.io": old, "r.example": old}});
        let case = Case::with(&hub.to_string());
        assert!(case.docker.erase("docker.io").await.unwrap());
        assert_eq!(case.auths(), json!({"r.example": old}));
        let urls = json!({"auths": {"https://r.example/v1/": old, "http://r.example": old, "r.example:5000": old}});
        let case = Case::with(&urls.to_string());
        assert!(case.docker.erase("r.example").await.unwrap());
        assert_eq!(case.auths(), json!({"r.example:5000": old}));
        assert!(!case.docker.erase("r.example").await.unwrap());
        let absent = DockerConfig::new(Some(case.dir.path().join("none/config.json")), Duration::from_secs(5));
        assert!(!absent.erase("r.example").await.unwrap());
        assert!(!case.dir.path().join("none").exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_understood_is_left_alone() {
        for text in ["{", "[]", r#"{"auths":[]}"#, r#"{"auths":{"r.example":"secretsecret"}}"#] {
            let case = Case::with(text);
            let error = case.docker.store(&login("r.example", password("pw"))).await.unwrap_err();
            assert!(matches!(error, DockerConfigError::Json { .. }) && !format!("{error:?}").contains("secretsecret"), "{error}");
            assert_eq!(case.text(), text);
        }
    }

    #[tokio::test]
    async fn logins_at_a_time_lose_none_of_each_other() {
        let case = Case::with("{}");
        let logins: Vec<_> = (0..20).map(|i| login(&format!("r{i}.example"), password("pw"))).collect();
        futures_util::future::try_join_all(logins.iter().map(|login| case.docker.store(login))).await.unwrap();
        assert_eq!(case.auths().as_object().unwrap().len(), 20);
    }
}
