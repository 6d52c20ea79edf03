//! Watching jobs: any number of watchers in a process, one subscription, and one reader for all of them.
//!
//! A message says that a job has changed, and the reader reads it, once for all who watch it. Messages are hints and may be
//! lost: the reader reads whatever is watched when the subscription is ready, again whenever it was restored, and every few
//! seconds. A watcher has the latest state and no queue, so one that is slow misses states in between and nothing else.
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Store;
use super::hints::listen;
use super::wire::Repeat;
use crate::{Error, Job, JobId, Result, limits};

/// How often what is watched is read without a hint.
const READ_EVERY: Duration = Duration::from_secs(5);
/// The least time between two rounds of reading, so that a job that changes all the time is read 100 times a second.
const PACE: Duration = Duration::from_millis(10);
/// The pause after a round that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// Jobs read, and handed on, at once.
const READ: usize = 200;

/// Watches jobs, over one subscription for the whole process.
#[derive(Clone)]
pub struct Watcher(Arc<Shared>);

struct Shared {
    store: Store,
    watched: Mutex<Watched>,
    /// There is something to read, or nobody left to read for.
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Watched {
    jobs: HashMap<JobId, Entry>,
    watchers: usize,
    /// What is to be read in the next round.
    stale: HashSet<JobId>,
    /// The number of the last round that began.
    round: u64,
    /// Why the last round failed.
    failure: Option<String>,
}

struct Entry {
    watchers: usize,
    seen: watch::Sender<Seen>,
}

/// A job as it was read last.
struct Seen {
    /// The round that read it; 0 when none has.
    round: u64,
    /// Grows with each change, a renewed lease aside.
    version: u64,
    job: Read,
}

/// What a read brought.
type Read = Result<Option<Arc<Job>>>;

impl Watcher {
    /// Subscribes and reads in the background, for as long as any handle or watch lives.
    pub fn spawn(store: Store) -> Self {
        let wake = Arc::new(Notify::new());
        let shared = Arc::new(Shared { store: store.clone(), watched: Mutex::default(), wake: wake.clone() });
        let (hearing, reading) = (Arc::downgrade(&shared), Arc::downgrade(&shared));
        tokio::spawn(async move {
            let each = |message: Option<&str>| {
                if let Some(shared) = hearing.upgrade() {
                    shared.hear(message);
                }
            };
            tokio::select! {
                () = listen(&store, "changes", each) => {}
                () = read_on(&store, &wake, reading) => {}
            }
        });
        Self(shared)
    }

    /// Begins to watch a job, which need not exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when [`limits::WATCHERS_MAX`] watch already.
    pub fn watch(&self, id: &JobId) -> Result<Watch> {
        let mut watched = self.0.watched();
        if watched.watchers >= limits::WATCHERS_MAX {
            return Err(Error::Unavailable("too many requests wait for jobs; poll instead".into()));
        }
        watched.watchers += 1;
        let unread = || Seen { round: 0, version: 0, job: Ok(None) };
        let entry = watched.jobs.entry(id.clone());
        let entry = entry.or_insert_with(|| Entry { watchers: 0, seen: watch::Sender::new(unread()) });
        entry.watchers += 1;
        Ok(Watch { id: id.clone(), shared: self.0.clone(), seen: entry.seen.subscribe(), version: 0 })
    }

    /// How many watch: those that wait and those that stream.
    pub fn watchers(&self) -> usize {
        self.0.watched().watchers
    }

    /// Waits until the job has ended or `limit` has passed; the job as it is then, `None` when there is none.
    ///
    /// # Errors
    /// [`Watcher::watch`]'s and [`Watch::read`]'s.
    pub async fn wait_for_end(&self, id: &JobId, limit: Duration) -> Result<Option<Job>> {
        let end = Instant::now() + limit;
        let mut watch = self.watch(id)?;
        let mut job = watch.read().await?;
        while Instant::now() < end && job.as_ref().is_some_and(|job| !job.state.is_final()) {
            job = match tokio::time::timeout_at(end, watch.changed()).await {
                Ok(changed) => changed?,
                Err(_) => watch.read().await?,
            };
        }
        Ok(job.map(Arc::unwrap_or_clone))
    }
}

/// One who watches a job; dropping it ends that.
pub struct Watch {
    id: JobId,
    shared: Arc<Shared>,
    seen: watch::Receiver<Seen>,
    version: u64,
}

impl Watch {
    /// The job, read after this was called; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Redis is away for longer than `redis.outage_ms`; [`Error::Corrupt`].
    pub async fn read(&mut self) -> Read {
        let round = self.shared.ask(&self.id);
        let newer = self.seen.wait_for(|seen| seen.round > round);
        let Ok(seen) = tokio::time::timeout(self.shared.store.inner.wire.outage(), newer).await else {
            let failure = self.shared.watched().failure.clone();
            return Err(Error::Unavailable(failure.unwrap_or_else(|| "reading took too long".into())));
        };
        let seen = seen.expect("a watched job keeps its sender");
        self.version = seen.version;
        seen.job.clone()
    }

