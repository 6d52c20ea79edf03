//! The jobs of schedules. The ticks are computed here, from what was read; the script that submits their jobs does so
//! only if the schedule is as it was read, and moves it on to its next tick in the same step. So each tick is done
//! once, whoever dies, and however many sweep.
use std::time::Duration;

use redis::Value;

use super::Store;
use super::schedules::{Found, TRIES, changing};
use super::submit::{Minted, entry};
use super::wire::reply::{array, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::schedule::{Overlap, Plan};
use crate::{Error, JobId, Kinds, Refusal, Result, ScheduleName, Timestamp, limits};

/// Due schedules that are read at once, and how many times in a row.
const DUE_MAX: usize = 50;
const PARTS_MAX: usize = 40;
/// About the bytes of the jobs that one call submits.
const BYTES_MAX: usize = 4 << 20;

/// What a look at the schedules of a partition did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Jobs that were submitted.
    pub submitted: Vec<JobId>,
    /// Ticks without a job, because the last one had not ended.
    pub skipped: usize,
    /// How long it is until the next tick; `None`: there is none to come.
    pub next_in: Option<Duration>,
}

/// A schedule that is due.
struct Due {
    name: ScheduleName,
    found: Found,
    now: Timestamp,
}

impl Store {
    /// Does the ticks of a partition that are due, with the kinds of this process and those that were published. Safe
    /// to call from anywhere, at any time.
    ///
    /// # Errors
    /// The first error; the ticks of other schedules are done nevertheless. Schedules that cannot be read are left
    /// alone, and logged.
    pub async fn tick(&self, partition: u16, kinds: &Kinds) -> Result<Ticked> {
        let (mut ticked, mut failed, mut left) = (Ticked::default(), None, 0);
        let mut published: Option<Kinds> = None;
        for _ in 0..PARTS_MAX {
            let (is_last, due) = self.due_schedules(partition, &mut left, &mut ticked).await?;
            for due in due {
                if published.is_none() {
                    let theirs = self.published().await?.kinds;
                    published =
                        Some(theirs.map_or_else(|| kinds.clone(), |theirs| kinds.clone().with_published(&theirs)));
                }
                let done = self.do_ticks(partition, &due, published.as_ref().unwrap_or(kinds), &mut ticked).await;
                match done {
                    Ok(true) => {}
                    Ok(false) => left += 1,
                    Err(e) => {
                        left += 1;
                        failed.get_or_insert(e);
                    }
                }
            }
            if is_last {
                break;
            }
        }
        failed.map_or(Ok(ticked), Err)
    }

    /// Does the ticks of one schedule. Returns whether it is not due any more.
    async fn do_ticks(&self, partition: u16, due: &Due, kinds: &Kinds, ticked: &mut Ticked) -> Result<bool> {
        let Due { name, found, now } = due;
        let stored = match &found.stored {
            Ok(stored) => stored,
            Err(e) => {
                tracing::error!("the schedule {name} has no jobs: {e}; write it again, or remove it");
                return Ok(false);
            }
        };
        let Some(first) = stored.standing.next_run_at.filter(|next| *next <= *now) else { return Ok(false) };
        let Ok(ticks) = stored.plan.ticks(stored.anchor) else { return Ok(false) };
        let mut due = ticks.due(first, *now, stored.plan.catch_up);
        if !self.has_room_for(&stored.plan, kinds) {
            let kind = &stored.plan.kind;
            tracing::error!(schedule = %name, "no job: the max_running of {kind} would not hold");
            due.clear();
        }
        let at_once = (BYTES_MAX / stored.plan.payload.as_str().len().max(1)).clamp(1, limits::TICKS_MAX);
        let last = ticks.next(*now);
        let parts: Vec<&[Timestamp]> = if due.is_empty() { vec![&[]] } else { due.chunks(at_once).collect() };
        let mut at = first;
        for (number, part) in parts.iter().enumerate() {
            let next = parts.get(number + 1).map_or(last, |after| after.first().copied());
            let first_partitions = self.sizes().first();
            let job = |tick: &Timestamp| (*tick, keys::tick(name, *tick, first_partitions), true);
            let jobs: Vec<_> = part.iter().map(job).collect();
            let call = Call { tick: at.0.to_string(), next, overlap: stored.plan.overlap, jobs: &jobs };
            let args = self.tick_args(name, &found.revision, &stored.plan, &call, partition, kinds);
            let reply = self.inner.wire.run(&scripts::TICK, partition, &args, Repeat::Safe).await?;
            note(name, &reply, jobs, ticked);
            at = next.unwrap_or(at);
        }
        let next_in = last.map(|next| wait(*now, next));
        ticked.next_in = [ticked.next_in, next_in].into_iter().flatten().min();
        Ok(true)
    }

