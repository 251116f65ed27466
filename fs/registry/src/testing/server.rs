//! The server: from a request to a right answer, and from there to a wrong one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::body::{AnyBody, Connection, End, Sending, Traffic, UnderWay};
use super::contents::Contents;
use super::fault::{Fault, Matcher, Recorded};
use super::token::{TokenAuth, Tokens};

/// Who may ask.
#[derive(Default)]
pub(super) enum Auth {
    #[default]
    Nobody,
    Basic(String, String),
    Token(TokenAuth),
}

/// Everything the connections share.
pub(super) struct State {
    pub(super) addr: SocketAddr,
    pub(super) storage_addr: SocketAddr,
    pub(super) traffic: Arc<Traffic>,
    is_tls: bool,
    contents: Mutex<Contents>,
    faults: Mutex<Vec<(Fault, Matcher)>>,
    auth: Mutex<Auth>,
    tokens: Mutex<Tokens>,
    redirects: Mutex<Redirects>,
    recorded: Mutex<Vec<Recorded>>,
}

#[derive(Default)]
struct Redirects {
    is_on: bool,
    requests_per_target: Option<u32>,
    /// By ticket: requests left.
    tickets: HashMap<String, Option<u32>>,
}

/// An answer before any fault.
struct Plan {
    status: u16,
    headers: HeaderMap,
    /// What the body is a part of, and which part.
    whole: Bytes,
    range: Range<u64>,
}

impl Plan {
    fn new(status: u16, whole: Bytes) -> Self {
        let range = 0..whole.len() as u64;
        Self { status, headers: HeaderMap::new(), whole, range }
    }

