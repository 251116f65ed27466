//! The same work, asked for by several, done once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::task::JoinError;

type Flight<T> = Shared<BoxFuture<'static, Result<T, Arc<JoinError>>>>;

/// What is being worked on, by key.
pub(crate) struct SingleFlight<K, T> {
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
    runtime: tokio::runtime::Handle,
}

impl<K, T> SingleFlight<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Nothing yet. Must be called within a tokio runtime.
    pub(crate) fn new() -> Self {
        Self { flights: Arc::default(), runtime: tokio::runtime::Handle::current() }
    }

    /// Waits for the work on `key`, started by `work` where nobody did. It goes on when everyone who waits for it goes away.
    ///
    /// # Errors
    /// The work panicked.
    pub(crate) async fn join<W>(&self, key: K, work: impl FnOnce() -> W) -> Result<T, Arc<JoinError>>
    where
        W: Future<Output = T> + Send + 'static,
    {
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.start(key.clone(), work());
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn start(&self, key: K, work: impl Future<Output = T> + Send + 'static) -> Flight<T> {
        let landing = Landing { key, flights: Arc::clone(&self.flights) };
        let work = self.runtime.spawn(async move {
            let _landing = landing;
            work.await
        });
        async move { work.await.map_err(Arc::new) }.boxed().shared()
    }
}

/// Takes the work out of the table however it ends.
struct Landing<K: Eq + Hash, T> {
    key: K,
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn the_work_is_done_once_and_outlives_whoever_asked() {
        let (flights, done, go) = (Arc::new(SingleFlight::new()), Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (flights, done, go) = (Arc::clone(&flights), Arc::clone(&done), Arc::clone(&go));
            tokio::spawn(async move {
                let work = move || async move {
                    go.acquire().await.unwrap().forget();
                    done.fetch_add(1, Ordering::Relaxed)
                };
                flights.join("key", work).await.unwrap()
            })
        };
        let (first, second) = (ask(), ask());
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.is_err());
        go.add_permits(1);
        assert_eq!(second.await.unwrap(), 0);
        go.add_permits(1);
        assert_eq!(ask().await.unwrap(), 1, "what has ended is started anew");
    }

    #[tokio::test]
    async fn a_panic_reaches_everyone_and_blocks_nobody() {
        let flights = SingleFlight::<_, ()>::new();
        assert!(flights.join(1, || async { panic!("on purpose") }).await.is_err());
        assert!(flights.join(1, || async {}).await.is_ok());
    }
}
