//! Names of images: in a registry, as docker writes them, or in an OCI layout on disk (`oci:DIR[:TAG]`).
//!
//! The grammar is that of <https://github.com/distribution/reference>; the defaults (`docker.io`, `library/`, `latest`) are docker's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use snap_digest::{Digest, DigestError};

use crate::limits::REFERENCE_MAX_BYTES;
use crate::reference_grammar::{Named, is_tag, last_component, parse_layout, parse_named, registry_name, split_host};

const LAYOUT_PREFIX: &str = "oci:";
pub(crate) const DOCKER_HUB: &str = "docker.io";
pub(crate) const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// Where docker.io keeps its official images; people leave it out.
pub(crate) const DOCKER_HUB_OFFICIAL: &str = "library";
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

    /// Whether `text` is a reference that names neither a tag nor a digest, so that one is assumed or all tags are meant.
    pub fn names_no_tag(text: &str) -> bool {
        match text.strip_prefix(LAYOUT_PREFIX) {
            _ if text.len() > REFERENCE_MAX_BYTES => false,
            Some(rest) => parse_layout(rest).is_ok_and(|(_, tag)| tag.is_none()),
            None => parse_named(text).is_ok_and(|named| named.tag.is_none() && named.digest.is_none()),
        }
    }
}

/// The registry that `text` names on its own, as references write it: `docker.io`, `r.example:5000`.
///
/// Also takes a URL, of which only the host counts, and the other names of docker.io: `https://index.docker.io/v1/`.
pub fn parse_registry_name(text: &str) -> Result<String, ReferenceError> {
    let parsed = if text.len() > REFERENCE_MAX_BYTES { Err(ReferenceProblem::TooLong) } else { registry_name(text) };
    parsed.map_err(|reason| ReferenceError::new(text, reason))
}

impl ReferenceError {
    fn new(text: &str, reason: ReferenceProblem) -> Self {
        Self { text: text.chars().take(300).collect(), reason }
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

    /// The same without what decides nothing: the tag beside a digest. It is what docker calls an image that was named by both.
    pub fn decisive(&self) -> Self {
        self.digest.map_or_else(|| self.clone(), |digest| self.at_digest(digest))
    }

    /// The same repository at `tag`, without a digest. Refuses what the grammar of tags does not allow.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceProblem> {
        if is_tag(tag) { Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }) } else { Err(ReferenceProblem::Tag) }
    }

    /// The repository as people write it: `debian` for `docker.io/library/debian`, `r.example/app` for itself.
    ///
    /// Read again, it is this repository: docker.io is kept where the rest would be taken for another registry.
    pub fn familiar_repository(&self) -> String {
        if self.host != DOCKER_HUB {
            return format!("{}/{}", self.host, self.repository);
        }
        match self.repository.split_once('/') {
            Some((DOCKER_HUB_OFFICIAL, name)) if !name.contains('/') => name.to_owned(),
            _ if split_host(&self.repository).0 != DOCKER_HUB => format!("{}/{}", self.host, self.repository),
            _ => self.repository.clone(),
        }
    }

    /// The reference as people write it: `debian:12` for `docker.io/library/debian:12`. Read again, it is this reference.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), Suffix(self))
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
            parse_layout(rest).map(|(path, tag)| Self::Layout(LayoutReference { path, tag }))
        } else {
            parse_named(text).map(|named| Self::Registry(named.into()))
        };
        parsed.map_err(|reason| ReferenceError::new(text, reason))
    }
}

impl From<Named> for RegistryReference {
    /// With docker's default of a tag.
    fn from(named: Named) -> Self {
        let Named { host, repository, tag, digest } = named;
        let is_bare = tag.is_none() && digest.is_none();
        Self { host, repository, tag: if is_bare { Some(TAG_DEFAULT.to_owned()) } else { tag }, digest }
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
        write!(f, "{}/{}{}", self.host, self.repository, Suffix(self))
    }
}

