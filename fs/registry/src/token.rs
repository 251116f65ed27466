//! Token servers: <https://distribution.github.io/distribution/spec/auth/token/> with GET, and its OAuth2 form with POST for
//! identity tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::api_url::is_loopback;
use crate::auth::basic;
use crate::cause::Cause;
use crate::challenge::Challenge;
use crate::credential::Credential;
use crate::limits::{Limits, TOKEN_ANSWER_MAX_BYTES, TOKEN_LIFETIME_DEFAULT};
use crate::response::{limited_body, refusal};
use crate::secret::{Secret, redacted};
use crate::timestamp::rfc3339;
use crate::tls::HttpClients;

/// How this client names itself to token servers.
const CLIENT_ID: &str = "snap";

/// A bearer token and how long it is good for.
pub(crate) struct Token {
    pub(crate) token: Secret,
    pub(crate) lifetime: Duration,
    /// An identity token that may take the place of the credential, if the server gives one.
    pub(crate) identity: Option<Secret>,
}

/// What a token is asked for.
pub(crate) struct Wanted<'a> {
    /// What it has to cover, if the challenge does not say; may be empty.
    pub(crate) scope: &'a str,
    /// Whether an identity token is asked for as well.
    pub(crate) with_identity: bool,
}

/// Gets the tokens for one registry host, from wherever its challenges say.
pub(crate) struct TokenServer {
    /// The registry host's API.
    base: Url,
    clients: HttpClients,
    limits: Arc<Limits>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
    issued_at: Option<String>,
}

impl TokenServer {
    pub(crate) fn new(base: Url, clients: HttpClients, limits: Arc<Limits>) -> Self {
        Self { base, clients, limits }
    }

    /// A token for what `challenge` asks, or for what is `wanted` if it does not say.
    pub(crate) async fn token(&self, challenge: &Challenge, wanted: &Wanted<'_>, credential: Option<&Credential>) -> Result<Token, Cause> {
        let realm = challenge.parameter("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm.filter(|realm| matches!(realm.scheme(), "http" | "https"));
        let realm = realm.ok_or(Cause::Challenge("its realm is not an http or https URL"))?;
        if credential.is_some() && !self.may_see_credentials(&realm) {
            return Err(Cause::UnsafeRealm { realm: redacted(&realm) });
        }
        let wanted = Wanted { scope: challenge.parameter("scope").unwrap_or(wanted.scope), ..*wanted };
        let request = self.request(&realm, challenge.parameter("service"), &wanted, credential)?;
        self.exchange(request).await.map_err(|cause| Cause::Token { realm: redacted(&realm), cause: Box::new(cause) })
    }

    /// Over https, anywhere; in the clear only where the registry itself is plain, on its own host or on this machine.
    fn may_see_credentials(&self, realm: &Url) -> bool {
        realm.scheme() == "https"
            || (self.base.scheme() == "http" && realm.host() == self.base.host())
            || (is_loopback(realm) && is_loopback(&self.base))
    }

    fn request(
        &self,
        realm: &Url,
        service: Option<&str>,
        wanted: &Wanted<'_>,
        credential: Option<&Credential>,
    ) -> Result<RequestBuilder, Cause> {
        let client = self.clients.of(realm, realm.origin() == self.base.origin());
        if let Some(Credential::IdentityToken(refresh)) = credential {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID).append_pair("scope", wanted.scope);
            form.append_pair("service", service.unwrap_or_default()).append_pair("refresh_token", refresh.reveal());
            return Ok(client.post(realm.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish()));
        }
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in wanted.scope.split(' ').filter(|scope| !scope.is_empty()) {
                query.append_pair("scope", scope);
            }
            if let Some(Credential::Password { username, .. }) = credential {
                query.append_pair("account", username);
            }
            if wanted.with_identity {
                query.append_pair("offline_token", "true").append_pair("client_id", CLIENT_ID);
            }
        }
        let request = client.get(url);
        Ok(match credential {
            Some(Credential::Password { username, password }) => request.header(AUTHORIZATION, basic(username, password)?),
            _ => request,
        })
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Token, Cause> {
        let timeout = self.limits.response_timeout;
        let sent = tokio::time::timeout(timeout, request.send()).await;
        let response = sent.map_err(|_| Cause::Timeout { awaited: "answer", after: timeout })?.map_err(Cause::connection)?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response, false, &self.limits).await);
        }
        let body = limited_body(response, TOKEN_ANSWER_MAX_BYTES, &self.limits).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| Cause::NoToken)?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or(Cause::NoToken)?;
        let lifetime = answer.expires_in.map_or(TOKEN_LIFETIME_DEFAULT, Duration::from_secs);
        let identity = answer.refresh_token.filter(|token| !token.is_empty()).map(Secret::new);
        Ok(Token { token: Secret::new(token), lifetime: remaining(lifetime, answer.issued_at.as_deref()), identity })
    }
}

/// What is left of a lifetime that began when the server says. A clock that disagrees takes nothing away.
fn remaining(lifetime: Duration, issued_at: Option<&str>) -> Duration {
    let age = issued_at.and_then(rfc3339).and_then(|issued| SystemTime::now().duration_since(issued).ok());
    match age {
        Some(age) if age < lifetime => lifetime - age,
        _ => lifetime,
    }
}
