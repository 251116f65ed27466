//! The entry: options in, sources out. Hosts, connections and tokens are shared by all sources of a client.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::RootCertStore;

use crate::api_url::authority;
use crate::credential::{CredentialProvider, HostCredentials};
use crate::docker_config::DockerConfig;
use crate::error::Error;
use crate::host::Host;
use crate::hosts::{HostConfig, hosts_of};
use crate::layout::LayoutSource;
use crate::limits::Limits;
use crate::reference::Reference;
use crate::registry::{RegistrySource, Repository};
use crate::source::Source;
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
                let hosts = self.0.hosts(reference.host())?;
                let repository = Repository::new(reference, hosts, self.0.limits.clone());
                Ok(Arc::new(RegistrySource::new(reference.clone(), Arc::new(repository))))
            }
        }
    }
}

impl Inner {
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
        let authority = authority(&config.base);
        let is_mirror = config.namespace.is_some();
        let credentials = HostCredentials {
            name: if is_mirror { authority.clone() } else { registry.to_owned() },
            docker_name: authority,
            provider: self.options.credentials.clone(),
            docker: self.docker_config.clone(),
        };
        Ok(Arc::new(Host::new(config.clone(), clients, credentials, self.limits.clone())?))
    }
}