    fn with(mut self, name: hyper::header::HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn basic_header(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

impl State {
    pub(super) fn new(addr: SocketAddr, storage_addr: SocketAddr, is_tls: bool) -> Self {
        Self {
            addr,
            storage_addr,
            traffic: Arc::default(),
            is_tls,
            contents: Mutex::default(),
            faults: Mutex::default(),
            auth: Mutex::default(),
            tokens: Mutex::default(),
            redirects: Mutex::default(),
            recorded: Mutex::default(),
        }
    }

    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        locked(&self.contents)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Vec<(Fault, Matcher)>> {
        locked(&self.faults)
    }

    pub(super) fn auth(&self) -> MutexGuard<'_, Auth> {
        locked(&self.auth)
    }

    pub(super) fn recorded(&self) -> MutexGuard<'_, Vec<Recorded>> {
        locked(&self.recorded)
    }

    pub(super) fn redirect_blobs(&self, requests_per_target: Option<u32>) {
        let mut redirects = locked(&self.redirects);
        redirects.is_on = true;
        redirects.requests_per_target = requests_per_target;
    }

    /// The refusal of a request without a right authorization.
    fn refusal(&self, headers: &HeaderMap, repository: &str) -> Option<Plan> {
        let authorization = text(headers, AUTHORIZATION);
        let challenge = match &*self.auth() {
            Auth::Nobody => return None,
            Auth::Basic(username, password) if authorization == Some(&basic_header(username, password)) => return None,
            Auth::Basic(..) => "Basic realm=\"here\"".to_owned(),
            Auth::Token(auth) => {
                if locked(&self.tokens).accepts(authorization) {
                    return None;
                }
                let scheme = if self.is_tls { "https" } else { "http" };
                let realm = auth.realm.clone().unwrap_or_else(|| format!("{scheme}://{}/token", self.addr));
                let scope = if repository.is_empty() { String::new() } else { format!(",scope=\"repository:{repository}:pull\"") };
                format!("Bearer realm=\"{realm}\",service=\"here\"{scope}")
            }
        };
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Some(Plan::new(401, Bytes::from_static(body.as_bytes())).with(WWW_AUTHENTICATE, &challenge))
    }

    fn token(&self, headers: &HeaderMap, query: &str, form: Option<&str>) -> Plan {
        let answer = match &*self.auth() {
            Auth::Token(auth) => locked(&self.tokens).give(auth, text(headers, AUTHORIZATION), query, form),
            _ => None,
        };
        answer.map_or_else(|| Plan::new(401, Bytes::new()), |json| Plan::new(200, json.into()))
    }

    /// The right answer of the registry.
    fn registry(&self, path: &str, query: &str, headers: &HeaderMap) -> Plan {
        let Some(path) = path.strip_prefix("/v2/") else { return Plan::new(404, Bytes::new()) };
        let parts = (path.rsplit_once("/blobs/"), path.rsplit_once("/manifests/"), path.strip_suffix("/tags/list"));
        let (repository, kind, name) = match parts {
            (Some((repository, digest)), ..) => (repository, "blob", digest),
            (None, Some((repository, name)), _) => (repository, "manifest", name),
            (None, None, Some(repository)) => (repository, "tags", ""),
            (None, None, None) if path.is_empty() => ("", "root", ""),
            (None, None, None) => return Plan::new(404, Bytes::new()),
        };
        if let Some(refusal) = self.refusal(headers, repository) {
            return refusal;
        }
        match kind {
            "root" => Plan::new(200, Bytes::from_static(b"{}")),
            "tags" => self.tags(repository, query),
            "manifest" => self.manifest(repository, name),
            _ => self.blob(name, headers),
        }
    }

    fn manifest(&self, repository: &str, name: &str) -> Plan {
        let contents = self.contents();
        let Some(document) = contents.manifest(repository, name) else {
            return not_found(if contents.has(repository) { "MANIFEST_UNKNOWN" } else { "NAME_UNKNOWN" });
        };
        let digest_header = hyper::header::HeaderName::from_static("docker-content-digest");
        Plan::new(200, document.bytes).with(CONTENT_TYPE, &document.media_type).with(digest_header, &document.digest.to_string())
    }

    /// The page of the list of tags that begins after the `last` of the query.
    fn tags(&self, repository: &str, query: &str) -> Plan {
        let contents = self.contents();
        if !contents.has(repository) {
            return not_found("NAME_UNKNOWN");
        }
        let after = query.split('&').find_map(|field| field.strip_prefix("last=")).and_then(|last| last.parse().ok()).unwrap_or(0);
        let (tags, next) = contents.tags(repository, after);
        let plan = Plan::new(200, serde_json::json!({"name": repository, "tags": tags}).to_string().into());
        match next {
            Some(next) => plan.with(LINK, &format!("</v2/{repository}/tags/list?last={next}>; rel=\"next\"")),
            None => plan,
        }
    }

    fn blob(&self, digest: &str, headers: &HeaderMap) -> Plan {
        let Some(blob) = self.contents().blob(digest) else { return not_found("BLOB_UNKNOWN") };
        let mut redirects = locked(&self.redirects);
        if redirects.is_on {
            let ticket = redirects.tickets.len().to_string();
            let requests = redirects.requests_per_target;
            redirects.tickets.insert(ticket.clone(), requests);
            let target = format!("http://{}/storage/{ticket}/{digest}?signature=secret{ticket}", self.storage_addr);
            return Plan::new(307, Bytes::new()).with(LOCATION, &target);
        }
        ranged(blob, headers)
    }

    /// The right answer of the storage.
    fn storage(&self, path: &str, headers: &HeaderMap) -> Plan {
        let target = path.strip_prefix("/storage/").and_then(|path| path.split_once('/'));
        let Some((ticket, digest)) = target else { return Plan::new(404, Bytes::new()) };
        match locked(&self.redirects).tickets.get_mut(ticket) {
            Some(Some(left)) if *left > 0 => *left -= 1,
            Some(None) => {}
            _ => return Plan::new(403, Bytes::new()),
        }
        self.contents().blob(digest).map_or_else(|| Plan::new(404, Bytes::new()), |blob| ranged(blob, headers))
    }

    /// The fault that strikes a request.
    fn fault(&self, method: &str, path: &str) -> Option<Fault> {
        self.faults().iter_mut().find_map(|(fault, matcher)| matcher.strikes(method, path).then(|| fault.clone()))
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, at_storage: bool, reset: Arc<AtomicBool>) -> Response<AnyBody> {
        let under_way = UnderWay::new(self.traffic.clone());
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let named = head.headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        self.recorded().push(Recorded {
            method: head.method.to_string(),
            path: path.clone(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: named.collect(),
            at_storage,
        });
        let fault = self.fault(head.method.as_str(), &path);
        let plan = if path == "/token" {
            let form = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            self.token(
                &head.headers,
                head.uri.query().unwrap_or_default(),
                (head.method == "POST").then(|| String::from_utf8_lossy(&form).into_owned()).as_deref(),
            )
        } else if at_storage {
            self.storage(&path, &head.headers)
        } else {
            self.registry(&path, head.uri.query().unwrap_or_default(), &head.headers)
        };
        if matches!(fault, Some(Fault::NoAnswer)) {
            std::future::pending::<()>().await;
        }
        carry_out(plan, fault, reset, under_way)
    }
}

/// A 404 that says of what.
fn not_found(code: &str) -> Plan {
    let body = serde_json::json!({"errors": [{"code": code, "message": format!("{} to this registry", code.to_lowercase())}]});
    Plan::new(404, body.to_string().into())
}

/// The blob, or the range of it that is asked for.
fn ranged(blob: Bytes, headers: &HeaderMap) -> Plan {
    let size = blob.len() as u64;
    let Some(asked) = text(headers, RANGE).and_then(|range| range.strip_prefix("bytes=")) else { return Plan::new(200, blob) };
    let bounds = asked.split_once('-').and_then(|(start, end)| Some((start.parse::<u64>().ok()?, end.parse::<u64>().ok()?)));
    match bounds {
        Some((start, end)) if start <= end && start < size => {
            let end = (end + 1).min(size);
            let plan = Plan::new(206, blob).with(CONTENT_RANGE, &format!("bytes {start}-{}/{size}", end - 1));
            Plan { range: start..end, ..plan }
        }
        _ => Plan::new(416, Bytes::new()).with(CONTENT_RANGE, &format!("bytes */{size}")),
    }
}

/// Turns a right answer into what the fault makes of it.
fn carry_out(mut plan: Plan, fault: Option<Fault>, reset: Arc<AtomicBool>, under_way: UnderWay) -> Response<AnyBody> {
    let (mut cut, mut end, mut drip, mut flip) = (u64::MAX, End::Good, None, None);
    match fault {
        None | Some(Fault::NoAnswer) => {}
        Some(Fault::WholeInsteadOfRange) => plan = Plan::new(200, plan.whole),
        Some(Fault::ContentRange(text)) => {
            plan.headers.remove(CONTENT_RANGE);
            plan = if text.is_empty() { plan } else { plan.with(CONTENT_RANGE, &text) };
        }
        Some(Fault::OtherBytes(further)) => {
            let (size, length) = (plan.whole.len() as u64, plan.range.end - plan.range.start);
            let start = (plan.range.start + further).min(size - length);
            plan.range = start..start + length;
        }
        Some(Fault::AlteredByte(at)) => flip = Some(at),
        Some(Fault::TruncateAt(at)) => (cut, end) = (at, End::Closed),
        Some(Fault::ResetAt(at)) => (cut, end) = (at, End::Reset),
        Some(Fault::StallAt(at)) => (cut, end) = (at, End::Silence),
        Some(Fault::Drip(pause)) => drip = Some(pause),
        Some(Fault::Status(status, after)) => {
            plan = Plan::new(status, Bytes::new());
            if let Some(seconds) = after {
                plan = plan.with(RETRY_AFTER, &seconds.to_string());
            }
        }
        Some(Fault::Link(link)) => {
            plan.headers.remove(LINK);
            plan = plan.with(LINK, &link);
        }
        Some(Fault::Redirect(url)) => plan = Plan::new(307, Bytes::new()).with(LOCATION, &url),
    }
    let mut bytes = plan.whole.slice(plan.range.start as usize..plan.range.end as usize);
    let length = bytes.len();
    if let Some(at) = flip {
        let mut altered = bytes.to_vec();
        if let Some(byte) = altered.get_mut(at as usize) {
            *byte ^= 1;
        }
        bytes = altered.into();
    }
    bytes.truncate(usize::try_from(cut).unwrap_or(usize::MAX));
    let body = Sending { bytes, end, drip, reset, under_way }.into_body();
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(plan.status).unwrap_or_default();
    *response.headers_mut() = plan.headers;
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn text(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Serves every connection to `listener` until the task is ended, and all of them with it.
pub(super) async fn accept(listener: TcpListener, state: Arc<State>, tls: Option<Arc<rustls::ServerConfig>>, at_storage: bool) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let (state, tls) = (state.clone(), tls.clone());
        connections.spawn(async move {
            // Pieces of a body must not wait for each other.
            let _ = stream.set_nodelay(true);
            let reset = Arc::new(AtomicBool::new(false));
            let connection = Connection { stream, reset: reset.clone() };
            match tls {
                None => serve(connection, state, at_storage, reset).await,
                Some(tls) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(connection).await {
                        serve(stream, state, at_storage, reset).await;
                    }
                }
            }
        });
    }
}

async fn serve(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    state: Arc<State>,
    at_storage: bool,
    reset: Arc<AtomicBool>,
) {
    let service = service_fn(move |request| {
        let (state, reset) = (state.clone(), reset.clone());
        async move { Ok::<_, Infallible>(state.answer(request, at_storage, reset).await) }
    });
    // A connection that ends badly is what this server is for.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
}
