//! A token server over TLS (the distribution project's token authentication): whoever knows the password may pull everything, anyone
//! else gets a token that is good for nothing.

use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::http::{Head, respond};

/// What `ci/registry` calls both.
const SERVICE_AND_ISSUER: &str = "snap";
const TOKEN_LIFE_S: u64 = 300;

pub(crate) struct TokenServer {
    shared: Arc<Shared>,
    address: String,
}

struct Shared {
    authority: Arc<Authority>,
    user: (String, String),
    given: AtomicUsize,
}

impl TokenServer {
    pub(crate) fn start(authority: &Arc<Authority>, user: (&str, &str)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let user = (user.0.to_owned(), user.1.to_owned());
        let shared = Arc::new(Shared { authority: Arc::clone(authority), user, given: AtomicUsize::new(0) });
        let (server, config) = (Self { shared: Arc::clone(&shared), address }, authority.server_config());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (shared, tls) = (Arc::clone(&shared), ServerConnection::new(Arc::clone(&config)).unwrap());
                std::thread::spawn(move || shared.serve(StreamOwned::new(tls, client)));
            }
        });
        server
    }

    /// The URL that a registry sends its clients to.
    pub(crate) fn realm(&self) -> String {
        format!("https://{}/token", self.address)
    }

    /// The certificates that vouch for the tokens.
    pub(crate) fn roots(&self) -> PathBuf {
        self.shared.authority.file()
    }

    /// How many tokens it has given that are good for something.
    pub(crate) fn given(&self) -> usize {
        self.shared.given.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, stream: StreamOwned<ServerConnection, TcpStream>) {
        let mut requests = BufReader::new(stream);
        let Some(request) = Head::read(&mut requests) else { return };
        let mut stream = requests.into_inner();
        let (status, body) = self.answer(&request);
        let head = Head::answer(status).with("content-type", "application/json").with("connection", "close");
        if respond(&mut stream, head, body.to_string().as_bytes(), false) {
            stream.conn.send_close_notify();
            // The client has its answer, whether it waits for this or not.
            let _ = stream.conn.complete_io(&mut stream.sock);
        }
    }

    fn answer(&self, request: &Head) -> (u16, Value) {
        // Those who try the newer way, OAuth's, are to come back by GET.
        if request.method() != "GET" || !request.target().starts_with("/token?") {
            return (404, json!({}));
        }
        let (user, password) = &self.user;
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let access = match request.header("authorization") {
            None => Vec::new(),
            Some(given) if given == expected => {
                self.given.fetch_add(1, Ordering::Relaxed);
                repositories(request.target())
            }
            Some(_) => return (401, json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "incorrect username or password" }] })),
        };
        let access: Vec<Value> = access.iter().map(|name| json!({ "type": "repository", "name": name, "actions": ["pull"] })).collect();
        (200, json!({ "token": self.token(&access), "expires_in": TOKEN_LIFE_S }))
    }

    fn token(&self, access: &[Value]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(self.authority.certificate())] });
        let claims = json!({
            "iss": SERVICE_AND_ISSUER,
            "aud": SERVICE_AND_ISSUER,
            "sub": self.user.0,
            "nbf": now - TOKEN_LIFE_S,
            "exp": now + TOKEN_LIFE_S,
            "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.authority.sign_es256(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// The repositories that a request names: `scope=repository:NAME:ACTIONS`, several times or separated by spaces.
fn repositories(target: &str) -> Vec<String> {
    let decoded = target.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace("%20", " ").replace('+', " ");
    let (_, query) = decoded.split_once('?').unwrap_or_default();
    let scopes = query.split('&').filter_map(|field| field.strip_prefix("scope=")).flat_map(|scopes| scopes.split(' '));
    let names = scopes.filter_map(|scope| Some(scope.strip_prefix("repository:")?.rsplit_once(':')?.0.to_owned()));
    names.collect()
}
