//! A door to the registry: it keeps a ledger of what passes, and can be shut, let through only so much, or answer in the registry's
//! place.

mod ledger;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::http::{Head, respond};
use ledger::Ledger;
pub(crate) use ledger::{Asked, Passed};

const BUFFER_BYTES: usize = 64 * 1024;
/// How a record of TLS begins that begins a connection.
const TLS_HANDSHAKE: u8 = 22;

pub(crate) struct Door {
    /// `HOST:PORT`, by which the registry is called.
    pub(crate) address: String,
    way: Arc<Way>,
}

struct Way {
    registry: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    obstacles: Obstacles,
    /// What is answered here to those requests that have the text in their target.
    answers: Vec<(String, Answer)>,
    /// What passes of requests that have one of these in their target is changed.
    spoiled: Vec<String>,
    ledger: Ledger,
}

#[derive(Default)]
struct Obstacles {
    shut: bool,
    /// Bytes that may still pass from the registry before everything waits.
    allowed_bytes: Option<usize>,
    /// Requests with one of these in their target wait.
    held: Vec<String>,
    /// Bytes that may still pass before an answer breaks off, once for each.
    breaks_after: VecDeque<usize>,
    /// Someone waits.
    holding: bool,
}

/// What is said in the registry's place.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) media_type: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Door {
    pub(crate) fn to(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let way = Arc::new(Way { registry: registry.to_owned(), state: Mutex::default(), changed: Condvar::new() });
        let door = Self { address, way: Arc::clone(&way) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let way = Arc::clone(&way);
                std::thread::spawn(move || way.serve(&client));
            }
        });
        door
    }

    /// Nothing passes any more: connections break, new ones are refused.
    pub(crate) fn shut(&self) {
        self.way.change(|state| state.obstacles.shut = true);
    }

    /// Takes every obstacle away.
    pub(crate) fn open(&self) {
        self.way.change(|state| state.obstacles = Obstacles::default());
    }

    /// Answers stop after so many more bytes, until `open`.
    pub(crate) fn hold_after(&self, bytes: usize) {
        self.way.change(|state| state.obstacles.allowed_bytes = Some(bytes));
    }

    /// Requests with a text in their path or query are not answered, until `open`.
    pub(crate) fn hold(&self, text: &str) {
        self.way.change(|state| state.obstacles.held.push(text.to_owned()));
    }

    /// After so many more bytes the connection breaks whose turn it is; after as many as come next, again.
    pub(crate) fn break_after(&self, bytes: impl IntoIterator<Item = usize>) {
        self.way.change(|state| state.obstacles.breaks_after = bytes.into_iter().collect());
    }

    /// How many connections are still to be broken.
    pub(crate) fn breaks_left(&self) -> usize {
        self.way.state().obstacles.breaks_after.len()
    }

    /// Waits until an answer waits.
    pub(crate) fn wait_holding(&self) {
        drop(self.way.changed.wait_while(self.way.state(), |state| !state.obstacles.holding).unwrap());
    }

    /// Answers requests with a text in their path or query in the registry's place. Of several that fit, the one given last.
    pub(crate) fn answer(&self, text: &str, answer: Answer) {
        self.way.change(|state| state.answers.insert(0, (text.to_owned(), answer)));
    }

    /// Every byte of the answers to such requests is changed as it passes.
    pub(crate) fn spoil(&self, text: &str) {
        self.way.change(|state| state.spoiled.push(text.to_owned()));
    }

    /// From now on the registry itself answers, and nothing is changed.
    pub(crate) fn be_honest(&self) {
        self.way.change(|state| {
            state.answers.clear();
            state.spoiled.clear();
        });
    }

    /// Every request so far, in the order of their arrival.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.way.state().ledger.asked().to_vec()
    }

    /// How often a blob was fetched, and how much of it has passed.
    pub(crate) fn passed(&self, digest: &str) -> Passed {
        self.way.state().ledger.passed(digest)
    }

    /// A new page in the ledger.
    pub(crate) fn forget(&self) {
        self.way.change(|state| state.ledger = Ledger::default());
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // What waits must end.
        self.shut();
    }
}

