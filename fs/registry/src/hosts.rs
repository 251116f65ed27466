//! Which hosts answer for a registry: containerd's `hosts.toml`, docker's certificate directories, or the defaults.
//!
//! Formats: <https://github.com/containerd/containerd/blob/main/docs/hosts.md> and
//! <https://docs.docker.com/engine/security/certificates/>. A directory per registry, `<dir>/<host>[:<port>]/`, also
//! `<host>_<port>_`, else `_default`; the first that exists in the order of the directories decides.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

use crate::api_url::{authority, authority_of_name, default_url, host_url};
use crate::limits::{CERTIFICATE_FILES_MAX, HOSTS_FILE_MAX_BYTES, HOSTS_MAX};
use crate::reference::api_host;
use crate::secret::Secret;

const HOSTS_TOML: &str = "hosts.toml";
const DEFAULT_DIR: &str = "_default";

/// Why a registry's hosts directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct HostsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: HostsProblem,
}

/// What is wrong with a hosts directory.
#[derive(Debug, thiserror::Error)]
pub enum HostsProblem {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is longer than such files are.
    #[error("larger than {HOSTS_FILE_MAX_BYTES} bytes")]
    TooLarge,
    /// It is no TOML, or has values of the wrong type.
    #[error("{0}")]
    Toml(#[from] Box<toml::de::Error>),
    /// A host that is no http or https URL.
    #[error("{0:?} is not an http or https URL")]
    Url(String),
    /// More hosts than are tried.
    #[error("more than {HOSTS_MAX} hosts")]
    TooManyHosts,
    /// More certificates than are read.
    #[error("more than {CERTIFICATE_FILES_MAX} certificate files")]
    TooManyCertificates,
    /// A client certificate given as neither one file nor a pair.
    #[error("a client certificate is one file or a pair of certificate and key")]
    ClientPair,
    /// A client certificate without a key.
    #[error("there is no key file beside this certificate")]
    NoKey,
}

/// One host that may answer for a registry, and how it is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostConfig {
    /// Where the API is, `/v2` included, without a slash at the end.
    pub(crate) base: Url,
    /// The registry's name, if this host is not the registry itself: a mirror is told with `?ns=`.
    pub(crate) namespace: Option<String>,
    /// Whether blobs and documents by digest may be had here.
    pub(crate) can_pull: bool,
    /// Whether tags may be resolved here.
    pub(crate) can_resolve: bool,
    /// More certificate authorities than the system has, PEM each.
    pub(crate) authorities: Vec<Vec<u8>>,
    /// Client certificates and their keys, PEM each; a key may be in the certificate's own text.
    pub(crate) client_certificates: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether any certificate will do.
    pub(crate) skip_verify: bool,
    /// Headers that go with every request to this host.
    pub(crate) headers: Vec<(String, Secret)>,
}