    /// The next schedules of a partition that are due, and whether they are the last ones. It begins after the `left`
    /// first entries, which could not be done, and counts those that have no valid name; notes the first tick that is
    /// not due.
    async fn due_schedules(&self, partition: u16, left: &mut usize, ticked: &mut Ticked) -> Result<(bool, Vec<Due>)> {
        let (key, begin) = (keys::schedules(partition), *left);
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("ZRANGE").arg(key).arg(begin).arg(begin + DUE_MAX - 1).arg("WITHSCORES");
        let replies = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
        let (now, entries) = (self.time_of(&replies[0]), array(&replies[1]));
        let (mut names, mut is_last) = (Vec::new(), entries.len() < 2 * DUE_MAX);
        for entry in entries.chunks_exact(2) {
            let at = text(&entry[1]).parse::<f64>().unwrap_or(f64::INFINITY);
            if at > now.0 as f64 {
                is_last = true;
                if at.is_finite() {
                    let next_in = wait(now, Timestamp(at as i64));
                    ticked.next_in = Some(ticked.next_in.map_or(next_in, |known| known.min(next_in)));
                }
                break;
            }
            match ScheduleName::parse(&text(&entry[0])) {
                Ok(name) => names.push(name),
                Err(_) => *left += 1,
            }
        }
        if names.is_empty() {
            return Ok((is_last, Vec::new()));
        }
        let (now, found) = self.read_schedules(partition, &names).await?;
        let mut due = Vec::new();
        for (name, found) in names.into_iter().zip(found) {
            match found {
                Some(found) => due.push(Due { name, found, now }),
                // Its hash is gone.
                None => self.unlist_schedule(partition, &name).await?,
            }
        }
        Ok((is_last, due))
    }

    /// Submits a job of a schedule now, besides its ticks and whatever its last job does.
    ///
    /// # Errors
    /// [`Error::Refused`]: none has that name, its kind would be one name too many, or the kind's limit would not hold.
    pub async fn trigger_schedule(&self, name: &ScheduleName, kinds: &Kinds) -> Result<JobId> {
        self.refuse_if_unfit()?;
        let (partition, first) = (self.home_of_schedule(name), self.sizes().first());
        let id = keys::mint(Some(partition), first);
        for _ in 0..TRIES {
            let (now, mut read) = self.read_schedules(partition, std::slice::from_ref(name)).await?;
            let found = read.remove(0).ok_or_else(|| Error::Refused(Refusal::NoSchedule(name.clone())))?;
            let (revision, stored) = (found.revision, found.stored?);
            self.refuse_limited(&stored.plan, kinds)?;
            let jobs = [(now, id.clone(), false)];
            let call = Call { tick: "trigger".to_owned(), next: None, overlap: Overlap::Allow, jobs: &jobs };
            let args = self.tick_args(name, &revision, &stored.plan, &call, partition, kinds);
            let reply = self.inner.wire.run(&scripts::TICK, partition, &args, Repeat::Safe).await?;
            match array(&reply).get(1).map(text).as_deref() {
                // `exists` is this call, repeated after a lost reply.
                Some("created" | "exists") => return Ok(id),
                Some(what @ ("kind" | "queue")) => {
                    let (what, max) = (what.to_owned(), limits::NAMES_MAX);
                    return Err(Error::Refused(Refusal::TooManyNames { what, max }));
                }
                _ => {}
            }
        }
        Err(changing(name))
    }

    /// The arguments of `tick.lua`.
    fn tick_args(
        &self,
        name: &ScheduleName,
        revision: &str,
        plan: &Plan,
        call: &Call<'_>,
        partition: u16,
        kinds: &Kinds,
    ) -> Args {
        let next = call.next.map(|next| next.0.to_string()).unwrap_or_default();
        let args = Args::default().texts([name.as_str(), revision, &call.tick, &next, call.overlap.as_str()]);
        let mut args = args.count(call.jobs.len());
        for (tick, id, own) in call.jobs {
            let (job, placed_by) = (plan.draft().into_job(kinds), self.sizes().first());
            let mut more = vec![("schedule", name.to_string())];
            more.extend(own.then(|| ("scheduled_for", tick.0.to_string())));
            let minted = Minted { id: id.clone(), partition, placed_by, job, past: None };
            args = args.text(tick.0.to_string()).and(&entry(&minted, more));
        }
        args
    }
}

/// A call of `tick.lua`.
struct Call<'a> {
    /// The tick at which the schedule stands, or `trigger`.
    tick: String,
    /// Where it stands afterwards.
    next: Option<Timestamp>,
    overlap: Overlap,
    /// Each a tick, the id of its job, and whether it is one of the schedule's own.
    jobs: &'a [(Timestamp, JobId, bool)],
}

/// Notes what a call has done.
fn note(name: &ScheduleName, reply: &Value, jobs: Vec<(Timestamp, JobId, bool)>, ticked: &mut Ticked) {
    for (word, (tick, id, _)) in array(reply).iter().skip(1).map(text).zip(jobs) {
        match word.as_str() {
            "created" => ticked.submitted.push(id),
            "skipped" => ticked.skipped += 1,
            "kind" | "queue" => tracing::error!(schedule = %name, %tick, "no job: too many names of {word}s"),
            _ => {}
        }
    }
}

fn wait(from: Timestamp, until: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(until.0 - from.0).unwrap_or(0))
}