impl Way {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// One request of a client after the other.
    fn serve(&self, mut client: &TcpStream) {
        let mut requests = BufReader::new(client);
        if requests.fill_buf().is_ok_and(|start| start.first() == Some(&TLS_HANDSHAKE)) {
            // Those who try TLS first take this for what it is, and come back without.
            respond(&mut client, Head::answer(400), b"", false);
        }
        while let Some(request) = Head::read(&mut requests)
            && self.may_ask(&request)
            && self.pass_on(request, &mut requests, client).is_some()
        {}
        let _ = client.shutdown(Shutdown::Both);
    }

    /// Whether a request may come in; waits where it may not yet.
    fn may_ask(&self, request: &Head) -> bool {
        let mut state = self.state();
        state.ledger.ask(request);
        while !state.obstacles.shut && state.obstacles.held.iter().any(|text| request.target().contains(text)) {
            state = self.wait(state);
        }
        !state.obstacles.shut
    }

    fn wait<'s>(&self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.obstacles.holding = true;
        self.changed.notify_all();
        self.changed.wait(state).unwrap()
    }

    /// Has a request answered. None where the connection is of no more use.
    fn pass_on(&self, request: Head, requests: &mut impl Read, mut client: &TcpStream) -> Option<()> {
        let own = self.state().answers.iter().find(|(text, _)| request.target().contains(text)).map(|(_, answer)| answer.clone());
        if let Some(answer) = own {
            let head = Head::answer(answer.status).with("content-type", answer.media_type);
            return respond(&mut client, head, &answer.body, request.method() == "HEAD").then_some(());
        }
        let mut registry = TcpStream::connect(&self.registry).ok()?;
        let (is_head, body) = (request.method() == "HEAD", request.length().unwrap_or(0));
        let target = request.target().to_owned();
        // One connection per request: the end of its answer is the end of the connection.
        registry.write_all(&request.with("connection", "close").bytes()).ok()?;
        std::io::copy(&mut requests.take(body), &mut registry).ok()?;

        let mut answers = BufReader::with_capacity(BUFFER_BYTES, registry);
        let answer = Head::read(&mut answers)?;
        let has_no_body = is_head || matches!(answer.status(), 204 | 304);
        let length = if has_no_body { Some(0) } else { answer.length() };
        // Without a length the body's end is the connection's; with one the client may ask again.
        let answer = if length.is_some() { answer.without("connection") } else { answer.with("connection", "close") };
        self.let_through(&mut answer.bytes().as_slice(), client, |_| {})?;
        let passed = self.let_through(&mut answers.take(length.unwrap_or(u64::MAX)), client, |bytes| {
            let mut state = self.state();
            state.ledger.pass(&target, bytes.len() as u64);
            if state.spoiled.iter().any(|text| target.contains(text)) {
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
            }
        })?;
        (length == Some(passed)).then_some(())
    }

    /// Passes on what comes until its end; how many bytes that were. None where the door is shut or the client is gone.
    fn let_through(&self, from: &mut impl Read, mut to: &TcpStream, note: impl Fn(&mut [u8])) -> Option<u64> {
        let (mut buffer, mut passed) = (vec![0; BUFFER_BYTES], 0);
        loop {
            let read = from.read(&mut buffer).ok()?;
            if read == 0 {
                return Some(passed);
            }
            if !self.may_pass(read) {
                return None;
            }
            // First: whoever has the last byte may look.
            note(&mut buffer[..read]);
            to.write_all(&buffer[..read]).ok()?;
            passed += read as u64;
        }
    }

    /// Whether so many bytes may pass, or this is where they break off; waits where they may not yet.
    fn may_pass(&self, bytes: usize) -> bool {
        let mut state = self.state();
        while !state.obstacles.shut && state.obstacles.allowed_bytes.is_some_and(|allowed| allowed < bytes) {
            state = self.wait(state);
        }
        // Those that the shutting of the door has woken may still lack some.
        state.obstacles.allowed_bytes = state.obstacles.allowed_bytes.map(|allowed| allowed.saturating_sub(bytes));
        if let Some(left) = state.obstacles.breaks_after.front_mut() {
            match left.checked_sub(bytes) {
                Some(less) => *left = less,
                None => {
                    state.obstacles.breaks_after.pop_front();
                    return false;
                }
            }
        }
        !state.obstacles.shut
    }
}
