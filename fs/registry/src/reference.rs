//! Names of images: in a registry, as docker writes them, or in an OCI layout on disk (`oci:DIR[:TAG]`).
//!
//! The grammar is that of <https://github.com/distribution/reference>; the defaults (`docker.io`, `library/`, `latest`) are docker's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use snap_digest::{Digest, DigestError};

use crate::limits::{REFERENCE_MAX_BYTES, REPOSITORY_MAX_BYTES, TAG_MAX_BYTES};

const LAYOUT_PREFIX: &str = "oci:";
const DOCKER_HUB: &str = "docker.io";
/// Another name of docker.io that old files and habits use.
const DOCKER_HUB_OLD: &str = "index.docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";
const TAG_DEFAULT: &str = "latest";

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// In a registry.
    Registry(RegistryReference),
    /// In an OCI layout on disk.
    Layout(LayoutReference),
}

/// An image in a registry. Either the tag or the digest is there; with both, the digest decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// An image in an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LayoutReference {
    path: PathBuf,
    tag: Option<String>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference: {reason}")]
pub struct ReferenceError {
    /// The text, cut to a readable length.
    pub text: String,
    /// What is wrong with it.
    #[source]
    pub reason: ReferenceProblem,
}

/// What is wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceProblem {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than any reference.
    #[error("it is too long")]
    TooLong,
    /// The registry host is no host name with an optional port.
    #[error("the registry host is not a host name or address with an optional port")]
    Host,
    /// A repository with upper-case letters, which docker refuses as well.
    #[error("the repository must be lower case")]
    UpperCase,
    /// A repository that the grammar does not allow.
    #[error("the repository must be of lower-case letters, digits and single separators")]
    Repository,
    /// A tag that the grammar does not allow.
    #[error("the tag must be of letters, digits, `_`, `.` and `-`, at most 128 of them")]
    Tag,
    /// A digest that is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A layout without a directory.
    #[error("a layout is oci:DIR or oci:DIR:TAG")]
    Layout,
}

impl Reference {
    /// The same repository at `digest`, without a tag. `None` for a layout, whose references name no digest.
    pub fn at_digest(&self, digest: Digest) -> Option<Self> {
        match self {
            Self::Registry(reference) => Some(Self::Registry(reference.at_digest(digest))),
            Self::Layout(_) => None,
        }
    }
}

impl RegistryReference {
    /// The registry, as people write it: `docker.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host, with an optional port, that answers the registry's API.
    pub fn api_host(&self) -> &str {
        api_host(&self.host)
    }

    /// The repository, with `library/` where docker puts it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository at `digest`, without a tag.
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

/// The host that answers the API of the registry named `host`.
pub(crate) fn api_host(host: &str) -> &str {
    if host == DOCKER_HUB { DOCKER_HUB_API } else { host }
}

impl LayoutReference {
    /// The layout's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tag: the annotation `org.opencontainers.image.ref.name` of an entry of the layout's index.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let parsed = if text.len() > REFERENCE_MAX_BYTES {
            Err(ReferenceProblem::TooLong)
        } else if let Some(rest) = text.strip_prefix(LAYOUT_PREFIX) {
            parse_layout(rest).map(Self::Layout)
        } else {
            parse_registry(text).map(Self::Registry)
        };
        parsed.map_err(|reason| ReferenceError { text: text.chars().take(300).collect(), reason })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout(reference) => reference.fmt(f),
        }
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LAYOUT_PREFIX}{}", self.path.display())?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            // A colon in the last component would be read back as the start of a tag.
            None if last_component(&self.path.to_string_lossy()).contains(':') => f.write_str("/"),
            None => Ok(()),
        }
    }
}

fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A colon after the last slash begins the tag, so a directory with a colon in its last component is written with a slash at its end.
fn parse_layout(text: &str) -> Result<LayoutReference, ReferenceProblem> {
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
    Ok(LayoutReference { path: PathBuf::from(path), tag: tag.map(str::to_owned) })
}

/// The image layout allows more in a name than the tag grammar: also `+`, `@`; never a slash or a second colon here.
fn is_layout_tag(tag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'+' | b'@');
    !tag.is_empty() && tag.len() <= TAG_MAX_BYTES && tag.bytes().all(allowed)
}

