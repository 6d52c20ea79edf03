//! Watching jobs: any number of watchers in a process share one subscription and one reader.
//!
//! A message names a job that has changed, and the reader reads it, once for all its watchers. Messages are hints and
//! may be lost, so the reader reads all watched jobs when the subscription is ready, whenever it was restored, and
//! every few seconds. A watcher holds the latest state and has no queue: a slow watcher misses intermediate states
//! only.
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Store;
use super::hints::{Message, listen};
use super::wire::Repeat;
use crate::{Error, Job, JobId, Result, limits};

/// How often watched jobs are read without a hint.
const READ_EVERY: Duration = Duration::from_secs(5);
/// Minimum time between two rounds: a job that changes constantly is read at most 100 times a second.
const PACE: Duration = Duration::from_millis(10);
/// The pause after a round that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// Jobs read and published at once.
const READ: usize = 200;

/// Watches jobs, over one subscription for the whole process.
#[derive(Clone)]
pub struct Watcher(Arc<Shared>);

struct Shared {
    store: Store,
    watched: Mutex<Watched>,
    /// Wakes the reader: there is something to read, or no watcher is left.
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Watched {
    jobs: HashMap<JobId, Entry>,
    watchers: usize,
    /// Jobs to read in the next round.
    stale: HashSet<JobId>,
    /// The number of the last round that was started.
    round: u64,
    /// The error of the last round, if it failed.
    failure: Option<String>,
}

struct Entry {
    watchers: usize,
    seen: watch::Sender<Seen>,
}

/// A job as last read.
struct Seen {
    /// The round that read it; 0 before the first read.
    round: u64,
    /// Incremented by each change other than a renewed lease.
    version: u64,
    job: Read,
}

/// The result of a read.
type Read = Result<Option<Arc<Job>>>;

impl Watcher {
    /// Subscribes and reads in the background, for as long as any handle or watch lives.
    pub fn spawn(store: Store) -> Self {
        let wake = Arc::new(Notify::new());
        let shared = Arc::new(Shared { store: store.clone(), watched: Mutex::default(), wake: wake.clone() });
        let (hearing, reading) = (Arc::downgrade(&shared), Arc::downgrade(&shared));
        tokio::spawn(async move {
            let each = |message: Option<Message>| {
                if let Some(shared) = hearing.upgrade() {
                    shared.hear(message.map(|message| message.payload));
                }
            };
            tokio::select! {
                () = listen(&store, "changes", each) => {}
                () = read_on(&store, &wake, reading) => {}
            }
        });
        Self(shared)
    }

    /// Starts watching a job, which need not exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there are already [`limits::WATCHERS_MAX`] watchers.
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

    /// The number of watchers, waiting and streaming.
    pub fn watchers(&self) -> usize {
        self.0.watched().watchers
    }

    /// Waits until the job has ended or `limit` has passed. Returns the job as it is then; `None` when it does not
    /// exist.
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

/// A watch on a job; dropping it ends the watch.
pub struct Watch {
    id: JobId,
    shared: Arc<Shared>,
    seen: watch::Receiver<Seen>,
    version: u64,
}

impl Watch {
    /// The job, read after this call; `None` when it does not exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Redis is unreachable for longer than `redis.outage_ms`; [`Error::Corrupt`].
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

    /// The job once it differs from what this watch returned last; `None` when it was removed. Waits without a time
    /// limit, also through outages.
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
        let entry = watched.jobs.get_mut(&self.id).expect("a watched job has an entry");
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

    /// Requests a read of the job. Returns the number of the last round that may have been too early.
    fn ask(&self, id: &JobId) -> u64 {
        let mut watched = self.watched();
        watched.stale.insert(id.clone());
        self.wake.notify_one();
        watched.round
    }

    /// Marks the jobs that a message (`<word> <id> …`) reports as changed; without a message, all of them.
    fn hear(&self, message: Option<&str>) {
        let mut watched = self.watched();
        let Watched { jobs, stale, .. } = &mut *watched;
        match message {
            None => stale.extend(jobs.keys().cloned()),
            // Most changed jobs are not watched.
            Some(message) => {
                let told = message.split(' ').skip(1).filter_map(|id| jobs.get_key_value(id));
                stale.extend(told.map(|(id, _)| id.clone()));
            }
        }
        if !stale.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Starts a round: its number, and the jobs to read, grouped by partition.
    fn begin(&self) -> (u64, Vec<JobId>) {
        let mut watched = self.watched();
        watched.round += 1;
        let mut ids: Vec<JobId> = watched.stale.drain().collect();
        ids.sort_by_cached_key(|id| self.store.partition_of(id));
        (watched.round, ids)
    }

    /// Publishes what a round has read.
    fn show(&self, round: u64, ids: &[JobId], jobs: Vec<Result<Option<Job>>>) {
        let mut watched = self.watched();
        watched.failure = None;
        for (id, job) in ids.iter().zip(jobs) {
            let Some(entry) = watched.jobs.get(id) else { continue };
            entry.seen.send_modify(|seen| seen.renew(round, job));
        }
    }

    /// Jobs that a failed round has not read remain to be read.
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

/// Whether only the end of the lease has changed.
fn is_same(old: &Job, new: &mut Job) -> bool {
    let lease = std::mem::replace(&mut new.lease_expires_at, old.lease_expires_at);
    let same = old == new;
    new.lease_expires_at = lease;
    same
}

/// Reads the jobs requested by messages and watchers, and all watched jobs every few seconds, until no watcher is left.
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
                    tracing::debug!("reading watched jobs failed, retrying: {e}");
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
