//! From options to the registry client, the local store and the engine over both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use snap_cache::{Cache, CacheOptions};
use snap_fs::Engine;
use snap_registry::{Client, ClientOptions, CredentialProvider};

use crate::args::{HostArgs, StoreArgs};

/// Where the local store is, and how large it may be.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    pub(crate) dir: PathBuf,
    pub(crate) budget_bytes: Option<u64>,
}

/// How registries are talked to.
#[derive(Clone, Debug)]
pub(crate) struct RegistryOptions {
    pub(crate) plain_http: bool,
    /// None: the usual places.
    pub(crate) certs_dirs: Vec<PathBuf>,
    /// None: the usual place.
    pub(crate) docker_config: Option<PathBuf>,
    /// Who is asked for credentials first.
    pub(crate) credentials: Option<Arc<dyn CredentialProvider>>,
}

/// A path that does not depend on the working directory.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot use the path {path:?}"))
}

/// The store's options from those of the command.
pub(crate) fn store_options(args: &StoreArgs) -> anyhow::Result<StoreOptions> {
    let dir = args.cache_dir.as_deref().map_or_else(|| Ok(Cache::default_dir()), absolute)?;
    Ok(StoreOptions { dir, budget_bytes: args.cache_size })
}

/// The client's options from those of the command.
pub(crate) fn registry_options(args: &HostArgs) -> anyhow::Result<RegistryOptions> {
    let certs_dirs = args.certs_dir.iter().map(|dir| absolute(dir)).collect::<anyhow::Result<_>>()?;
    // The client looks there only later, when the process may have left its working directory.
    let docker_config = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty());
    let docker_config = docker_config.map(|dir| absolute(&Path::new(&dir).join("config.json"))).transpose()?;
    Ok(RegistryOptions { plain_http: args.plain_http, certs_dirs, docker_config, credentials: None })
}

/// Opens the local store.
pub(crate) fn open_cache(options: &StoreOptions) -> anyhow::Result<Cache> {
    Cache::open(&options.dir, CacheOptions { budget_bytes: options.budget_bytes })
        .with_context(|| format!("cannot use the cache {}", options.dir.display()))
}

/// Opens the store and sets up the client. Contacts nobody.
pub(crate) fn open_engine(store: &StoreOptions, registry: &RegistryOptions) -> anyhow::Result<Engine> {
    let cache = open_cache(store)?;
    Ok(Engine::new(open_client(registry)?, cache))
}

/// Sets up the client of registries. Contacts nobody.
pub(crate) fn open_client(registry: &RegistryOptions) -> anyhow::Result<Client> {
    let mut options = ClientOptions {
        credentials: registry.credentials.clone(),
        plain_http: registry.plain_http,
        docker_config: registry.docker_config.clone(),
        ..Default::default()
    };
    if !registry.certs_dirs.is_empty() {
        options.hosts_dirs.clone_from(&registry.certs_dirs);
    }
    Ok(Client::new(options)?)
}
