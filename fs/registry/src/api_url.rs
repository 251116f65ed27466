//! Where the API of a registry or a mirror is.

use url::{Host, Url};

use crate::hosts::HostsProblem;
use crate::reference::api_host;

/// The registry itself: https, or http where that is allowed.
pub(crate) fn default_url(registry: &str, plain_http: bool) -> Result<Url, HostsProblem> {
    let host = api_host(registry);
    let url = host_url(&format!("https://{host}"), false)?;
    if plain_http || is_loopback(&url) { host_url(&format!("http://{host}"), false) } else { Ok(url) }
}

/// A host of the file as the base of the API. Without a scheme it is https, on a loopback host http.
pub(crate) fn host_url(text: &str, override_path: bool) -> Result<Url, HostsProblem> {
    let invalid = || HostsProblem::Url(text.chars().take(200).collect());
    let mut url = if text.contains("://") {
        Url::parse(text).map_err(|_| invalid())?
    } else {
        let url = Url::parse(&format!("https://{text}")).map_err(|_| invalid())?;
        if is_loopback(&url) { Url::parse(&format!("http://{text}")).map_err(|_| invalid())? } else { url }
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(invalid());
    }
    let mut path = url.path().trim_end_matches('/').to_owned();
    if !override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// Whether `url` leads to this machine, whatever the network says.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// `host` or `host:port`, the port only where it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(crate) fn authority_of_name(name: &str, scheme: &str) -> String {
    Url::parse(&format!("{scheme}://{name}")).map(|url| authority(&url)).unwrap_or_else(|_| name.to_owned())
}
