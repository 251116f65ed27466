//! One host that answers for a registry: one exchange with it, authorization and redirects included, no retries.

use std::ops::Range;
use std::sync::Arc;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use url::Url;

use crate::api_url::authority;
use crate::auth::{Authenticator, Begin, Grant, Origin};
use crate::cause::Cause;
use crate::challenge::{self, Challenge};
use crate::credential::HostCredentials;
use crate::error::{Error, ErrorKind};
use crate::hosts::HostConfig;
use crate::limits::Limits;
use crate::redirect::Target;
use crate::response::refusal;
use crate::tls::HttpClients;
use crate::token::TokenServer;

/// The parameter that names the registry to a mirror, as containerd does it.
const NAMESPACE: &str = "ns";

/// A configured host with its connections and its authorization.
pub(crate) struct Host {
    pub(crate) config: HostConfig,
    headers: Vec<(HeaderName, HeaderValue)>,
    clients: HttpClients,
    pub(crate) auth: Arc<Authenticator>,
    connections: Arc<Semaphore>,
    limits: Arc<Limits>,
}

/// What is asked of a host.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// What the authorization has to cover.
    pub(crate) repository: &'a str,
    pub(crate) accept: Option<&'static str>,
    pub(crate) range: Option<Range<u64>>,
    /// Where the blob's redirect target is remembered. Without one, a redirect from https to http is not followed.
    pub(crate) target: Option<&'a Target>,
}

/// A success, its body not yet read.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Where it came from in the end.
    pub(crate) url: Url,
    /// Counts against the host's connections until the body has been read or dropped.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Whether a request went to the registry's own host or, redirected, elsewhere.
pub(crate) enum Sent {
    Answer(Response),
    Redirect(Url),
}

impl Host {
    pub(crate) fn new(config: HostConfig, clients: HttpClients, credentials: HostCredentials, limits: Arc<Limits>) -> Result<Self, Error> {
        let mut headers = Vec::with_capacity(config.headers.len());
        for (name, value) in &config.headers {
            let invalid = |source: reqwest::Error| Error::Setup { host: authority(&config.base), source: Arc::new(source) };
            // The client's own check, so that the error is one of its own.
            let probe = clients.of(&config.base, true).get(config.base.clone()).header(name.as_str(), value.reveal()).build();
            let probe = probe.map_err(invalid)?;
            headers.extend(probe.headers().iter().map(|(name, value)| {
                let mut value = value.clone();
                value.set_sensitive(true);
                (name.clone(), value)
            }));
        }
        let tokens = TokenServer::new(config.base.clone(), clients.clone(), limits.clone());
        let auth = Authenticator::new(credentials, tokens);
        let connections = Arc::new(Semaphore::new(limits.connections_per_host.max(1)));
        Ok(Self { config, headers, clients, auth, connections, limits })
    }

