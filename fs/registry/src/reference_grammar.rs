//! The grammar of references: from texts to their parts.

use std::path::PathBuf;

use snap_digest::Digest;

use crate::limits::{REPOSITORY_MAX_BYTES, TAG_MAX_BYTES};
use crate::reference::{DOCKER_HUB, DOCKER_HUB_API, DOCKER_HUB_OFFICIAL, ReferenceProblem};

/// Another name of docker.io that old files and habits use.
const DOCKER_HUB_OLD: &str = "index.docker.io";

/// What a text names in a registry, before any default but that of the registry.
pub(crate) struct Named {
    pub(crate) host: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Digest>,
}

pub(crate) fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A colon after the last slash begins the tag, so a directory with a colon in its last component is written with a slash at its end.
pub(crate) fn parse_layout(text: &str) -> Result<(PathBuf, Option<String>), ReferenceProblem> {
    let (path, tag) = match last_component(text).rsplit_once(':') {
        Some((_, tag)) => (&text[..text.len() - tag.len() - 1], Some(tag)),
        None => (text, None),
    };
    if path.is_empty() || path.contains('\0') {
        return Err(ReferenceProblem::Layout);
    }
    if tag.is_some_and(|tag| !is_layout_tag(tag)) {
        return Err(ReferenceProblem::Tag);
    }
    let trimmed = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let path = if trimmed.is_empty() { "/" } else { trimmed };
    Ok((PathBuf::from(path), tag.map(str::to_owned)))
}

/// The image layout allows more in a name than the tag grammar: also `+`, `@`; never a slash or a second colon here.
fn is_layout_tag(tag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'+' | b'@');
    !tag.is_empty() && tag.len() <= TAG_MAX_BYTES && tag.bytes().all(allowed)
}

pub(crate) fn parse_named(text: &str) -> Result<Named, ReferenceProblem> {
    if text.is_empty() {
        return Err(ReferenceProblem::Empty);
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    let (name, tag) = match last_component(named).split_once(':') {
        Some((_, tag)) => (&named[..named.len() - tag.len() - 1], Some(tag)),
        None => (named, None),
    };
    let (host, path) = split_host(name);
    let host = &canonical_host(host);
    let host = if host == DOCKER_HUB_OLD { DOCKER_HUB } else { host };
    let repository = if host == DOCKER_HUB && !path.contains('/') { format!("{DOCKER_HUB_OFFICIAL}/{path}") } else { path.to_owned() };
    if !is_host(host) {
        return Err(ReferenceProblem::Host);
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceProblem::UpperCase);
    }
    if repository.len() > REPOSITORY_MAX_BYTES || !repository.split('/').all(is_path_component) {
        return Err(ReferenceProblem::Repository);
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(ReferenceProblem::Tag);
    }
    Ok(Named { host: host.to_owned(), repository, tag: tag.map(str::to_owned), digest })
}

/// Names of hosts have no case. One that only its capitals tell from a repository keeps them.
fn canonical_host(host: &str) -> String {
    let lower = host.to_ascii_lowercase();
    if lower.contains(['.', ':']) || lower == "localhost" { lower } else { host.to_owned() }
}

/// The registry that `text` names on its own, as people and docker write it: a host, or a URL of which only the host counts.
pub(crate) fn registry_name(text: &str) -> Result<String, ReferenceProblem> {
    if text.is_empty() {
        return Err(ReferenceProblem::Empty);
    }
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = bare.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        DOCKER_HUB_OLD | DOCKER_HUB_API => Ok(DOCKER_HUB.to_owned()),
        host if is_host(host) => Ok(host.to_owned()),
        _ => Err(ReferenceProblem::Host),
    }
}

/// The first component is a host if it looks like one; docker's rule.
pub(crate) fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER_HUB, name),
    }
}

fn is_host(host: &str) -> bool {
    if host.len() > 255 {
        return false;
    }
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
    } else {
        match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.is_none_or(|name| name.split('.').all(label))
        && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !bytes.first().is_some_and(|&byte| is_word(byte)) || !bytes.last().is_some_and(|&byte| is_word(byte)) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

pub(crate) fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX_BYTES
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}
