//! Authorization at one host: which header a request carries, and how a new one is got when the host refuses.
//!
//! A host is asked without authorization until it refuses; its challenge then says how. Each repository has at most one exchange
//! of a kind under way: whoever else needs it waits for the same one. No lock is held meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use reqwest::header::HeaderValue;

use crate::cause::Cause;
use crate::challenge::Challenge;
use crate::credential::{Credential, HostCredentials};
use crate::docker_config::DockerConfigError;
use crate::limits::TOKEN_MARGIN;
use crate::secret::Secret;
use crate::token::{Token, TokenServer, Wanted};

/// Whose credential is behind a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// That of the program's own [`CredentialProvider`](crate::CredentialProvider).
    Provider,
    /// That of docker's configuration.
    DockerConfig,
    /// Nobody's: what anyone gets.
    Anonymous,
}

/// Where a search for credentials begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Begin {
    /// The provider, then docker's configuration, then none.
    AtProvider,
    /// Docker's configuration alone, where the host has just refused what the provider gave.
    AtDockerConfig,
}

/// What one host accepts, for a time.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The `Authorization` header, marked sensitive.
    pub(crate) header: HeaderValue,
    pub(crate) origin: Origin,
    /// Why there are no credentials, if they could not be read.
    pub(crate) trouble: Option<Arc<DockerConfigError>>,
    /// When to get a new one.
    renew_at: Option<Instant>,
}

/// What a credential was traded for.
struct Obtained {
    header: HeaderValue,
    /// When it has to be renewed.
    renew_at: Option<Instant>,
    identity: Option<Secret>,
}

type Exchange = Shared<BoxFuture<'static, Result<Arc<Grant>, Cause>>>;

/// What is known for one repository.
#[derive(Default)]
struct Slot {
    grant: Option<Arc<Grant>>,
    /// The challenge that led to the grant, to renew it without being refused first.
    challenge: Option<Challenge>,
    exchanges: HashMap<Begin, Exchange>,
}

/// Authorization at one host.
pub(crate) struct Authenticator {
    credentials: HostCredentials,
    tokens: TokenServer,
    /// By repository.
    slots: Mutex<HashMap<String, Slot>>,
}

impl Authenticator {
    pub(crate) fn new(credentials: HostCredentials, tokens: TokenServer) -> Arc<Self> {
        Arc::new(Self { credentials, tokens, slots: Mutex::default() })
    }

    /// What a request to `repository` should carry: nothing, as long as the host has not refused one.
    pub(crate) async fn grant(self: &Arc<Self>, repository: &str) -> Result<Option<Arc<Grant>>, Cause> {
        let exchange = {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(repository) else { return Ok(None) };
            if let Some(grant) = slot.grant.as_ref().filter(|grant| grant.is_fresh()) {
                return Ok(Some(grant.clone()));
            }
            let Some(challenge) = slot.challenge.clone() else { return Ok(None) };
            self.join_or_start(slot, repository, challenge, Begin::AtProvider)
        };
        exchange.await.map(Some)
    }

    /// The challenge that the host was last known to make for `repository`.
    pub(crate) fn challenge(&self, repository: &str) -> Option<Challenge> {
        self.slots().get(repository)?.challenge.clone()
    }

    /// A grant that answers `challenge`, after the host refused a request that carried `used`.
    pub(crate) async fn renewed(
        self: &Arc<Self>,
        repository: &str,
        used: Option<&Arc<Grant>>,
        challenge: Challenge,
        begin: Begin,
    ) -> Result<Arc<Grant>, Cause> {
        let exchange = {
            let mut slots = self.slots();
            let slot = slots.entry(repository.to_owned()).or_default();
            // Someone else has got a new one in the meantime.
            let is_newer = |grant: &Arc<Grant>| {
                let is_wanted = begin == Begin::AtProvider || grant.origin != Origin::Provider;
                grant.is_fresh() && is_wanted && used.is_none_or(|used| !Arc::ptr_eq(used, grant))
            };
            if let Some(grant) = slot.grant.as_ref().filter(|grant| is_newer(grant)) {
                return Ok(grant.clone());
            }
            slot.grant = None;
            self.join_or_start(slot, repository, challenge, begin)
        };
        exchange.await
    }

    /// Drops a grant that was refused although it was new, so that the next request reads the credentials again.
    pub(crate) fn forget(&self, repository: &str, refused: &Arc<Grant>) {
        if let Some(slot) = self.slots().get_mut(repository)
            && slot.grant.as_ref().is_some_and(|grant| Arc::ptr_eq(grant, refused))
        {
            slot.grant = None;
        }
    }

    fn join_or_start(self: &Arc<Self>, slot: &mut Slot, repository: &str, challenge: Challenge, begin: Begin) -> Exchange {
        if let Some(exchange) = slot.exchanges.get(&begin) {
            return exchange.clone();
        }
        slot.challenge = Some(challenge.clone());
        let (this, repository) = (self.clone(), repository.to_owned());
        let exchange = async move {
            let result = this.exchange(&repository, &challenge, begin).await.map(Arc::new);
            let mut slots = this.slots();
            let slot = slots.entry(repository).or_default();
            slot.exchanges.remove(&begin);
            slot.grant = result.as_ref().ok().cloned();
            result
        };
        let exchange = exchange.boxed().shared();
        slot.exchanges.insert(begin, exchange.clone());
        exchange
    }

