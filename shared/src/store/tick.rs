//! The jobs of schedules. The ticks are computed here, from what was read; the script that submits their jobs does so
//! only if the schedule is as it was read, and moves it on to its next tick in the same step. So each tick is done
//! once, whoever dies, and however many sweep.
use std::time::Duration;

use super::Store;
use super::schedules::{Stored, TRIES, changing};
use super::submit::{Minted, entry};
use super::wire::reply::{array, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::schedule::Overlap;
use crate::{Error, JobId, Kinds, Refusal, Result, ScheduleName, Timestamp, limits};

/// Due schedules that one look does.
const DUE_MAX: usize = 50;

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

impl Store {
    /// Does the ticks of a partition that are due. Safe to call from anywhere, at any time.
    ///
    /// # Errors
    /// Those of any call; schedules that cannot be read are left alone, and logged.
    pub async fn tick(&self, partition: u16, kinds: &Kinds) -> Result<Ticked> {
        let mut ticked = Ticked::default();
        for (name, stored, now) in self.due_schedules(partition, &mut ticked).await? {
            let Some(first) = stored.standing.next_run_at.filter(|next| *next <= now) else { continue };
            let Ok(ticks) = stored.plan.ticks(stored.anchor) else { continue };
            let due = ticks.due(first, now, stored.plan.catch_up);
            let partitions = self.sizes().first();
            let jobs: Vec<_> = due.into_iter().map(|tick| (tick, keys::tick(&name, tick, partitions), true)).collect();
            let (next, at) = (ticks.next(now), first.0.to_string());
            let args = self.tick_args(&name, &stored, &at, next, stored.plan.overlap, &jobs, partition, kinds);
            let reply = self.inner.wire.run(&scripts::TICK, partition, &args, Repeat::Safe).await?;
            for (word, (tick, id, _)) in array(&reply).iter().skip(1).map(text).zip(jobs) {
                match word.as_str() {
                    "created" => ticked.submitted.push(id),
                    "skipped" => ticked.skipped += 1,
                    "kind" | "queue" => tracing::error!(schedule = %name, %tick, "no job: too many names of {word}s"),
                    _ => {}
                }
            }
            let next_in = next.map(|next| wait(now, next));
            ticked.next_in = [ticked.next_in, next_in].into_iter().flatten().min();
        }
        Ok(ticked)
    }

    /// The schedules of a partition that are due, and the time; notes the first tick that is not.
    async fn due_schedules(
        &self,
        partition: u16,
        ticked: &mut Ticked,
    ) -> Result<Vec<(ScheduleName, Stored, Timestamp)>> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("ZRANGE").arg(keys::schedules(partition)).arg(0).arg(DUE_MAX).arg("WITHSCORES");
        let replies = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
        let now = self.time_of(&replies[0]);
        let mut due = Vec::new();
        for entry in array(&replies[1]).chunks_exact(2) {
            let Ok(name) = ScheduleName::parse(&text(&entry[0])) else { continue };
            let at = text(&entry[1]).parse::<f64>().unwrap_or(f64::INFINITY);
            if at <= now.0 as f64 {
                due.push(name);
            } else if at.is_finite() {
                ticked.next_in.get_or_insert(wait(now, Timestamp(at as i64)));
            }
        }
        let mut found = Vec::new();
        for name in due {
            // One that is damaged keeps no other from its ticks.
            match self.read_schedules(partition, std::slice::from_ref(&name)).await {
                Ok((now, mut read)) => found.extend(read.remove(0).map(|stored| (name, stored, now))),
                Err(e @ Error::Corrupt { .. }) => tracing::error!("{e}"),
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Submits a job of a schedule now, besides its ticks and whatever its last job does.
    ///
    /// # Errors
    /// [`Error::Refused`]: there is none of that name, or its kind would be one name too many.
    pub async fn trigger_schedule(&self, name: &ScheduleName, kinds: &Kinds) -> Result<JobId> {
        self.refuse_if_unfit()?;
        let (partition, first) = (self.home_of_schedule(name), self.sizes().first());
        for _ in 0..TRIES {
            let (now, mut read) = self.read_schedules(partition, std::slice::from_ref(name)).await?;
            let Some(stored) = read.remove(0) else { return Err(Error::Refused(Refusal::NoSchedule(name.clone()))) };
            let id = keys::mint(Some(partition), first);
            let jobs = [(now, id.clone(), false)];
            let args = self.tick_args(name, &stored, "trigger", None, Overlap::Allow, &jobs, partition, kinds);
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

    /// The arguments of `tick.lua`. `jobs`: each a tick, its job's id, and whether it is one of the schedule's own.
    #[expect(clippy::too_many_arguments, reason = "they are the script's")]
    fn tick_args(
        &self,
        name: &ScheduleName,
        stored: &Stored,
        tick: &str,
        next: Option<Timestamp>,
        overlap: Overlap,
        jobs: &[(Timestamp, JobId, bool)],
        partition: u16,
        kinds: &Kinds,
    ) -> Args {
        let next = next.map(|next| next.0.to_string()).unwrap_or_default();
        let args = Args::default().texts([name.as_str(), &stored.revision, tick, &next, overlap.as_str()]);
        let mut args = args.count(jobs.len());
        for (tick, id, own) in jobs {
            let job = stored.plan.draft().into_job(kinds);
            let placed_by = self.sizes().first();
            let mut more = vec![("schedule", name.to_string())];
            more.extend(own.then(|| ("scheduled_for", tick.0.to_string())));
            let minted = Minted { id: id.clone(), partition, placed_by, job, past: None };
            args = args.text(tick.0.to_string()).and(&entry(&minted, more));
        }
        args
    }
}

fn wait(from: Timestamp, until: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(until.0 - from.0).unwrap_or(0))
}
