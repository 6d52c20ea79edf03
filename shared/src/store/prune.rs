//! Prune: removes ended jobs, in the sweep by age and number, manually by an operator's criteria.
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use super::{Store, by_partition};
use crate::{JobId, Kind, Result, State, limits};

/// The ended jobs to remove: those that match all given criteria. Items are removed with their batch only.
#[derive(Debug, Clone, Default)]
pub struct PruneQuery {
    /// Only in this state; a state that is not final matches nothing.
    pub state: Option<State>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only jobs that ended longer ago than this, ms.
    pub older_than_ms: Option<u64>,
    /// Keep the newest N of each kind (in `state`, if given).
    pub keep: Option<u64>,
    /// Of each kind (in `state`, if that is given), only those beyond the newest whose payloads, results, checkpoints
    /// and errors, with those of their items, come to so many bytes in all.
    pub bytes_max: Option<u64>,
    /// Only count; remove nothing.
    pub dry_run: bool,
    /// The time limit; `None`: no limit.
    pub within: Option<Duration>,
}

/// The result of a prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Removed jobs; a batch counts once, and its items are removed by the sweep.
    pub deleted: u64,
    /// Matching jobs.
    pub matching: u64,
    /// The time limit was reached before all jobs were examined: call again.
    pub more: bool,
}

/// An ended job as a prune sees it.
struct Ended {
    id: String,
    partition: u16,
    /// As Redis prints it: the cursor.
    score: String,
    state: Option<State>,
    items: u64,
    bytes: u64,
}

/// The jobs of a kind kept so far.
#[derive(Default)]
struct Kept {
    jobs: u64,
    bytes: u64,
}

impl Store {
    /// Removes ended jobs, newest first, in bounded steps. Safe to run concurrently and to repeat.
    ///
    /// # Errors
    /// Those of any call; [`crate::Error::OutcomeUnknown`] when some may have been removed.
    pub async fn prune(&self, query: &PruneQuery) -> Result<Pruned> {
        let end = query.within.map(|within| Instant::now() + within);
        let kinds = match &query.kind {
            Some(kind) => vec![kind.clone()],
            None => self.names("kinds").await?.iter().filter_map(|name| Kind::parse(name).ok()).collect(),
        };
        let mut pruned = Pruned::default();
        for kind in &kinds {
            let walked = self.prune_kind(kind, query, end, &mut pruned).await;
            if !walked.map_err(|e| if pruned.deleted > 0 { e.after_a_change() } else { e })? {
                pruned.more = true;
                break;
            }
        }
        Ok(pruned)
    }