fn parse_registry(text: &str) -> Result<RegistryReference, ReferenceProblem> {
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
    let host = if host == DOCKER_HUB_OLD { DOCKER_HUB } else { host };
    let repository = if host == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
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
    let tag = match (tag, digest) {
        (None, None) => Some(TAG_DEFAULT),
        (tag, _) => tag,
    };
    Ok(RegistryReference { host: host.to_ascii_lowercase(), repository, tag: tag.map(str::to_owned), digest })
}

/// The first component is a host if it looks like one; docker's rule.
fn split_host(name: &str) -> (&str, &str) {
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

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX_BYTES
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_get_dockers_defaults() {
        let at_digest = format!("localhost:5000/a/b@{DIGEST}");
        let both = format!("python:3.12@{DIGEST}");
        let both_full = format!("docker.io/library/{both}");
        for (text, canonical) in [
            ("python", "docker.io/library/python:latest"),
            ("python:3.12", "docker.io/library/python:3.12"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("docker.io/python", "docker.io/library/python:latest"),
            ("index.docker.io/python", "docker.io/library/python:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            (&at_digest, &at_digest),
            (&both, &both_full),
            ("ghcr.io/a/b/c-d__e.f:V1_2-3", "ghcr.io/a/b/c-d__e.f:V1_2-3"),
            ("a---b", "docker.io/library/a---b:latest"),
            ("UPPER.example/a", "upper.example/a:latest"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:/a/b/", "oci:/a/b"),
            ("oci:b:tag", "oci:b:tag"),
            ("oci:/a:b/c", "oci:/a:b/c"),
            ("oci:/a:b/", "oci:/a:b/"),
            ("oci:/", "oci:/"),
        ] {
            let parsed: Reference = text.parse().unwrap();
            assert_eq!(parsed.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse::<Reference>().unwrap(), parsed, "{text}");
        }
    }

    #[test]
    fn docker_hub_has_another_host_for_its_api() {
        let Reference::Registry(hub) = "python".parse().unwrap() else { panic!("a registry reference") };
        assert_eq!(hub.api_host(), "registry-1.docker.io");
        assert_eq!((hub.host(), hub.repository(), hub.tag(), hub.digest()), ("docker.io", "library/python", Some("latest"), None));
    }

    #[test]
    fn a_reference_is_pinned_whatever_it_named_before() {
        let digest: Digest = DIGEST.parse().unwrap();
        let other = Digest::of(b"other");
        for text in ["r.example/a:tag".to_owned(), format!("r.example/a@{other}"), format!("r.example/a:tag@{other}")] {
            let pinned = text.parse::<Reference>().unwrap().at_digest(digest).unwrap();
            assert_eq!(pinned.to_string(), format!("r.example/a@{DIGEST}"), "{text}");
        }
        assert_eq!("oci:/a:tag".parse::<Reference>().unwrap().at_digest(digest), None);
    }

    #[test]
    fn what_is_not_a_reference_is_refused_with_the_reason() {
        let long = "a".repeat(300);
        for (text, reason) in [
            ("", ReferenceProblem::Empty),
            ("Python", ReferenceProblem::UpperCase),
            ("a//b", ReferenceProblem::Repository),
            ("a/../b", ReferenceProblem::Repository),
            ("a___b", ReferenceProblem::Repository),
            ("-a", ReferenceProblem::Repository),
            ("a.", ReferenceProblem::Repository),
            ("a b", ReferenceProblem::Repository),
            (&long, ReferenceProblem::Repository),
            ("a:", ReferenceProblem::Tag),
            ("a:-x", ReferenceProblem::Tag),
            ("a:x/y:b c", ReferenceProblem::Host),
            ("ex ample.com/a", ReferenceProblem::Host),
            ("host:99999/a", ReferenceProblem::Host),
            ("-x.example/a", ReferenceProblem::Host),
            ("oci:", ReferenceProblem::Layout),
            ("oci::tag", ReferenceProblem::Layout),
            ("oci:/a:", ReferenceProblem::Tag),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().reason, reason, "{text}");
        }
        assert!(matches!("a@md5:00".parse::<Reference>().unwrap_err().reason, ReferenceProblem::Digest(_)));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn texts_like_references_round_trip(text in "(oci:)?([a-zA-Z0-9.:/@_-]|sha256:){0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
