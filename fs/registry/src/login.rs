//! A login: whether a registry lets a credential in, as `docker login` finds out.

use std::sync::Arc;

use reqwest::{Method, StatusCode};

use crate::cause::Cause;
use crate::chain::Chain;
use crate::credential::Credential;
use crate::error::Error;
use crate::host::{Ask, Host, Sent, chosen_challenge};
use crate::limits::Limits;
use crate::secret::Secret;

/// A credential that a registry lets in, and what is to be kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginOutcome {
    /// The registry, as references name it: `docker.io`, `r.example:5000`.
    pub registry: String,
    /// The user's name, where there is one.
    pub username: Option<String>,
    /// What is to be kept: the identity token that the registry's token server gave for the credential, else that credential.
    pub credential: Credential,
}

/// Asks the registry named `registry`, which is the last of `hosts`, whether it lets `credential` in. One that asks for none lets
/// in any.
pub(crate) async fn check(
    registry: String,
    hosts: Vec<Arc<Host>>,
    credential: Credential,
    limits: Arc<Limits>,
) -> Result<LoginOutcome, Error> {
    let mut chain = Chain::new(&registry, "", hosts.last().cloned().into_iter().collect(), limits, "log in")?;
    let identity = loop {
        let (_, host) = chain.host();
        match host.clone().log_in(&credential).await {
            Ok(identity) => break identity,
            Err(cause) => chain.failed(refused(cause)).await?,
        }
    };
    let username = match &credential {
        Credential::Password { username, .. } => Some(username.clone()),
        Credential::IdentityToken(_) | Credential::RegistryToken(_) => None,
    };
    Ok(LoginOutcome { registry, username, credential: identity.map_or(credential, Credential::IdentityToken) })
}

impl Host {
    /// Asks for the API's root with `credential`; the identity token that came for it, if there is one.
    async fn log_in(&self, credential: &Credential) -> Result<Option<Secret>, Cause> {
        let ask = Ask { method: Method::GET, url: self.url(""), repository: "", accept: None, range: None, target: None };
        let answer = self.request(&ask, &ask.url, None).await?;
        let (answer, grant, identity) = if answer.status() == StatusCode::UNAUTHORIZED {
            let challenge = chosen_challenge(&answer).ok_or(Cause::Challenge("it names no way to authorize that is known"))?;
            let (grant, identity) = self.auth.log_in(&challenge, credential).await?;
            (self.request(&ask, &ask.url, Some(&grant)).await?, Some(grant), identity)
        } else {
            (answer, None, None)
        };
        match self.understand(&ask, &ask.url, answer, grant.as_ref()).await? {
            Sent::Answer(_) => Ok(identity),
            Sent::Redirect(_) => Err(Cause::BadRedirect("leads away from the registry's root")),
        }
    }
}

/// Whoever refuses a login, the registry or its token server, refuses this user and password and no repository.
fn refused(cause: Cause) -> Cause {
    match cause {
        Cause::Unauthorized { message, .. } | Cause::Denied { message } => Cause::LoginRefused { message },
        Cause::Token { cause, realm } => match refused(*cause) {
            refusal @ Cause::LoginRefused { .. } => refusal,
            cause => Cause::Token { realm, cause: Box::new(cause) },
        },
        cause => cause,
    }
}
