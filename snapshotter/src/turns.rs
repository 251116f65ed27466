//! One at a time, per name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Locks that exist while somebody holds or waits for them.
#[derive(Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<String, Lock>>>);

/// Dropping it lets the next one have its turn.
pub(crate) struct Turn {
    turns: Arc<Mutex<HashMap<String, Lock>>>,
    name: String,
    lock: Lock,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody else has `name`. The future may be dropped at any time.
    pub(crate) async fn wait(&self, name: &str) -> Turn {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(name.to_owned()).or_default().clone()
        };
        // Made before the waiting, so that giving up cleans up as well.
        let mut turn = Turn { turns: self.0.clone(), name: name.to_owned(), lock: lock.clone(), guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // One reference is the map's, one is ours; new ones are made under the map's lock only.
        if Arc::strong_count(&self.lock) == 2 {
            locks.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_nothing_is_left() {
        let turns = Turns::default();
        let first = turns.wait("a").await;
        let other = turns.wait("b").await;
        let mut second = pin!(turns.wait("a"));
        assert!(poll(second.as_mut()).is_pending());
        let mut third = Box::pin(turns.wait("a"));
        assert!(poll(third.as_mut()).is_pending());
        drop(third);
        drop(first);
        let Poll::Ready(second) = poll(second.as_mut()) else { panic!("the turn did not pass on") };
        drop((second, other));
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
