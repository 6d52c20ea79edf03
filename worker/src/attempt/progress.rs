//! Throttles a job's progress: the first report is written at once, then the latest at most every 500 ms, and no change
//! of the message is lost. Pure: the caller passes the time.
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use leasehold::job::{Progress, cut};
use leasehold::limits;

/// The minimum time between two reports of one job.
pub(crate) const REPORT_EVERY: Duration = Duration::from_millis(500);

/// The progress of one job that has not been written to Redis yet.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    sent_at: Option<Instant>,
    /// One entry per message, oldest first; the last one is updated by new values.
    pending: VecDeque<Progress>,
    /// A call of `take` has been scheduled.
    awaited: bool,
}

impl Throttle {
    /// Records the new values. `Some(when)`: the caller must schedule a [`Throttle::take`] at that time.
    pub fn push(&mut self, now: Instant, percent: Option<f64>, message: Option<&str>) -> Option<Instant> {
        let message = message.map(|message| cut(message, limits::MESSAGE_BYTES_MAX));
        match self.pending.back_mut() {
            Some(last) if message.is_none() || last.message.is_none() || last.message.as_deref() == message => {
                last.percent = percent.or(last.percent);
                last.message = message.map(str::to_owned).or(last.message.take());
            }
            _ => self.pending.push_back(Progress { percent, message: message.map(str::to_owned) }),
        }
        // The job's history is bounded in the same way.
        while self.pending.len() > limits::HISTORY_MAX || self.pending_bytes() > limits::PROGRESS_BYTES_MAX {
            self.pending.pop_front();
        }
        if std::mem::replace(&mut self.awaited, true) {
            return None;
        }
        Some(self.sent_at.map_or(now, |sent| now.max(sent + REPORT_EVERY)))
    }

    fn pending_bytes(&self) -> usize {
        self.pending.iter().filter_map(|progress| progress.message.as_ref()).map(String::len).sum()
    }

    /// All pending entries, oldest first; they count as sent at `now`.
    pub fn take(&mut self, now: Instant) -> Vec<Progress> {
        self.awaited = false;
        if !self.pending.is_empty() {
            self.sent_at = Some(now);
        }
        self.pending.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(throttle: &mut Throttle, now: Instant) -> Vec<(Option<f64>, Option<String>)> {
        throttle.take(now).into_iter().map(|p| (p.percent, p.message)).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_half_a_second_later() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.push(start, Some(1.0), Some("a")), Some(start));
        assert_eq!(taken(&mut throttle, start), [(Some(1.0), Some("a".into()))]);
        let soon = start + Duration::from_millis(10);
        assert_eq!(throttle.push(soon, Some(2.0), Some("a")), Some(start + REPORT_EVERY));
        assert_eq!(throttle.push(soon, Some(3.0), Some("a")), None);
        assert_eq!(taken(&mut throttle, start + REPORT_EVERY), [(Some(3.0), Some("a".into()))]);
        let late = start + Duration::from_secs(9);
        assert_eq!(throttle.push(late, Some(4.0), None), Some(late));
    }

    #[test]
    fn no_change_of_the_message_is_lost() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for (percent, message) in [(1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, "a"), (5.0, "a")] {
            throttle.push(now, Some(percent), Some(message));
        }
        throttle.push(now, Some(6.0), None);
        let message = |m: &str| Some(m.to_owned());
        let all = [(Some(2.0), message("a")), (Some(3.0), message("b")), (Some(6.0), message("a"))];
        assert_eq!(taken(&mut throttle, now), all);
        assert!(taken(&mut throttle, now).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..5_000 {
            throttle.push(now, None, Some(&n.to_string()));
        }
        let kept = taken(&mut throttle, now);
        assert_eq!((kept.len(), kept[kept.len() - 1].1.as_deref()), (limits::HISTORY_MAX, Some("4999")));
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..200 {
            throttle.push(now, None, Some(&n.to_string().repeat(100_000)));
        }
        let kept: Vec<String> = taken(&mut throttle, now).into_iter().filter_map(|(_, message)| message).collect();
        assert!(kept.iter().all(|message| message.len() == limits::MESSAGE_BYTES_MAX));
        assert_eq!(kept.len(), limits::PROGRESS_BYTES_MAX / limits::MESSAGE_BYTES_MAX);
        assert!(kept[kept.len() - 1].starts_with("199199"));
    }
}