impl HostConfig {
    fn plain(base: Url) -> Self {
        Self {
            base,
            namespace: None,
            can_pull: true,
            can_resolve: true,
            authorities: Vec::new(),
            client_certificates: Vec::new(),
            skip_verify: false,
            headers: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct HostsFile {
    server: Option<String>,
    /// In the file's order, which is the order of trying.
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    of_server: HostTable,
}

#[derive(Deserialize, Default)]
struct HostTable {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<ClientFiles>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    header: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClientFiles {
    One(String),
    Many(Vec<OneOrMany>),
}

/// The hosts to try for `registry`, in order; the last one is the registry itself.
///
/// `plain_http` allows http without TLS where no file says otherwise; loopback hosts have that anyway.
pub(crate) fn hosts_of(registry: &str, dirs: &[PathBuf], plain_http: bool) -> Result<Vec<HostConfig>, HostsError> {
    let Some(dir) = find_dir(registry, dirs) else {
        return Ok(vec![HostConfig::plain(default_url(registry, plain_http).map_err(|problem| at(Path::new(registry), problem))?)]);
    };
    let file = dir.join(HOSTS_TOML);
    if file.is_file() {
        let text = read_bounded(&file)?;
        let text = String::from_utf8_lossy(&text);
        return parse_hosts_toml(&text, &dir, registry, plain_http).map_err(|problem| match problem {
            Problem::Here(problem) => at(&file, problem),
            Problem::Elsewhere(error) => error,
        });
    }
    docker_style(&dir, registry, plain_http).map(|host| vec![host])
}

fn at(path: &Path, problem: HostsProblem) -> HostsError {
    HostsError { path: path.to_owned(), problem }
}

/// A problem of the file that is being read, or of one that it names.
enum Problem {
    Here(HostsProblem),
    Elsewhere(HostsError),
}

impl From<HostsProblem> for Problem {
    fn from(problem: HostsProblem) -> Self {
        Self::Here(problem)
    }
}

impl From<HostsError> for Problem {
    fn from(error: HostsError) -> Self {
        Self::Elsewhere(error)
    }
}

fn find_dir(registry: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    let mut names = vec![registry.to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())) {
        names.insert(0, format!("{host}_{port}_"));
    }
    names.push(DEFAULT_DIR.to_owned());
    // The registry's own directory anywhere goes before a default anywhere.
    names.iter().find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|dir| dir.is_dir()))
}

fn parse_hosts_toml(text: &str, dir: &Path, registry: &str, plain_http: bool) -> Result<Vec<HostConfig>, Problem> {
    let file: HostsFile = toml::from_str(text).map_err(|error| HostsProblem::Toml(Box::new(error)))?;
    if file.host.len() > HOSTS_MAX {
        return Err(HostsProblem::TooManyHosts.into());
    }
    let mut hosts = Vec::with_capacity(file.host.len() + 1);
    for (url, table) in file.host {
        let table: HostTable = table.try_into().map_err(|error| HostsProblem::Toml(Box::new(error)))?;
        hosts.push(host_config(host_url(&url, table.override_path)?, table, dir, registry)?);
    }
    let server = match &file.server {
        Some(server) if is_hub(server) => default_url(registry, plain_http)?,
        Some(server) => host_url(server, file.of_server.override_path)?,
        None => default_url(registry, plain_http)?,
    };
    let mut server = host_config(server, file.of_server, dir, registry)?;
    let is_bare = server == HostConfig { namespace: server.namespace.clone(), ..HostConfig::plain(server.base.clone()) };
    // Many files say how the registry itself is talked to under `host` alone. Asked again in another way it would only fail, and that
    // would be told in place of what it said.
    if is_bare && let Some(same) = hosts.iter().rfind(|host| host.base == server.base) {
        server = HostConfig { can_pull: true, can_resolve: true, ..same.clone() };
    }
    if hosts.last() != Some(&server) {
        hosts.push(server);
    }
    Ok(hosts)
}

/// `docker.io` as a server means the host that answers its API.
fn is_hub(server: &str) -> bool {
    matches!(server.trim_end_matches('/'), "docker.io" | "https://docker.io" | "https://index.docker.io")
}

fn host_config(base: Url, table: HostTable, dir: &Path, registry: &str) -> Result<HostConfig, Problem> {
    let capable = |capability: &str| table.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == capability));
    let is_registry = authority(&base) == authority_of_name(api_host(registry), base.scheme());
    let mut config = HostConfig {
        namespace: (!is_registry).then(|| registry.to_owned()),
        can_pull: capable("pull"),
        can_resolve: capable("resolve"),
        skip_verify: table.skip_verify,
        ..HostConfig::plain(base)
    };
    for name in table.ca.map(OneOrMany::into_vec).unwrap_or_default() {
        config.authorities.push(read_bounded(&dir.join(name))?);
    }
    let clients = match table.client {
        None => Vec::new(),
        Some(ClientFiles::One(file)) => vec![OneOrMany::One(file)],
        Some(ClientFiles::Many(files)) => files,
    };
    for client in clients {
        let pair = match client.into_vec().as_slice() {
            [both] => (read_bounded(&dir.join(both))?, Vec::new()),
            [both, key] if key.is_empty() => (read_bounded(&dir.join(both))?, Vec::new()),
            [certificate, key] => (read_bounded(&dir.join(certificate))?, read_bounded(&dir.join(key))?),
            _ => return Err(HostsProblem::ClientPair.into()),
        };
        config.client_certificates.push(pair);
    }
    for (name, values) in table.header {
        config.headers.extend(values.into_vec().into_iter().map(|value| (name.clone(), Secret::new(value))));
    }
    Ok(config)
}

