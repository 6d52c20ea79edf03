//! Wrong tokens, by client: whoever sends many is answered slowly, then not at all for a while. A right token from the
//! same address is not affected.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use leasehold::log::Seldom;
use leasehold::server::Client;
use tokio::time::Instant;

/// The time that each wrong token costs, so that there are 10 a second in the long run.
const EACH: Duration = Duration::from_millis(100);
/// The cost up to which answers are not delayed: 20 wrong tokens at once.
const FREE: Duration = Duration::from_secs(2);
/// The longest delay of an answer.
const DELAY_MAX: Duration = Duration::from_secs(2);
/// Clients that are remembered.
const CLIENTS_MAX: usize = 10_000;

/// The wrong tokens of late.
#[derive(Default)]
pub struct WrongTokens {
    /// When each client will have paid for its wrong tokens.
    paid_at: Mutex<HashMap<Client, Instant>>,
    seldom: Seldom,
}

impl WrongTokens {
    /// Notes a wrong token and logs, once in a while, how many there were. Returns how long to wait before it is
    /// answered; `None` when the client has sent too many to be answered at all.
    pub fn note(&self, client: Client) -> Option<Duration> {
        if let Some(count) = self.seldom.due() {
            let client = client.0;
            tracing::warn!(%client, count, "requests had wrong tokens; the client of the last is named");
        }
        self.delay(client, Instant::now())
    }

    fn delay(&self, client: Client, now: Instant) -> Option<Duration> {
        let mut all = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CLIENTS_MAX && !all.contains_key(&client) {
            all.retain(|_, paid_at| *paid_at > now);
            if all.len() >= CLIENTS_MAX {
                all.clear();
            }
        }
        let paid_at = all.entry(client).or_insert(now);
        let next = now.max(*paid_at) + EACH;
        let ahead = next - now;
        if ahead > FREE + DELAY_MAX {
            return None;
        }
        *paid_at = next;
        Some(ahead.saturating_sub(FREE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wrong_tokens_are_answered_slowly_then_not_at_all() {
        let (wrong, now) = (WrongTokens::default(), Instant::now());
        let [one, two] = [1, 2].map(|last| Client(std::net::IpAddr::from([10, 0, 0, last])));
        let delays: Vec<_> = (0..50).map(|_| wrong.delay(one, now)).collect();
        assert!(delays[..20].iter().all(|delay| *delay == Some(Duration::ZERO)), "{delays:?}");
        assert_eq!((delays[20], delays[39]), (Some(EACH), Some(DELAY_MAX)));
        assert!(delays[40..].iter().all(Option::is_none));
        assert_eq!(wrong.delay(two, now), Some(Duration::ZERO));
        assert_eq!(wrong.delay(one, now + Duration::from_secs(10)), Some(Duration::ZERO));
    }
}
