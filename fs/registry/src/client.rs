//! The entry: options in, sources out. Hosts, connections and tokens are shared by all sources of a client.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::RootCertStore;

use crate::api_url::authority;
use crate::credential::{Credential, CredentialProvider, HostCredentials};
use crate::docker_config::DockerConfig;
use crate::docker_login::LoginPlace;
use crate::error::Error;
use crate::host::Host;
use crate::hosts::{HostConfig, hosts_of};
use crate::layout::LayoutSource;
use crate::limits::Limits;
use crate::login::{self, LoginOutcome};
use crate::reference::{Reference, RegistryReference, parse_registry_name};
use crate::registry::{RegistrySource, Repository};
use crate::source::Source;
use crate::tags;
use crate::tls::{HttpClients, system_roots};

/// How to talk to registries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Who is asked for credentials before docker's configuration is.
    pub credentials: Option<Arc<dyn CredentialProvider>>,
    /// Docker's configuration file; `None`: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub docker_config: Option<PathBuf>,
    /// Directories with a directory per registry, in containerd's (`hosts.toml`) or docker's form, the first first.
    pub hosts_dirs: Vec<PathBuf>,
    /// Whether registries that no hosts file describes are talked to without TLS. Loopback hosts always are.
    pub plain_http: bool,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Deadlines, retries and rates.
    pub limits: Limits,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            docker_config: None,
            hosts_dirs: vec![PathBuf::from("/etc/containerd/certs.d"), PathBuf::from("/etc/docker/certs.d")],
            plain_http: false,
            user_agent: concat!("snap/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::default(),
        }
    }
}

/// Talks to registries. Clones share everything.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    limits: Arc<Limits>,
    docker_config: DockerConfig,
    system_roots: OnceLock<RootCertStore>,
    /// The hosts of each registry, with the configuration they were made from.
    registries: Mutex<HashMap<String, Registry>>,
}

struct Registry {
    configs: Vec<HostConfig>,
    hosts: Vec<Arc<Host>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.options).finish()
    }
}

impl Client {
    /// A client. Nothing is connected to, and no file is read, before a source is asked for.
    pub fn new(options: ClientOptions) -> Result<Self, Error> {
        let docker_config = DockerConfig::new(options.docker_config.clone(), options.limits.helper_timeout);
        let limits = Arc::new(options.limits.clone());
        Ok(Self(Arc::new(Inner { options, limits, docker_config, system_roots: OnceLock::new(), registries: Mutex::default() })))
    }

    /// The source of the image `reference`. Reads the registry's hosts file, and contacts nobody.
    ///
    /// Sources of one registry share its connections and tokens, until its hosts file changes.
    pub fn source(&self, reference: &Reference) -> Result<Arc<dyn Source>, Error> {
        match reference {
            Reference::Layout(layout) => Ok(Arc::new(LayoutSource::new(layout.clone()))),
            Reference::Registry(reference) => {
                let repository = self.0.repository(reference)?;
                Ok(Arc::new(RegistrySource::new(reference.clone(), Arc::new(repository))))
            }
        }
    }

    /// All tags of the repository of `reference`, whose own tag and digest do not matter: in the registry's order, each once.
    ///
    /// They are as the registry gives them, at most [`TAGS_MAX`](crate::limits::TAGS_MAX). That each is one is not checked:
    /// [`RegistryReference::with_tag`] does.
    pub async fn tags(&self, reference: &RegistryReference) -> Result<Vec<String>, Error> {
        tags::list(&self.0.repository(reference)?).await
    }

    /// Asks `registry` whether it lets `credential` in. Nothing is kept: [`Client::store_login`] does that.
    ///
    /// `registry` is a host or a URL, as [`parse_registry_name`] takes it. The registry itself is asked, none of its mirrors. Any
    /// credential will do for one that asks for none. A refusal is [`Cause::LoginRefused`](crate::Cause::LoginRefused).
    pub async fn check_login(&self, registry: &str, credential: Credential) -> Result<LoginOutcome, Error> {
        let name = parse_registry_name(registry)?;
        let hosts = self.0.hosts(&name)?;
        login::check(name, hosts, credential, self.0.limits.clone()).await
    }

    /// The credential that docker's configuration has for `registry`, itself or by a helper.
    pub async fn stored_login(&self, registry: &str) -> Result<Option<Credential>, Error> {
        let name = parse_registry_name(registry)?;
        Ok(self.0.docker_config.credential(&name).await.map_err(Arc::new)?)
    }

    /// Keeps a login where `docker login` would: with the credential helper that docker's configuration names for the registry, else
    /// in the file itself, which is made if it is not there. All else in the file stays as it is, and other writers lose nothing.
    pub async fn store_login(&self, login: &LoginOutcome) -> Result<LoginPlace, Error> {
        Ok(self.0.docker_config.store(login).await.map_err(Arc::new)?)
    }

    /// Takes the login at `registry` out of docker's configuration and its helper. Whether there was one.
    pub async fn erase_login(&self, registry: &str) -> Result<bool, Error> {
        let name = parse_registry_name(registry)?;
        Ok(self.0.docker_config.erase(&name).await.map_err(Arc::new)?)
    }
}

impl Inner {
    fn repository(&self, reference: &RegistryReference) -> Result<Repository, Error> {
        Ok(Repository::new(reference, self.hosts(reference.host())?, self.limits.clone()))
    }

    fn hosts(&self, registry: &str) -> Result<Vec<Arc<Host>>, Error> {
        let configs = hosts_of(registry, &self.options.hosts_dirs, self.options.plain_http).map_err(Arc::new)?;
        {
            let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = registries.get(registry).filter(|known| known.configs == configs) {
                return Ok(known.hosts.clone());
            }
        }
        let hosts = configs.iter().map(|config| self.host(registry, config)).collect::<Result<Vec<_>, _>>()?;
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        // Someone may have been quicker; then theirs is the one that is shared.
        if let Some(known) = registries.get(registry).filter(|known| known.configs == configs) {
            return Ok(known.hosts.clone());
        }
        registries.insert(registry.to_owned(), Registry { configs, hosts: hosts.clone() });
        Ok(hosts)
    }

    fn host(&self, registry: &str, config: &HostConfig) -> Result<Arc<Host>, Error> {
        let roots = self.system_roots.get_or_init(system_roots);
        let clients = HttpClients::new(config, roots, &self.options.user_agent, &self.limits)?;
        let is_mirror = config.namespace.is_some();
        let credentials = HostCredentials {
            name: if is_mirror { authority(&config.base) } else { registry.to_owned() },
            provider: self.options.credentials.clone(),
            docker: self.docker_config.clone(),
        };
        Ok(Arc::new(Host::new(config.clone(), clients, credentials, self.limits.clone())?))
    }
}
