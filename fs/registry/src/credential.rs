//! Credentials: what they are, and who is asked for one.
//!
//! A [`CredentialProvider`] of the program's own goes first, docker's configuration second. Neither answer is kept here: both
//! are asked anew each time the authorization at a host has to be.

use std::fmt;
use std::sync::Arc;

use crate::docker_config::{DockerConfig, DockerConfigError};
use crate::secret::Secret;

/// What a registry or token server is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// For the registry itself, or its token server.
    Password {
        /// The user's name.
        username: String,
        /// Their password, or a token that stands for one.
        password: Secret,
    },
    /// For an OAuth2 refresh at the token server.
    IdentityToken(Secret),
    /// Sent to the registry as it is.
    RegistryToken(Secret),
}

/// Knows credentials that docker's configuration does not, such as those that came with a request to pull.
///
/// `Debug` is asked for because options are logged: an implementation keeps its secrets in [`Secret`].
pub trait CredentialProvider: fmt::Debug + Send + Sync {
    /// The credential for `repository` (`library/python`) at `host`, if there is one now.
    ///
    /// `host` is the registry as references name it (`docker.io`, `r.example:5000`), or a mirror's own name: what was given for
    /// a registry is never shown to its mirrors. Called when an authorization is needed and not at each request; must not block.
    fn credential(&self, host: &str, repository: &str) -> Option<Credential>;
}

/// Everyone who may know a credential for one host.
pub(crate) struct HostCredentials {
    /// The registry's name as references have it, or a mirror's own.
    pub(crate) name: String,
    pub(crate) provider: Option<Arc<dyn CredentialProvider>>,
    pub(crate) docker: DockerConfig,
}

impl HostCredentials {
    /// The provider's, if it has one.
    pub(crate) fn provided(&self, repository: &str) -> Option<Credential> {
        self.provider.as_ref()?.credential(&self.name, repository)
    }

    /// That of docker's configuration, if it has one.
    pub(crate) async fn configured(&self) -> Result<Option<Credential>, DockerConfigError> {
        self.docker.credential(&self.name).await
    }
}
