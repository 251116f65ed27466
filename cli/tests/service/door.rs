//! A door to the registry, which can be shut, or let through only so much.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

const BUFFER_BYTES: usize = 64 * 1024;

pub(crate) struct Door {
    /// `HOST:PORT`, by which the registry is called.
    pub(crate) address: String,
    way: Arc<Way>,
}

#[derive(Default)]
struct Way {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shut: bool,
    /// Bytes that may still pass from the registry before everything waits.
    allowed_bytes: Option<usize>,
    /// Someone waits.
    holding: bool,
}

impl Door {
    pub(crate) fn to(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (way, target) = (Arc::<Way>::default(), registry.to_owned());
        let door = Self { address, way: Arc::clone(&way) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if way.state().shut {
                    continue;
                }
                let server = TcpStream::connect(&target).unwrap();
                let (asks, answers) = (Arc::clone(&way), Arc::clone(&way));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pump(from, to, |_| !asks.state().shut));
                std::thread::spawn(move || pump(server, client, |bytes| answers.pass(bytes)));
            }
        });
        door
    }

    /// Nothing passes any more: connections break, new ones are refused.
    pub(crate) fn shut(&self) {
        self.way.change(|state| state.shut = true);
    }

    pub(crate) fn open(&self) {
        self.way.change(|state| *state = State::default());
    }

    /// Answers stop after so many more bytes, until `open`.
    pub(crate) fn hold_after(&self, bytes: usize) {
        self.way.change(|state| state.allowed_bytes = Some(bytes));
    }

    /// Waits until an answer waits.
    pub(crate) fn wait_holding(&self) {
        drop(self.way.changed.wait_while(self.way.state(), |state| !state.holding).unwrap());
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

    /// Whether so many bytes may pass; waits where they may not yet.
    fn pass(&self, bytes: usize) -> bool {
        let mut state = self.state();
        while !state.shut && state.allowed_bytes.is_some_and(|allowed| allowed < bytes) {
            state.holding = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap();
        }
        state.allowed_bytes = state.allowed_bytes.map(|allowed| allowed - bytes);
        !state.shut
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, may_pass: impl Fn(usize) -> bool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(read) = from.read(&mut buffer)
        && read > 0
        && may_pass(read)
        && to.write_all(&buffer[..read]).is_ok()
    {}
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
