//! A budget that clients share: so much in all, and so much for each of them.
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use leasehold::server::Client;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Units, such as bytes, that may be held at once.
pub struct Budget {
    most: usize,
    most_each: usize,
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Default)]
struct Held {
    units: usize,
    by_client: HashMap<Client, usize>,
}

/// The budget, or the client's part of it, has no room for what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short;

/// Units that a client holds until this is dropped.
pub struct Share {
    budget: Arc<Budget>,
    client: Client,
    units: usize,
}

impl Budget {
    /// A budget of `most` units, of which one client may hold `most_each`.
    pub fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self { most, most_each, held: Mutex::default(), freed: Notify::new() })
    }

    /// A share of `units`, which may grow.
    ///
    /// # Errors
    /// [`Short`] when there is no room now.
    pub fn take(self: &Arc<Self>, client: Client, units: usize) -> Result<Share, Short> {
        let mut share = Share { budget: self.clone(), client, units: 0 };
        share.grow(units).map(|()| share)
    }

    /// The same, waiting up to `limit` for room.
    ///
    /// # Errors
    /// [`Short`] when there was no room within `limit`.
    pub async fn take_within(self: &Arc<Self>, client: Client, units: usize, limit: Duration) -> Result<Share, Short> {
        let end = Instant::now() + limit;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Ok(share) = self.take(client, units) {
                return Ok(share);
            }
            tokio::time::timeout_at(end, freed).await.map_err(|_| Short)?;
        }
    }

    /// The units that are held.
    pub fn held(&self) -> usize {
        self.lock().units
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// The units it has.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Adds `more` units.
    ///
    /// # Errors
    /// [`Short`] when there is no room; the share stays as it is.
    pub fn grow(&mut self, more: usize) -> Result<(), Short> {
        let mut held = self.budget.lock();
        let of_client = held.by_client.get(&self.client).copied().unwrap_or(0);
        if more > self.budget.most.saturating_sub(held.units) || more > self.budget.most_each.saturating_sub(of_client)
        {
            return Err(Short);
        }
        held.units += more;
        held.by_client.insert(self.client, of_client + more);
        self.units += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.units == 0 {
            // It was refused: whoever waits would be woken, be refused, and wake the others without end.
            return;
        }
        let mut held = self.budget.lock();
        held.units -= self.units;
        if let Some(of_client) = held.by_client.get_mut(&self.client) {
            *of_client -= self.units;
            if *of_client == 0 {
                held.by_client.remove(&self.client);
            }
        }
        drop(held);
        self.budget.freed.notify_waiters();
    }
}

/// Bytes that hold their share until they have been written to the client.
pub fn held(bytes: Vec<u8>, share: Option<Share>) -> Bytes {
    struct Holding {
        bytes: Vec<u8>,
        _share: Option<Share>,
    }
    impl AsRef<[u8]> for Holding {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Holding { bytes, _share: share })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client(std::net::IpAddr::from([10, 0, 0, last]))
    }

    #[tokio::test]
    async fn one_client_never_holds_all_of_it() {
        let budget = Budget::new(10, 6);
        let mut first = budget.take(client(1), 4).ok().unwrap();
        assert!(first.grow(3).is_err() && first.units() == 4, "beyond its own part");
        assert!(first.grow(2).is_ok());
        assert!(budget.take(client(1), 1).is_err());
        let second = budget.take(client(2), 4).ok().unwrap();
        assert!(budget.take(client(3), 1).is_err(), "beyond the whole");
        assert_eq!(budget.held(), 10);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take_within(client(3), 4, Duration::from_secs(20)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(second);
        assert!(waiting.await.unwrap());
        assert!(budget.take_within(client(1), 1, Duration::from_millis(1)).await.is_err());
        drop(first);
        assert_eq!(budget.held(), 0);
        assert!(budget.lock().by_client.is_empty());
    }
}