    async fn exchange(&self, repository: &str, challenge: &Challenge, begin: Begin) -> Result<Grant, Cause> {
        let wanted = Wanted { scope: &format!("repository:{repository}:pull"), with_identity: false };
        let provided = if begin == Begin::AtProvider { self.credentials.provided(repository) } else { None };
        let refusal = match provided {
            Some(credential) => match self.obtain(&wanted, challenge, Some(&credential)).await {
                Ok(Obtained { header, renew_at, .. }) => return Ok(Grant { header, origin: Origin::Provider, trouble: None, renew_at }),
                Err(cause) if cause.is_temporary() => return Err(cause),
                Err(cause) => {
                    let host = &self.credentials.name;
                    tracing::warn!(host, repository, %cause, "a credential is of no use; trying docker's configuration");
                    Some(cause)
                }
            },
            None => None,
        };
        let (credential, trouble) = match self.credentials.configured().await {
            Ok(credential) => (credential, None),
            Err(error) => {
                // Public images need none, and a configuration copied from elsewhere often names a helper that is not here.
                tracing::warn!(host = %self.credentials.name, %error, "no credentials; going on without");
                (None, Some(Arc::new(error)))
            }
        };
        let origin = if credential.is_some() { Origin::DockerConfig } else { Origin::Anonymous };
        if credential.is_none() && begin == Begin::AtDockerConfig {
            // Who is refused with a credential is not let in without.
            return Err(trouble.map_or_else(unauthorized, Cause::Credentials));
        }
        match self.obtain(&wanted, challenge, credential.as_ref()).await {
            Ok(Obtained { header, renew_at, .. }) => Ok(Grant { header, origin, trouble, renew_at }),
            Err(cause) if cause.is_temporary() => Err(cause),
            Err(cause) => Err(match (credential, refusal, trouble) {
                (None, Some(refusal), _) => refusal,
                (_, _, Some(trouble)) => Cause::Credentials(trouble),
                _ => cause,
            }),
        }
    }

    /// A grant of `credential` alone, which is kept nowhere, and the identity token that came with it.
    pub(crate) async fn log_in(&self, challenge: &Challenge, credential: &Credential) -> Result<(Arc<Grant>, Option<Secret>), Cause> {
        let wanted = Wanted { scope: "", with_identity: true };
        let Obtained { header, renew_at, identity } = self.obtain(&wanted, challenge, Some(credential)).await?;
        Ok((Arc::new(Grant { header, origin: Origin::Provider, trouble: None, renew_at }), identity))
    }

    /// What answers `challenge` with `credential`.
    async fn obtain(&self, wanted: &Wanted<'_>, challenge: &Challenge, credential: Option<&Credential>) -> Result<Obtained, Cause> {
        let lasting = |header| Ok(Obtained { header, renew_at: None, identity: None });
        match credential {
            Some(Credential::RegistryToken(token)) => return lasting(bearer(token)?),
            Some(Credential::Password { username, password }) if challenge.is_basic() => return lasting(basic(username, password)?),
            Some(_) if challenge.is_basic() => {
                return Err(Cause::Challenge("it asks for a password, and there is only an identity token"));
            }
            None if challenge.is_basic() => return Err(Cause::NoBasicCredentials),
            _ => {}
        }
        let asked_at = Instant::now();
        let Token { token, lifetime, identity } = self.tokens.token(challenge, wanted, credential).await?;
        let margin = TOKEN_MARGIN.min(lifetime / 10);
        Ok(Obtained { header: bearer(&token)?, renew_at: asked_at.checked_add(lifetime.saturating_sub(margin)), identity })
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // The map is never left half changed, so a panic elsewhere does not spoil it.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// Whether credentials of a user are behind it.
    pub(crate) fn has_credentials(&self) -> bool {
        self.origin != Origin::Anonymous
    }

    fn is_fresh(&self) -> bool {
        self.renew_at.is_none_or(|renew_at| Instant::now() < renew_at)
    }
}

/// The refusal of a request that had no credential to carry.
fn unauthorized() -> Cause {
    Cause::Unauthorized { with_credentials: false, message: String::new() }
}

fn bearer(token: &Secret) -> Result<HeaderValue, Cause> {
    sensitive(format!("Bearer {}", token.reveal()))
}

pub(crate) fn basic(username: &str, password: &Secret) -> Result<HeaderValue, Cause> {
    sensitive(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal()))))
}

fn sensitive(text: String) -> Result<HeaderValue, Cause> {
    let mut value = HeaderValue::try_from(text).map_err(|_| Cause::NoToken)?;
    value.set_sensitive(true);
    Ok(value)
}
