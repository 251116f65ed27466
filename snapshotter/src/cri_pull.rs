//! What a kubelet's `PullImage` says: which image, with which credential.
//!
//! Field numbers are those of `runtime.v1` and `runtime.v1alpha2`, which are the same here
//! (<https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use snap_registry::{Credential, Reference, Secret};

use crate::limits::MAX_CRI_CREDENTIAL_BYTES;

/// Bytes of the frame that gRPC puts before a message: a flag for compression, and the length, big-endian.
const FRAME_BYTES: usize = 5;

/// The names under which credentials of docker.io come.
const DOCKER_HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Whose credential it is: a repository in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ImageName {
    /// As references name it: `docker.io`, `r.example:5000`.
    pub(crate) registry: String,
    /// With `library/` where docker puts it.
    pub(crate) repository: String,
}

// No `Debug`: these hold secrets as they came.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    auth: Option<AuthConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct AuthConfig {
    #[prost(string, tag = "1")]
    username: String,
    #[prost(string, tag = "2")]
    password: String,
    /// base64 of `username:password`.
    #[prost(string, tag = "3")]
    auth: String,
    /// A host, or a URL of it.
    #[prost(string, tag = "4")]
    server_address: String,
    #[prost(string, tag = "5")]
    identity_token: String,
    #[prost(string, tag = "6")]
    registry_token: String,
}

/// The image and the credential of a request's body, gRPC's frame included. `None`: there is none that could be used.
///
/// The request is another's, who will say so if there is anything wrong with it.
pub(crate) fn credential_in(body: &[u8]) -> Option<(ImageName, Credential)> {
    let (&[compressed, a, b, c, d], message) = body.split_first_chunk::<FRAME_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if compressed != 0 || message.len() != length {
        tracing::debug!("a pull request in a form that is not read here; passed on as it is");
        return None;
    }
    let request = PullImageRequest::decode(message).ok()?;
    let Reference::Registry(reference) = request.image?.image.parse::<Reference>().ok()? else { return None };
    let name = ImageName { registry: reference.host().to_owned(), repository: reference.repository().to_owned() };
    let auth = request.auth?;
    if !auth.server_address.is_empty() && registry_of(&auth.server_address) != name.registry {
        tracing::warn!(image = %reference, "the credential that came with a pull is another registry's; not used");
        return None;
    }
    let credential = credential_of(&auth)?;
    if size_bytes(&credential) > MAX_CRI_CREDENTIAL_BYTES {
        tracing::warn!(image = %reference, "the credential that came with a pull is longer than such are; not used");
        return None;
    }
    Some((name, credential))
}

/// In containerd's order: the first form that is there.
fn credential_of(auth: &AuthConfig) -> Option<Credential> {
    if !auth.username.is_empty() {
        return Some(Credential::Password { username: auth.username.clone(), password: Secret::new(&auth.password) });
    }
    if !auth.identity_token.is_empty() {
        return Some(Credential::IdentityToken(Secret::new(&auth.identity_token)));
    }
    if !auth.auth.is_empty() {
        let decoded = String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        // Old versions of docker left padding.
        return Some(Credential::Password { username: username.to_owned(), password: Secret::new(password.trim_end_matches('\0')) });
    }
    (!auth.registry_token.is_empty()).then(|| Credential::RegistryToken(Secret::new(&auth.registry_token)))
}

/// The registry that a host or URL such as `https://index.docker.io/v1/` names.
fn registry_of(address: &str) -> String {
    let bare = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let host = bare.split('/').next().unwrap_or(bare).to_ascii_lowercase();
    if DOCKER_HUB_NAMES.contains(&host.as_str()) { DOCKER_HUB_NAMES[0].to_owned() } else { host }
}

