//! The configuration of `snap serve`: a TOML file, flags over it, and the text that `--print-config` prints.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Deserializer};

use crate::size::parse_size;

/// Where the file is unless told otherwise. It need not be there.
pub(crate) const DEFAULT_FILE: &str = "/etc/snap/config.toml";

/// Everything that can be configured, with what holds where nothing is said.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) registry: RegistryConfig,
    pub(crate) store: StoreConfig,
    pub(crate) fetch: FetchConfig,
    pub(crate) cri: CriConfig,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RegistryConfig {
    pub(crate) plain_http: bool,
    pub(crate) certs_dirs: Vec<PathBuf>,
    pub(crate) docker_config: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreConfig {
    #[serde(deserialize_with = "size")]
    pub(crate) budget: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FetchConfig {
    pub(crate) read_timeout_s: u64,
    pub(crate) background: bool,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CriConfig {
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) keep_credentials: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/snap".into(),
            state: "/run/snap".into(),
            socket: None,
            registry: RegistryConfig::default(),
            store: StoreConfig::default(),
            fetch: FetchConfig::default(),
            cri: CriConfig::default(),
        }
    }
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self { read_timeout_s: 60, background: true }
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).map(Some).map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads a file. One that was not named by anyone may be missing.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read the configuration {}", path.display())),
        };
        let hint = "snap serve --print-config shows every key";
        Self::parse(&text).with_context(|| format!("cannot use the configuration {}\nhint: {hint}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// Checks what the types do not.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let paths = [("root", Some(&self.root)), ("state", Some(&self.state)), ("socket", self.socket.as_ref())];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                bail!("{key} is {path:?}, which is not an absolute path");
            }
        }
        if self.state.starts_with(&self.root) {
            bail!(
                "state ({}) lies below root ({})\nhint: state must be empty after a boot, so it belongs below /run",
                self.state.display(),
                self.root.display()
            );
        }
        if self.fetch.read_timeout_s == 0 {
            bail!("fetch.read_timeout_s is 0: every read that has to wait would fail");
        }
        if self.cri.keep_credentials.is_some() && self.cri.containerd.is_none() {
            bail!("cri.keep_credentials is set, and cri.containerd is not: no credentials come without it");
        }
        Ok(())
    }

    /// The gRPC socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state.join("snap.sock"))
    }

    /// The configuration as a file that says the same, every key explained.
    pub(crate) fn text(&self) -> String {
        let unset = |key: &str, value: Option<String>, example: &str| match value {
            Some(value) => format!("{key} = {value}"),
            None => format!("# {key} = {example}"),
        };
        let path = |path: &PathBuf| toml::Value::from(path.to_string_lossy().into_owned()).to_string();
        let certs_dirs: Vec<String> = self.registry.certs_dirs.iter().map(path).collect();
        format!(
            r#"# Layers, snapshots and their changes. On a local file system; not shared between machines.
root = {root}
# Sockets, and the mount that shows the layers. Must be empty after a boot.
state = {state}
# Where containerd finds the service. Unset: snap.sock in the state directory.
{socket}

[registry]
# Talk to registries without TLS. Those on this machine always are; hosts files decide for themselves.
plain_http = {plain_http}
# Registry hosts, mirrors and certificates, as in containerd's certs.d or docker's.
# Empty: /etc/containerd/certs.d and /etc/docker/certs.d.
certs_dirs = [{certs_dirs}]
# Credentials, as docker keeps them. Unset: $DOCKER_CONFIG/config.json, else ~/.docker/config.json.
{docker_config}

[store]
# With a budget, layers that no snapshot has any more stay until the store is over it, those used least recently going first. Unset: they
# go at once.
{budget}

[fetch]
# A read that waits for the network fails with EIO after so many seconds.
read_timeout_s = {read_timeout_s}
# Fetch the rest of every layer behind the reads. Without it, containers need the registry for as long as they run.
background = {background}

[cri]
# containerd's own socket. With it, kubelet may be given this service's socket as its image service endpoint, and the credentials that
# kubelet passes for an image are used for its layers. Unset: no image service.
{containerd}
# Keep those credentials in this file over a restart. Unset: in memory only.
{keep_credentials}
"#,
            root = path(&self.root),
            state = path(&self.state),
            socket = unset("socket", self.socket.as_ref().map(path), "\"/run/snap/snap.sock\""),
            plain_http = self.registry.plain_http,
            certs_dirs = certs_dirs.join(", "),
            docker_config = unset("docker_config", self.registry.docker_config.as_ref().map(path), "\"/root/.docker/config.json\""),
            budget = unset("budget", self.store.budget.map(|bytes| format!("\"{bytes}\"")), "\"50G\""),
            read_timeout_s = self.fetch.read_timeout_s,
            background = self.fetch.background,
            containerd = unset("containerd", self.cri.containerd.as_ref().map(path), "\"/run/containerd/containerd.sock\""),
            keep_credentials =
                unset("keep_credentials", self.cri.keep_credentials.as_ref().map(path), "\"/var/lib/snap/credentials.json\""),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_says_the_same() {
        assert_eq!(Config::parse(&Config::default().text()).unwrap(), Config::default());
        let all = Config {
            root: "/a \"b\"".into(),
            state: "/c".into(),
            socket: Some("/d".into()),
            registry: RegistryConfig { plain_http: true, certs_dirs: vec!["/e".into(), "/f".into()], docker_config: Some("/g".into()) },
            store: StoreConfig { budget: Some(7 << 30) },
            fetch: FetchConfig { read_timeout_s: 3, background: false },
            cri: CriConfig { containerd: Some("/h".into()), keep_credentials: Some("/i".into()) },
        };
        assert_eq!(Config::parse(&all.text()).unwrap(), all);
        // What is commented out is an example that can be used.
        let is_key = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let used = |line: &str| match line.strip_prefix("# ").filter(|line| line.split_once(" = ").is_some_and(|(key, _)| is_key(key))) {
            Some(example) => format!("{example}\n"),
            None => format!("{line}\n"),
        };
        let examples: String = Config::default().text().lines().map(used).collect();
        let config = Config::parse(&examples).unwrap();
        config.check().unwrap();
        assert!(config.cri.keep_credentials.is_some() && config.store.budget.is_some() && config.socket.is_some());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, told) in [
            ("rot = \"/x\"", "unknown field `rot`"),
            ("[fetch]\nbackgruond = true", "unknown field `backgruond`"),
            ("[store]\nbudget = \"many\"", "budget"),
            ("[store]\nbudget = 5", "budget"),
            ("[fetch]\nread_timeout_s = -1", "read_timeout_s"),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(told), "{text}: {error}");
        }
        for (text, told) in [
            ("root = \"x\"", "absolute"),
            ("state = \"/var/lib/snap/run\"", "below root"),
            ("[fetch]\nread_timeout_s = 0", "read_timeout_s"),
            ("[cri]\nkeep_credentials = \"/x\"", "cri.containerd"),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap().check().unwrap_err());
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_file_that_was_named_must_be_there() {
        let error = format!("{:#}", Config::read(Some(Path::new("/nonexistent/snap.toml"))).unwrap_err());
        assert!(error.contains("/nonexistent/snap.toml"), "{error}");
    }
}