    /// The job once it differs from what this watch returned last; `None` when it is gone. Waits as long as that takes,
    /// over outages too.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub async fn changed(&mut self) -> Read {
        let known = self.version;
        let seen = self.seen.wait_for(|seen| seen.version != known).await.expect("a watched job keeps its sender");
        self.version = seen.version;
        seen.job.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.shared.watched();
        watched.watchers -= 1;
        let entry = watched.jobs.get_mut(&self.id).expect("who watches has an entry");
        entry.watchers -= 1;
        if entry.watchers == 0 {
            watched.jobs.remove(&self.id);
            watched.stale.remove(&self.id);
        }
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().expect("lock not poisoned")
    }

    /// Has the job read; the number of the last round that may have been too early.
    fn ask(&self, id: &JobId) -> u64 {
        let mut watched = self.watched();
        watched.stale.insert(id.clone());
        self.wake.notify_one();
        watched.round
    }

    /// Notes what a message (`<word> <id> …`) says has changed; without one, anything may have.
    fn hear(&self, message: Option<&str>) {
        let mut watched = self.watched();
        let Watched { jobs, stale, .. } = &mut *watched;
        match message {
            None => stale.extend(jobs.keys().cloned()),
            // Most of what changes nobody watches.
            Some(message) => {
                let told = message.split(' ').skip(1).filter_map(|id| jobs.get_key_value(id));
                stale.extend(told.map(|(id, _)| id.clone()));
            }
        }
        if !stale.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Begins a round: its number, and what it is to read, a partition's together.
    fn begin(&self) -> (u64, Vec<JobId>) {
        let mut watched = self.watched();
        watched.round += 1;
        let mut ids: Vec<JobId> = watched.stale.drain().collect();
        ids.sort_by_cached_key(|id| self.store.partition_of(id));
        (watched.round, ids)
    }

    /// Hands on what a round has read.
    fn show(&self, round: u64, ids: &[JobId], jobs: Vec<Result<Option<Job>>>) {
        let mut watched = self.watched();
        watched.failure = None;
        for (id, job) in ids.iter().zip(jobs) {
            let Some(entry) = watched.jobs.get(id) else { continue };
            entry.seen.send_modify(|seen| seen.renew(round, job));
        }
    }

    /// What a failed round has not read stays to be read.
    fn fail(&self, ids: &[JobId], error: &Error) {
        let mut watched = self.watched();
        watched.failure = Some(error.to_string());
        for id in ids {
            if watched.jobs.contains_key(id) {
                watched.stale.insert(id.clone());
            }
        }
        self.wake.notify_one();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Seen {
    fn renew(&mut self, round: u64, mut job: Result<Option<Job>>) {
        let same = match (&self.job, &mut job) {
            (Ok(Some(old)), Ok(Some(new))) => is_same(old, new),
            (Ok(None), Ok(None)) => true,
            (Err(old), Err(new)) => old == new,
            _ => false,
        };
        if !same || self.round == 0 {
            self.version += 1;
        }
        self.round = round;
        self.job = job.map(|job| job.map(Arc::new));
    }
}

/// Whether nothing but the lease's end has changed.
fn is_same(old: &Job, new: &mut Job) -> bool {
    let lease = std::mem::replace(&mut new.lease_expires_at, old.lease_expires_at);
    let same = old == new;
    new.lease_expires_at = lease;
    same
}

/// Reads what messages and watchers ask for, and all that is watched every few seconds, until nobody is left to watch.
async fn read_on(store: &Store, wake: &Notify, shared: Weak<Shared>) {
    let mut all_at = Instant::now() + READ_EVERY;
    loop {
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep_until(all_at) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        if Instant::now() >= all_at {
            all_at = Instant::now() + READ_EVERY;
            shared.hear(None);
        }
        let (round, ids) = shared.begin();
        let mut pause = PACE;
        for (at, part) in ids.chunks(READ).enumerate() {
            match store.read_many(part, Repeat::Never).await {
                Ok(jobs) => shared.show(round, part, jobs),
                Err(e) => {
                    tracing::debug!("watched jobs are read again: {e}");
                    shared.fail(&ids[at * READ..], &e);
                    pause = PAUSE;
                    break;
                }
            }
        }
        drop(shared);
        tokio::time::sleep(pause).await;
    }
}