/// Docker's directory: `*.crt` are authorities, `*.cert` with the `*.key` beside it are client certificates.
fn docker_style(dir: &Path, registry: &str, plain_http: bool) -> Result<HostConfig, HostsError> {
    let listed = std::fs::read_dir(dir).map_err(|error| at(dir, error.into()))?;
    let mut files: Vec<PathBuf> = listed.take(CERTIFICATE_FILES_MAX + 1).flatten().map(|entry| entry.path()).collect();
    if files.len() > CERTIFICATE_FILES_MAX {
        return Err(at(dir, HostsProblem::TooManyCertificates));
    }
    files.sort();
    let extension = |path: &Path, wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    let has_certificates = files.iter().any(|path| extension(path, "crt") || extension(path, "cert"));
    let base =
        if has_certificates { host_url(&format!("https://{}", api_host(registry)), false) } else { default_url(registry, plain_http) };
    let mut config = HostConfig::plain(base.map_err(|problem| at(dir, problem))?);
    for path in &files {
        if extension(path, "crt") {
            config.authorities.push(read_bounded(path)?);
        } else if extension(path, "cert") {
            let key = path.with_extension("key");
            if !key.is_file() {
                return Err(at(path, HostsProblem::NoKey));
            }
            config.client_certificates.push((read_bounded(path)?, read_bounded(&key)?));
        }
    }
    Ok(config)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, HostsError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(HOSTS_FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| at(path, error.into()))?;
    if bytes.len() as u64 > HOSTS_FILE_MAX_BYTES { Err(at(path, HostsProblem::TooLarge)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dirs(tempfile::TempDir);

    impl Dirs {
        fn with(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self(dir)
        }

        fn hosts(&self, registry: &str) -> Result<Vec<HostConfig>, HostsError> {
            hosts_of(registry, &[self.0.path().to_owned()], false)
        }

        fn urls(&self, registry: &str) -> Vec<String> {
            self.hosts(registry).unwrap().iter().map(|host| host.base.to_string()).collect()
        }
    }

    #[test]
    fn without_a_directory_the_registry_answers_itself() {
        let none = Dirs::with(&[]);
        assert_eq!(none.urls("docker.io"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(none.urls("ghcr.io"), ["https://ghcr.io/v2"]);
        assert_eq!(none.urls("localhost:5000"), ["http://localhost:5000/v2"]);
        assert_eq!(none.urls("127.8.0.1:5000"), ["http://127.8.0.1:5000/v2"]);
        assert_eq!(none.urls("[::1]:5000"), ["http://[::1]:5000/v2"]);
        assert_eq!(hosts_of("r.example:80", &[], true).unwrap()[0].base.as_str(), "http://r.example/v2");
    }

    #[test]
    fn the_registry_itself_is_asked_in_the_way_that_a_host_of_its_name_says() {
        let trusted = r#"
            server = "https://r.example"
            [host."https://r.example"]
              capabilities = ["pull", "resolve"]
              skip_verify = true
        "#;
        let hosts = Dirs::with(&[("r.example/hosts.toml", trusted)]).hosts("r.example").unwrap();
        assert_eq!(hosts.iter().map(|host| (host.base.as_str(), host.skip_verify)).collect::<Vec<_>>(), [("https://r.example/v2", true)]);
        let with_mirror = format!("{trusted}\n[host.\"https://mirror.example\"]");
        let hosts = Dirs::with(&[("r.example/hosts.toml", &with_mirror)]).hosts("r.example").unwrap();
        let bases: Vec<_> = hosts.iter().map(|host| (host.base.as_str(), host.skip_verify)).collect();
        assert_eq!(bases, [("https://r.example/v2", true), ("https://mirror.example/v2", false), ("https://r.example/v2", true)]);
        // What a host may not do is no word on the server, and what is said of the server holds.
        let pull_only = trusted.replace("\"pull\", \"resolve\"", "\"pull\"");
        let hosts = Dirs::with(&[("r.example/hosts.toml", &pull_only)]).hosts("r.example").unwrap();
        assert_eq!(hosts.iter().map(|host| (host.can_resolve, host.skip_verify)).collect::<Vec<_>>(), [(false, true), (true, true)]);
        let of_server = trusted.replace("server =", "header.x-custom = \"a\"\nserver =");
        let hosts = Dirs::with(&[("r.example/hosts.toml", &of_server)]).hosts("r.example").unwrap();
        assert_eq!(hosts.iter().map(|host| (host.headers.len(), host.skip_verify)).collect::<Vec<_>>(), [(0, true), (1, false)]);
    }

    #[test]
    fn hosts_keep_their_order_and_the_server_is_last() {
        let text = r#"
            server = "https://docker.io"
            [host."https://z.example"]
              capabilities = ["pull"]
              [host."https://z.example".header]
                x-custom = ["a", "b"]
                x-one = "c"
            [host."https://a.example/mirror/hub"]
              capabilities = ["pull", "resolve"]
              override_path = true
              skip_verify = true
            [host."127.0.0.1:5000"]
        "#;
        let dirs = Dirs::with(&[("docker.io/hosts.toml", text)]);
        assert_eq!(
            dirs.urls("docker.io"),
            ["https://z.example/v2", "https://a.example/mirror/hub", "http://127.0.0.1:5000/v2", "https://registry-1.docker.io/v2"]
        );
        let hosts = dirs.hosts("docker.io").unwrap();
        assert!(hosts[0].can_pull && !hosts[0].can_resolve && !hosts[0].skip_verify);
        assert_eq!(hosts[0].headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-custom", "x-custom", "x-one"]);
        assert!(hosts[1].can_resolve && hosts[1].skip_verify);
        assert_eq!(
            hosts.iter().map(|host| host.namespace.as_deref()).collect::<Vec<_>>(),
            [Some("docker.io"); 3].into_iter().chain([None]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn certificates_are_read_relative_to_the_directory() {
        let text = r#"
            ca = "ca.pem"
            [host."https://m.example"]
              ca = ["ca.pem", "more/ca.pem"]
              client = [["c.cert", "c.key"], ["both.pem", ""]]
        "#;
        let files = [
            ("r.example_444_/hosts.toml", text),
            ("r.example_444_/ca.pem", "A"),
            ("r.example_444_/more/ca.pem", "B"),
            ("r.example_444_/c.cert", "C"),
            ("r.example_444_/c.key", "K"),
            ("r.example_444_/both.pem", "P"),
        ];
        let hosts = Dirs::with(&files).hosts("r.example:444").unwrap();
        assert_eq!(hosts[0].authorities, [b"A", b"B"]);
        assert_eq!(hosts[0].client_certificates, [(b"C".to_vec(), b"K".to_vec()), (b"P".to_vec(), Vec::new())]);
        assert_eq!((hosts[1].base.as_str(), hosts[1].authorities.len()), ("https://r.example:444/v2", 1));
    }

    #[test]
    fn a_docker_directory_gives_certificates_and_makes_loopback_https() {
        let hosts = Dirs::with(&[("localhost:5000/a.crt", "A"), ("localhost:5000/c.cert", "C"), ("localhost:5000/c.key", "K")])
            .hosts("localhost:5000")
            .unwrap();
        assert_eq!(hosts[0].base.as_str(), "https://localhost:5000/v2");
        assert_eq!((hosts[0].authorities.len(), hosts[0].client_certificates.len()), (1, 1));
        let no_key = Dirs::with(&[("r.example/c.cert", "C")]).hosts("r.example").unwrap_err();
        assert!(matches!(no_key.problem, HostsProblem::NoKey));
    }

    #[test]
    fn the_default_directory_is_for_registries_without_their_own() {
        let dirs = Dirs::with(&[("_default/hosts.toml", "[host.\"https://m.example\"]"), ("own.example/hosts.toml", "")]);
        assert_eq!(dirs.urls("r.example"), ["https://m.example/v2", "https://r.example/v2"]);
        assert_eq!(dirs.urls("own.example"), ["https://own.example/v2"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_file() {
        let refused = |text: &str| Dirs::with(&[("r.example/hosts.toml", text)]).hosts("r.example").unwrap_err();
        assert!(matches!(refused("server = 3").problem, HostsProblem::Toml(_)));
        assert!(matches!(refused("server = \"ftp://x\"").problem, HostsProblem::Url(_)));
        assert!(matches!(refused("[host.\"https://m.example\"]\nclient = [[\"a\", \"b\", \"c\"]]").problem, HostsProblem::ClientPair));
        let missing = refused("ca = \"none.pem\"");
        assert!(missing.path.ends_with("none.pem") && matches!(missing.problem, HostsProblem::Io(_)));
    }
}
