//! The places of a server's connections: bounded in all and for each client, so that one client cannot take them all.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many connections a server serves at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In all, at least 1.
    pub connections: usize,
    /// Of one client, at least 1.
    pub of_a_client: usize,
}

/// Who is at the other end of a connection: an address, of IPv6 the network of 64 bits that one client usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(pub IpAddr);

impl Client {
    /// The client of a connection from `address`.
    pub fn at(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V6(ip) if !ip.is_loopback() => {
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
            }
            ip => ip,
        })
    }
}

/// Which limit leaves no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// That of all connections.
    All,
    /// That of the client's connections.
    Client,
}

/// The places of a server.
pub struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
    /// Wakes the connection that has been idle longest, so that it closes.
    make_room: Arc<Notify>,
    left: Notify,
}

#[derive(Default)]
struct Taken {
    count: usize,
    by_client: HashMap<Client, Held>,
}

#[derive(Default)]
struct Held {
    count: usize,
    /// Wakes the connection of this client that has been idle longest.
    make_room: Arc<Notify>,
}

/// A place, taken until it is dropped.
pub struct Place {
    places: Arc<Places>,
    client: Client,
    /// Its connection is to close, when it is idle, once one of these wakes it.
    pub make_room: [Arc<Notify>; 2],
}

impl Places {
    /// All free.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        let (make_room, left) = (Arc::default(), Notify::new());
        Arc::new(Self { bounds, taken: Mutex::default(), make_room, left })
    }

    /// Closes the connection that has been idle longest.
    pub fn make_room(&self) {
        wake_longest_idle(&self.make_room);
    }

    /// A place for a connection of `client`; waits up to `limit` for an idle connection to be closed for it, and asks
    /// for that every `pause`.
    ///
    /// # Errors
    /// The limit that was reached.
    pub async fn enter(self: &Arc<Self>, client: Client, limit: Duration, pause: Duration) -> Result<Place, Full> {
        let end = Instant::now() + limit;
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            let full = match self.try_enter(client) {
                Ok(place) => return Ok(place),
                Err(full) => full,
            };
            if Instant::now() >= end {
                return Err(full);
            }
            match full {
                Full::All => self.make_room(),
                Full::Client => {
                    let make_room = self.taken().by_client.get(&client).map(|held| held.make_room.clone());
                    make_room.inspect(|room| wake_longest_idle(room));
                }
            }
            drop(tokio::time::timeout(pause, left).await);
        }
    }

    fn try_enter(self: &Arc<Self>, client: Client) -> Result<Place, Full> {
        let mut taken = self.taken();
        let of_client = taken.by_client.get(&client).map_or(0, |held| held.count);
        if of_client >= self.bounds.of_a_client {
            return Err(Full::Client);
        }
        if taken.count >= self.bounds.connections {
            return Err(Full::All);
        }
        taken.count += 1;
        let held = taken.by_client.entry(client).or_default();
        held.count += 1;
        let make_room = [self.make_room.clone(), held.make_room.clone()];
        Ok(Place { places: self.clone(), client, make_room })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.count -= 1;
        if let Some(held) = taken.by_client.get_mut(&self.client) {
            held.count -= 1;
            if held.count == 0 {
                taken.by_client.remove(&self.client);
            }
        }
        drop(taken);
        self.places.left.notify_waiters();
    }
}

/// Wakes the connection that has waited longest at `room`. If none waits there, nothing is kept for a later one, which
/// would be closed although nobody needs its place any more.
pub fn wake_longest_idle(room: &Notify) {
    room.notify_one();
    let _kept: Option<()> = room.notified().now_or_never();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::at(SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::2:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[test]
    fn no_client_has_more_than_its_share() {
        let places = Places::new(Bounds { connections: 3, of_a_client: 2 });
        let (one, two) = (client("10.0.0.1"), client("10.0.0.2"));
        let first = places.try_enter(one).ok().unwrap();
        let _second = places.try_enter(one).ok().unwrap();
        assert_eq!(places.try_enter(one).err(), Some(Full::Client));
        let _third = places.try_enter(two).ok().unwrap();
        assert_eq!(places.try_enter(two).err(), Some(Full::All));
        drop(first);
        assert!(places.try_enter(two).is_ok());
        assert_eq!(places.taken().count, 2);
    }

    #[tokio::test]
    async fn room_is_made_by_those_who_are_there_and_by_none_who_comes_later() {
        let room = Notify::new();
        let (mut first, mut second) = (pin!(room.notified()), pin!(room.notified()));
        first.as_mut().enable();
        second.as_mut().enable();
        wake_longest_idle(&room);
        assert_eq!(first.now_or_never(), Some(()));
        assert_eq!(second.as_mut().now_or_never(), None);
        wake_longest_idle(&room);
        assert_eq!(second.now_or_never(), Some(()));
        wake_longest_idle(&room);
        assert_eq!(room.notified().now_or_never(), None);
    }
}