fn size_bytes(credential: &Credential) -> usize {
    match credential {
        Credential::Password { username, password } => username.len() + password.reveal().len(),
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => token.reveal().len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0][..], &length.to_be_bytes(), message].concat()
    }

    fn body(image: &str, auth: AuthConfig) -> Vec<u8> {
        framed(&PullImageRequest { image: Some(ImageSpec { image: image.to_owned() }), auth: Some(auth) }.encode_to_vec())
    }

    fn user(server_address: &str) -> AuthConfig {
        AuthConfig {
            username: "me".to_owned(),
            password: "pw".to_owned(),
            server_address: server_address.to_owned(),
            ..AuthConfig::default()
        }
    }

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.to_owned(), password: Secret::new(password) }
    }

    #[test]
    fn images_are_named_as_the_registry_client_names_them() {
        for (image, registry, repository) in [
            ("python", "docker.io", "library/python"),
            ("index.docker.io/library/python:3", "docker.io", "library/python"),
            (
                "r.example:5000/team/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "r.example:5000",
                "team/app",
            ),
        ] {
            let (name, credential) = credential_in(&body(image, user(""))).unwrap();
            assert_eq!((name.registry.as_str(), name.repository.as_str()), (registry, repository), "{image}");
            assert_eq!(credential, password("me", "pw"));
        }
    }

    #[test]
    fn every_form_of_a_credential_is_understood_in_containerds_order() {
        let all = AuthConfig {
            username: "me".to_owned(),
            password: "pw".to_owned(),
            auth: STANDARD.encode("you:p:w\0\0"),
            identity_token: "identity".to_owned(),
            registry_token: "registry".to_owned(),
            server_address: String::new(),
        };
        let no_name = AuthConfig { username: String::new(), ..all.clone() };
        let no_identity = AuthConfig { identity_token: String::new(), ..no_name.clone() };
        let no_auth = AuthConfig { auth: String::new(), ..no_identity.clone() };
        for (auth, expected) in [
            (all, Some(password("me", "pw"))),
            (no_name, Some(Credential::IdentityToken(Secret::new("identity")))),
            (no_identity, Some(password("you", "p:w"))),
            (no_auth, Some(Credential::RegistryToken(Secret::new("registry")))),
            (AuthConfig { password: "pw".to_owned(), ..AuthConfig::default() }, None),
            (AuthConfig { auth: "no base64".to_owned(), ..AuthConfig::default() }, None),
            (AuthConfig { auth: STANDARD.encode("no colon"), ..AuthConfig::default() }, None),
            (AuthConfig { username: "u".repeat(MAX_CRI_CREDENTIAL_BYTES + 1), ..AuthConfig::default() }, None),
        ] {
            assert_eq!(credential_in(&body("r.example/a", auth)).map(|(_, credential)| credential), expected);
        }
    }

    #[test]
    fn a_credential_of_another_registry_is_not_used() {
        for (address, image, is_used) in [
            ("r.example", "r.example/a", true),
            ("https://R.example/v1/", "r.example/a", true),
            ("https://index.docker.io/v1/", "python", true),
            ("registry-1.docker.io", "docker.io/python", true),
            ("r.example:5000", "r.example/a", false),
            ("https://index.docker.io/v1/", "r.example/a", false),
            ("r.example", "python", false),
            ("r.example.evil.example", "r.example/a", false),
        ] {
            assert_eq!(credential_in(&body(image, user(address))).is_some(), is_used, "{address} for {image}");
        }
    }

    #[test]
    fn what_has_no_credential_or_no_sense_gives_none() {
        let no_auth = PullImageRequest { image: Some(ImageSpec { image: "a".to_owned() }), auth: None };
        let good = body("a", user(""));
        let mut compressed = good.clone();
        compressed[0] = 1;
        for bytes in
            [Vec::new(), vec![0; 4], framed(b""), framed(b"\xff\xff"), framed(&no_auth.encode_to_vec()), body("A B", user("")), compressed]
        {
            assert_eq!(credential_in(&bytes), None);
        }
        assert_eq!(credential_in(&good[..good.len() - 1]), None);
        assert_eq!(credential_in(&[&good[..], b"x"].concat()), None);
        assert_eq!(credential_in(&body("oci:/a:tag", user(""))), None);
    }

    proptest! {
        #[test]
        fn any_body_is_survived(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            credential_in(&message);
            credential_in(&framed(&message));
        }
    }
}
