//! Authorization at one host: which header a request carries, and how a new one is got when the host refuses.
//!
//! A host is asked without authorization until it refuses; its challenge then says how. Each scope has at most one exchange
//! under way: whoever else needs it waits for the same one. No lock is held meanwhile.

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
use crate::docker_config::{Credential, Credentials, DockerConfigError};
use crate::limits::TOKEN_MARGIN;
use crate::secret::Secret;
use crate::token::TokenServer;

/// What one host accepts, for a time.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The `Authorization` header, marked sensitive.
    pub(crate) header: HeaderValue,
    /// Whether credentials of a user are behind it.
    pub(crate) with_credentials: bool,
    /// Why there are no credentials, if they could not be read.
    pub(crate) trouble: Option<Arc<DockerConfigError>>,
    /// When to get a new one.
    renew_at: Option<Instant>,
}

type Exchange = Shared<BoxFuture<'static, Result<Arc<Grant>, Cause>>>;

/// What is known for one scope.
#[derive(Default)]
struct Slot {
    grant: Option<Arc<Grant>>,
    /// The challenge that led to the grant, to renew it without being refused first.
    challenge: Option<Challenge>,
    exchange: Option<Exchange>,
}

/// Authorization at one host.
pub(crate) struct Authenticator {
    /// The host's name in the docker configuration.
    host: String,
    credentials: Credentials,
    tokens: TokenServer,
    slots: Mutex<HashMap<String, Slot>>,
}

impl Authenticator {
    pub(crate) fn new(host: String, credentials: Credentials, tokens: TokenServer) -> Arc<Self> {
        Arc::new(Self { host, credentials, tokens, slots: Mutex::default() })
    }

    /// What a request for `scope` should carry: nothing, as long as the host has not refused one.
    pub(crate) async fn grant(self: &Arc<Self>, scope: &str) -> Result<Option<Arc<Grant>>, Cause> {
        let exchange = {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(scope) else { return Ok(None) };
            if let Some(grant) = slot.grant.as_ref().filter(|grant| grant.is_fresh()) {
                return Ok(Some(grant.clone()));
            }
            let Some(challenge) = slot.challenge.clone() else { return Ok(None) };
            self.join_or_start(slot, scope, challenge)
        };
        exchange.await.map(Some)
    }

    /// A grant that answers `challenge`, after the host refused a request that carried `used`.
    pub(crate) async fn renewed(
        self: &Arc<Self>,
        scope: &str,
        used: Option<&Arc<Grant>>,
        challenge: Challenge,
    ) -> Result<Arc<Grant>, Cause> {
        let exchange = {
            let mut slots = self.slots();
            let slot = slots.entry(scope.to_owned()).or_default();
            // Someone else has got a new one in the meantime.
            let newer = slot.grant.as_ref().filter(|grant| grant.is_fresh() && used.is_none_or(|used| !Arc::ptr_eq(used, grant)));
            if let Some(grant) = newer {
                return Ok(grant.clone());
            }
            slot.grant = None;
            self.join_or_start(slot, scope, challenge)
        };
        exchange.await
    }

    /// Drops a grant that was refused although it was new, so that the next request reads the credentials again.
    pub(crate) fn forget(&self, scope: &str, refused: &Arc<Grant>) {
        if let Some(slot) = self.slots().get_mut(scope)
            && slot.grant.as_ref().is_some_and(|grant| Arc::ptr_eq(grant, refused))
        {
            slot.grant = None;
        }
    }

    fn join_or_start(self: &Arc<Self>, slot: &mut Slot, scope: &str, challenge: Challenge) -> Exchange {
        if let Some(exchange) = &slot.exchange {
            return exchange.clone();
        }
        slot.challenge = Some(challenge.clone());
        let (this, scope) = (self.clone(), scope.to_owned());
        let exchange = async move {
            let result = this.exchange(&scope, &challenge).await.map(Arc::new);
            let mut slots = this.slots();
            let slot = slots.entry(scope).or_default();
            slot.exchange = None;
            slot.grant = result.as_ref().ok().cloned();
            result
        };
        let exchange = exchange.boxed().shared();
        slot.exchange = Some(exchange.clone());
        exchange
    }

    async fn exchange(&self, scope: &str, challenge: &Challenge) -> Result<Grant, Cause> {
        let (credential, trouble) = match self.credentials.of(&self.host).await {
            Ok(credential) => (credential, None),
            Err(error) => {
                // Public images need none, and a configuration copied from elsewhere often names a helper that is not here.
                tracing::warn!(host = %self.host, %error, "no credentials; going on without");
                (None, Some(Arc::new(error)))
            }
        };
        let with_credentials = credential.is_some();
        let granted = |header, renew_at| Grant { header, with_credentials, trouble: trouble.clone(), renew_at };
        if let Some(Credential::RegistryToken(token)) = &credential {
            return Ok(granted(bearer(token)?, None));
        }
        if challenge.is_basic() {
            return match credential {
                Some(Credential::Password { username, password }) => Ok(granted(basic(&username, &password)?, None)),
                Some(_) => Err(Cause::Challenge("it asks for a password, and there is only an identity token")),
                None => Err(trouble.map_or_else(|| Cause::Unauthorized { with_credentials, message: String::new() }, Cause::Credentials)),
            };
        }
        let asked_at = Instant::now();
        match self.tokens.token(challenge, scope, credential.as_ref()).await {
            Ok(token) => {
                let margin = TOKEN_MARGIN.min(token.lifetime / 10);
                let renew_at = asked_at.checked_add(token.lifetime.saturating_sub(margin));
                Ok(granted(bearer(&token.token)?, renew_at))
            }
            Err(cause) => Err(match trouble {
                Some(trouble) if !cause.is_temporary() => Cause::Credentials(trouble),
                _ => cause,
            }),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // The map is never left half changed, so a panic elsewhere does not spoil it.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    fn is_fresh(&self) -> bool {
        self.renew_at.is_none_or(|renew_at| Instant::now() < renew_at)
    }
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