/// Tag and digest of a reference.
struct Suffix<'a>(&'a RegistryReference);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
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
            ("DOCKER.IO/a", "docker.io/library/a:latest"),
            // Only its capitals tell this host from a repository.
            ("Registry/a", "Registry/a:latest"),
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

    fn registry(text: &str) -> RegistryReference {
        let Reference::Registry(reference) = text.parse().unwrap() else { panic!("{text} is no registry reference") };
        reference
    }

    #[test]
    fn people_leave_out_what_docker_adds() {
        let pinned = format!("org/app@{DIGEST}");
        let both = format!("debian:12@{DIGEST}");
        for (text, repository, familiar) in [
            ("docker.io/library/debian:12", "debian", "debian:12"),
            ("debian", "debian", "debian:latest"),
            ("index.docker.io/org/app", "org/app", "org/app:latest"),
            (&pinned, "org/app", &pinned),
            (&both, "debian", &both),
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app", "127.0.0.1:5000/app:1"),
            ("docker.io/library/a/b", "library/a/b", "library/a/b:latest"),
            // Without the registry, these would name another one.
            ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c:latest"),
            ("docker.io/localhost/c", "docker.io/localhost/c", "docker.io/localhost/c:latest"),
            ("docker.io/library/localhost", "localhost", "localhost:latest"),
        ] {
            let reference = registry(text);
            assert_eq!((reference.familiar_repository().as_str(), reference.familiar().as_str()), (repository, familiar), "{text}");
        }
    }

    #[test]
    fn beside_a_digest_a_tag_decides_nothing() {
        let by_digest = format!("r.example/a@{DIGEST}");
        for (text, decisive) in [(&format!("r.example/a:1@{DIGEST}"), &by_digest), (&by_digest, &by_digest)] {
            assert_eq!(registry(text).decisive().to_string(), *decisive);
        }
        assert_eq!(registry("r.example/a:1").decisive(), registry("r.example/a:1"));
    }

    #[test]
    fn a_tag_takes_the_place_of_tag_and_digest() {
        for text in ["r.example/a", "r.example/a:1", &format!("r.example/a:1@{DIGEST}")] {
            assert_eq!(registry(text).with_tag("2.0_x-y").unwrap().to_string(), "r.example/a:2.0_x-y", "{text}");
        }
        for tag in ["", "-a", ".a", "a/b", "a b", "a@b", "ü", &"a".repeat(129)] {
            assert_eq!(registry("r.example/a").with_tag(tag), Err(ReferenceProblem::Tag), "{tag}");
        }
    }

    #[test]
    fn a_bare_name_is_told_from_one_that_is_given_its_tag() {
        let pinned = format!("debian@{DIGEST}");
        let long = format!("oci:{}", "a".repeat(REFERENCE_MAX_BYTES));
        for bare in ["debian", "r.example:5000/a/b", "oci:/a/b"] {
            assert!(Reference::names_no_tag(bare), "{bare}");
        }
        for other in ["debian:latest", &pinned, "oci:/a/b:c", "Debian", "", &long] {
            assert!(!Reference::names_no_tag(other), "{other}");
        }
    }

    #[test]
    fn a_registry_is_named_by_host_or_url() {
        for (text, name) in [
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("http://R.Example:5000/v2/", "r.example:5000"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(parse_registry_name(text).unwrap(), name, "{text}");
        }
        for text in ["https://me@r.example", "https://", "a b", "r.example:x"] {
            assert_eq!(parse_registry_name(text).unwrap_err().reason, ReferenceProblem::Host, "{text}");
        }
        assert_eq!(parse_registry_name("").unwrap_err().reason, ReferenceProblem::Empty);
        assert_eq!(parse_registry_name(&"a".repeat(5000)).unwrap_err().reason, ReferenceProblem::TooLong);
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
        fn texts_like_references_round_trip(text in "(oci:|docker.io/(library/)?)?([a-zA-Z0-9.:/@_-]|sha256:){0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                if let Reference::Registry(registry) = &reference {
                    prop_assert_eq!(registry.familiar().parse::<Reference>().unwrap(), reference.clone());
                }
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