    /// The URL of `path` below the API's base.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.config.base.clone();
        url.set_path(&format!("{}/{path}", self.config.base.path()));
        self.name_registry(&mut url);
        url
    }

    /// Tells a mirror in `url` whose content is asked for, unless the URL does so already.
    pub(crate) fn name_registry(&self, url: &mut Url) {
        if let Some(namespace) = &self.config.namespace
            && !url.query_pairs().any(|(name, _)| name == NAMESPACE)
        {
            url.query_pairs_mut().append_pair(NAMESPACE, namespace);
        }
    }

    /// Sends `ask` and follows redirects until there is a success or a refusal.
    pub(crate) async fn send(&self, ask: &Ask<'_>) -> Result<Answer, Cause> {
        // The semaphore is never closed; if it were, there would be nobody left to connect to.
        let permit = self.connections.clone().acquire_owned().await.map_err(|_| Cause::NoHost("connect"))?;
        if let Some(url) = ask.target.and_then(Target::get) {
            match self.follow(ask, url.clone()).await {
                Ok((response, url)) => return Ok(Answer { response, url, permit }),
                Err(cause) => {
                    // It has expired, moved or died: the registry knows a new one.
                    tracing::debug!(%cause, "a redirect target does not answer any more");
                    if let Some(target) = ask.target {
                        target.forget(&url);
                    }
                }
            }
        }
        match self.send_own(ask).await? {
            Sent::Answer(response) => Ok(Answer { response, url: ask.url.clone(), permit }),
            Sent::Redirect(first) => {
                let (response, url) = self.follow(ask, first.clone()).await?;
                if let Some(target) = ask.target {
                    target.set(first, url.clone());
                }
                Ok(Answer { response, url, permit })
            }
        }
    }

    /// Asks the host itself, and answers its challenge: with the provider's credential and, where that is refused, with docker's.
    async fn send_own(&self, ask: &Ask<'_>) -> Result<Sent, Cause> {
        let mut grant = self.auth.grant(ask.repository).await?;
        let mut answer = self.request(ask, &ask.url, grant.as_ref()).await?;
        for begin in [Begin::AtProvider, Begin::AtDockerConfig] {
            let Some(challenge) = self.challenge(ask, &answer, grant.as_ref()) else { break };
            let renewed = match self.auth.renewed(ask.repository, grant.as_ref(), challenge, begin).await {
                Ok(renewed) => renewed,
                // That there is nothing else to try says less than the refusal itself.
                Err(cause @ Cause::Unauthorized { .. }) if begin == Begin::AtDockerConfig => {
                    tracing::debug!(%cause, "docker's configuration has no other credential");
                    break;
                }
                Err(cause) => return Err(cause),
            };
            answer = self.request(ask, &ask.url, Some(&renewed)).await?;
            if is_refused(&answer) {
                self.auth.forget(ask.repository, &renewed);
                if let Some(trouble) = &renewed.trouble {
                    return Err(Cause::Credentials(trouble.clone()));
                }
            }
            let is_provided = renewed.origin == Origin::Provider;
            grant = Some(renewed);
            if !is_provided {
                break;
            }
        }
        self.understand(ask, &ask.url, answer, grant.as_ref()).await
    }

    /// What a refusal asks for. A credential that has ended is answered by some registries with 403 and no challenge.
    fn challenge(&self, ask: &Ask<'_>, answer: &Response, grant: Option<&Arc<Grant>>) -> Option<Challenge> {
        if !is_refused(answer) {
            return None;
        }
        match chosen_challenge(answer) {
            Some(challenge) if answer.status() == StatusCode::UNAUTHORIZED => Some(challenge),
            _ => grant.and_then(|_| self.auth.challenge(ask.repository)),
        }
    }

    /// Follows redirects from `url` on, which the registry or another redirect named.
    async fn follow(&self, ask: &Ask<'_>, mut url: Url) -> Result<(Response, Url), Cause> {
        for _ in 0..self.limits.redirects {
            let response = self.request(ask, &url, None).await?;
            match self.understand(ask, &url, response, None).await {
                Ok(Sent::Answer(response)) => return Ok((response, url)),
                Ok(Sent::Redirect(next)) => url = next,
                // Storage that refuses a signed URL says nothing about the registry's permissions or contents.
                Err(Cause::Unauthorized { .. }) => return Err(Cause::Target(401)),
                Err(Cause::Denied { .. }) => return Err(Cause::Target(403)),
                Err(cause) if cause.kind() == ErrorKind::NotFound => return Err(Cause::Target(404)),
                Err(Cause::Status { status: status @ (400 | 410), .. }) => return Err(Cause::Target(status)),
                Err(cause) => return Err(cause),
            }
        }
        Err(Cause::TooManyRedirects(self.limits.redirects))
    }

    /// One request. Authorization and the configured headers go to the host's own origin only.
    pub(crate) async fn request(&self, ask: &Ask<'_>, url: &Url, grant: Option<&Arc<Grant>>) -> Result<Response, Cause> {
        let is_own = url.origin() == self.config.base.origin();
        let mut request = self.clients.of(url, is_own).request(ask.method.clone(), url.clone());
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = &ask.range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if is_own {
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            if let Some(grant) = grant {
                request = request.header(AUTHORIZATION, grant.header.clone());
            }
        }
        let after = self.limits.response_timeout;
        match timeout(after, request.send()).await {
            Ok(answer) => answer.map_err(Cause::connection),
            Err(_) => Err(Cause::Timeout { awaited: "answer", after }),
        }
    }

    pub(crate) async fn understand(&self, ask: &Ask<'_>, url: &Url, response: Response, grant: Option<&Arc<Grant>>) -> Result<Sent, Cause> {
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Sent::Answer(response)),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
                let next = url.join(location.ok_or(Cause::Header("Location"))?).map_err(|_| Cause::BadRedirect("leads to no URL"))?;
                match (url.scheme(), next.scheme()) {
                    // A blob is verified by its digest, wherever it comes from; what a tag names is not.
                    ("https", "http") if ask.target.is_none() => Err(Cause::BadRedirect("leads from https to http")),
                    (_, "http" | "https") => Ok(Sent::Redirect(next)),
                    _ => Err(Cause::BadRedirect("leads to neither http nor https")),
                }
            }
            _ => Err(refusal(response, grant.is_some_and(|grant| grant.has_credentials()), &self.limits).await),
        }
    }
}

/// The challenge of `answer` that can be answered, if it makes one.
pub(crate) fn chosen_challenge(answer: &Response) -> Option<Challenge> {
    let headers = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    challenge::choose(challenge::parse(headers))
}

fn is_refused(answer: &Response) -> bool {
    matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