    /// Prunes one kind; `false` when the time limit was reached.
    async fn prune_kind(
        &self,
        kind: &Kind,
        query: &PruneQuery,
        end: Option<Instant>,
        pruned: &mut Pruned,
    ) -> Result<bool> {
        let (mut kept, mut cursor, mut cutoff) = (Kept::default(), None, None);
        loop {
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(false);
            }
            let (now, page) = self.finished(kind, query, cursor.as_ref()).await?;
            let Some(last) = page.last() else { return Ok(true) };
            cursor = Some((last.score.clone(), last.id.clone()));
            let oldest = query.older_than_ms.and_then(|ms| i64::try_from(ms).ok());
            let cutoff = *cutoff.get_or_insert(oldest.map_or(i64::MAX, |ms| now - ms));
            let mut going = Vec::new();
            for ended in page {
                if query.state.is_some() && query.state != ended.state {
                    continue;
                }
                let beyond = self.is_beyond(query, &ended, &mut kept).await?;
                if beyond && ended.score.parse::<f64>().is_ok_and(|at| (at as i64) < cutoff) {
                    going.push(ended);
                }
            }
            pruned.matching += going.len() as u64;
            if !query.dry_run {
                pruned.deleted += self.remove_ended(kind, &going).await?;
            }
        }
    }

    /// Whether the next older job exceeds `keep` or `bytes_max`.
    async fn is_beyond(&self, query: &PruneQuery, ended: &Ended, kept: &mut Kept) -> Result<bool> {
        kept.jobs += 1;
        let beyond_keep = query.keep.is_none_or(|keep| kept.jobs > keep);
        let Some(bytes_max) = query.bytes_max else { return Ok(beyond_keep) };
        // Beyond the limit no more sizes are needed.
        if kept.bytes <= bytes_max {
            kept.bytes += ended.bytes + self.weigh_items(ended).await?;
        }
        Ok(beyond_keep && kept.bytes > bytes_max)
    }

    async fn weigh_items(&self, ended: &Ended) -> Result<u64> {
        let Ok(parent) = JobId::parse(&ended.id) else { return Ok(0) };
        let (partition, mut bytes, mut number_of_first) = (ended.partition, 0, 0);
        while number_of_first < ended.items {
            let to = ended.items.min(number_of_first + limits::PRUNE_BATCH as u64);
            let mut pipeline = redis::pipe();
            for item in self.item_ids(&parent, partition, number_of_first..to) {
                let key = keys::job(partition, &item);
                for field in ["payload", "result", "checkpoint", "error"] {
                    pipeline.cmd("HSTRLEN").arg(&key).arg(field);
                }
            }
            let lengths = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
            bytes += lengths.iter().filter_map(number).filter_map(|n| u64::try_from(n).ok()).sum::<u64>();
            number_of_first = to;
        }
        Ok(bytes)
    }

    /// The next ended jobs of a kind over all partitions, newest first, and Redis's time.
    async fn finished(
        &self,
        kind: &Kind,
        query: &PruneQuery,
        after: Option<&(String, String)>,
    ) -> Result<(i64, Vec<Ended>)> {
        let (score, id) = after.map_or(("", ""), |(score, id)| (score, id));
        // Kept jobs are counted from the newest on, so the scan starts there.
        let ago = query.older_than_ms.filter(|_| query.keep.is_none() && query.bytes_max.is_none());
        let ago = ago.map(|ms| ms.to_string()).unwrap_or_default();
        let state = query.state.map_or("", State::as_str);
        let args = Args::default().texts([kind.as_str(), state, score, id]).count(limits::PRUNE_BATCH).text(ago);
        let (mut now, mut page) = (0, Vec::new());
        for partition in 0..self.partitions() {
            let reply = self.inner.wire.run(&scripts::FINISHED, partition, &args, Repeat::Safe).await?;
            now = array(&reply).first().and_then(number).unwrap_or(0);
            page.extend(array(&reply).iter().skip(1).map(|entry| ended(partition, array(entry))));
        }
        if self.partitions() > 1 {
            sort_by_end(&mut page);
            page.reverse();
            page.truncate(limits::PRUNE_BATCH);
        }
        Ok((now, page))
    }

    /// Removes ended jobs of a kind. Returns how many are removed now.
    async fn remove_ended(&self, kind: &Kind, jobs: &[Ended]) -> Result<u64> {
        let mut removed = 0;
        for (partition, share) in by_partition(jobs, |_, ended| ended.partition) {
            for chunk in share.chunks(limits::SWEEP_BATCH) {
                let ids = chunk.iter().map(|(_, ended)| &ended.id);
                let args = Args::default().count(0).text(kind.as_str()).texts(ids);
                let reply = self.inner.wire.run(&scripts::REMOVE, partition, &args, Repeat::Safe).await?;
                // A missing job existed just before: it was removed by the first attempt of this call, or by another
                // prune.
                let gone = |word: &String| matches!(word.as_str(), "removed" | "removing" | "missing");
                removed += self.discard(&reply).await.iter().map(text).filter(gone).count() as u64;
            }
        }
        Ok(removed)
    }

    /// Removes the oldest ended jobs of a kind beyond the newest `keep`, over all partitions. Returns how many.
    ///
    /// # Errors
    /// Those of any call.
    pub(super) async fn prune_beyond(&self, kind: &Kind, keep: u64) -> Result<usize> {
        let excess = |total: u64| usize::try_from(total.saturating_sub(keep)).unwrap_or(usize::MAX);
        let mut pruned = 0;
        for _ in 0..limits::SWEEP_STEPS {
            // Usually nothing is over, and the counts say so.
            let most = excess(self.count_finished(kind).await?).min(limits::SWEEP_BATCH);
            if most == 0 {
                break;
            }
            let range = |key: String| redis::cmd("ZRANGE").arg(key).arg(0).arg(most - 1).arg("WITHSCORES").to_owned();
            let commands = self.of_finished(kind, range);
            let pages = self.inner.wire.pipe_each_leniently(&commands).await?;
            // Counted after they were read: what another sweep removes in between makes the excess less, never more.
            let excess = excess(self.count_finished(kind).await?).min(most);
            if excess == 0 {
                break;
            }
            let mut oldest: Vec<Ended> = Vec::new();
            for ((home, _), page) in commands.iter().zip(&pages) {
                let Home::Partition(partition) = home else { continue };
                oldest.extend(array(page).chunks_exact(2).map(|entry| ended(*partition, entry)));
            }
            sort_by_end(&mut oldest);
            oldest.truncate(excess);
            self.remove_ended(kind, &oldest).await?;
            pruned += oldest.len();
            if excess < limits::SWEEP_BATCH {
                break;
            }
        }
        Ok(pruned)
    }
}

impl Store {
    /// A command for each key, over all partitions, that has ended jobs of a kind, items excluded.
    fn of_finished(&self, kind: &Kind, command: impl Fn(String) -> redis::Cmd) -> Vec<(Home, redis::Cmd)> {
        let mut commands = Vec::new();
        for partition in 0..self.partitions() {
            for place in ["finished", "imported"] {
                for state in State::ALL.into_iter().filter(|state| state.is_final()) {
                    let key = keys::fixed(partition, &keys::ended_suffix(place, kind, state));
                    commands.push((Home::Partition(partition), command(key)));
                }
            }
        }
        commands
    }

    /// The ended jobs of a kind over all partitions, items excluded.
    async fn count_finished(&self, kind: &Kind) -> Result<u64> {
        let commands = self.of_finished(kind, |key| redis::cmd("ZCARD").arg(key).to_owned());
        let counts = self.inner.wire.pipe_each_leniently(&commands).await?;
        Ok(counts.iter().filter_map(number).filter_map(|n| u64::try_from(n).ok()).sum())
    }
}

fn sort_by_end(page: &mut [Ended]) {
    let end = |e: &Ended| e.score.parse::<f64>().unwrap_or(0.0);
    page.sort_by(|a, b| end(a).total_cmp(&end(b)).then_with(|| a.id.cmp(&b.id)));
}

/// An entry of `finished.lua`, or an id and its score.
fn ended(partition: u16, entry: &[Value]) -> Ended {
    let word = |at: usize| entry.get(at).map(text).unwrap_or_default();
    let count = |at: usize| word(at).parse().unwrap_or(0);
    Ended { id: word(0), partition, score: word(1), state: State::parse(&word(2)), items: count(3), bytes: count(4) }
}
