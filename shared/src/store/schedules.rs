//! Schedules: written by clients and by the kinds file, and done by whoever sweeps.
//!
//! A schedule is a hash in the partition of its name, where its jobs are too. Its ticks are computed here, from what
//! was read; the script that submits their jobs does so only if the schedule is as it was read, and moves it on to its
//! next tick in the same step. So each tick is done once, whoever dies, and however many sweep.
use std::collections::HashMap;
use std::time::Duration;

use redis::Value;

use super::Store;
use super::submit::{Minted, entry};
use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::schedule::{DeclaredIn, Overlap, Plan, Standing};
use crate::{Error, JobId, Kinds, Refusal, Result, Schedule, ScheduleName, Timestamp, limits};

/// How often a change is tried while others change the same schedule.
const TRIES: usize = 10;
/// Next ticks that are shown.
const SHOWN: usize = 5;
/// Schedules that one call reads.
const READ_MAX: usize = 100;
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

/// A schedule as it is stored.
struct Stored {
    plan: Plan,
    /// Changes with each write, but not with a tick.
    revision: String,
    anchor: Timestamp,
    standing: Standing,
}

impl Stored {
    /// `None`: there is none.
    fn read(fields: &Value, now: Timestamp) -> Result<Option<Self>, String> {
        let fields: HashMap<String, String> =
            array(fields).chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        if fields.is_empty() {
            return Ok(None);
        }
        let field = |name: &str| fields.get(name).map(String::as_str);
        let time = |name: &str| field(name).and_then(|ms| ms.parse().ok()).map(Timestamp);
        let need = |name: &str| time(name).ok_or_else(|| format!("field {name} is missing"));
        let plan: Plan = serde_json::from_str(field("plan").unwrap_or_default()).map_err(|e| format!("plan: {e}"))?;
        let (anchor, paused, next) = (need("anchor")?, field("paused") == Some("1"), time("next"));
        let ticks = plan.ticks(anchor).map_err(|e| e.to_string())?;
        let first = next.filter(|_| !paused);
        let next_runs = std::iter::successors(first, |tick| ticks.next((*tick).max(now))).take(SHOWN).collect();
        let standing = Standing {
            paused,
            declared_in: if field("by") == Some(DeclaredIn::File.as_str()) {
                DeclaredIn::File
            } else {
                DeclaredIn::Api
            },
            created_at: need("created_at")?,
            updated_at: need("updated_at")?,
            next_run_at: first,
            next_runs,
            last_run_at: time("last_run_at"),
            last_job: field("last_job").and_then(|id| JobId::parse(id).ok()),
            last_skipped_at: time("last_skipped_at"),
        };
        Ok(Some(Self { plan, revision: field("revision").unwrap_or_default().to_owned(), anchor, standing }))
    }
}

impl Store {
    /// The partition of a schedule and of its jobs: by the first number of partitions, so that it stays there.
    fn home_of_schedule(&self, name: &ScheduleName) -> u16 {
        keys::partition_of(name.as_str(), self.sizes().first())
    }

    /// All schedules, by name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when one cannot be read; those of any call.
    pub async fn schedules(&self) -> Result<Vec<Schedule>> {
        let mut all = Vec::new();
        for partition in 0..self.sizes().first() {
            let mut pipeline = redis::pipe();
            pipeline.cmd("ZRANGE").arg(keys::schedules(partition)).arg(0).arg(-1);
            let names = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
            let names: Vec<_> = array(&names[0]).iter().filter_map(|v| ScheduleName::parse(&text(v)).ok()).collect();
            for part in names.chunks(READ_MAX) {
                let read = self.read_schedules(partition, part).await?;
                let found = part.iter().zip(read.1).filter_map(|(name, stored)| Some(shown(name, stored?)));
                all.extend(found);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// One schedule.
    ///
    /// # Errors
    /// As [`Store::schedules`].
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>> {
        let (_, mut read) = self.read_schedules(self.home_of_schedule(name), std::slice::from_ref(name)).await?;
        Ok(read.remove(0).map(|stored| shown(name, stored)))
    }

    /// Writes a schedule, and says whether it is a new one. It has its ticks from now on; with those that it had
    /// before, a tick that is just due is kept.
    ///
    /// # Errors
    /// [`Error::Refused`]: a file declares it and this is a request, its plan has no tick to come, or there are too
    /// many.
    pub async fn put_schedule(
        &self,
        name: &ScheduleName,
        plan: &Plan,
        paused: bool,
        by: DeclaredIn,
    ) -> Result<(Schedule, bool)> {
        let mut created = false;
        self.refuse_if_unfit()?;
        let written = self.change_schedule(name, by, |before, now| {
            created |= before.is_none();
            let same = before.filter(|before| before.plan.has_the_ticks_of(plan));
            let anchor = same.map_or(now, |before| before.anchor);
            let ticks = plan.ticks_after(anchor, now).map_err(Refusal::Timing)?;
            let kept = same.filter(|before| !before.standing.paused && !paused);
            let next = kept.map_or_else(|| ticks.next(now), |before| before.standing.next_run_at).filter(|_| !paused);
            Ok(Some(Write { plan: plan.clone(), paused, anchor, next }))
        });
        written.await?;
        let schedule = self.schedule(name).await.map_err(Error::after_a_change)?;
        Ok((schedule.ok_or_else(|| Error::Refused(Refusal::NoSchedule(name.clone())))?, created))
    }

    /// Pauses or resumes a schedule. A tick that passes meanwhile has no job.
    ///
    /// # Errors
    /// [`Error::Refused`]: there is none of that name, or a file declares it.
    pub async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Schedule> {
        let written = self.change_schedule(name, DeclaredIn::Api, |before, now| {
            let before = before.ok_or_else(|| Refusal::NoSchedule(name.clone()))?;
            let ticks = before.plan.ticks(before.anchor).map_err(Refusal::Timing)?;
            let next = match (paused, before.standing.paused) {
                (true, _) => None,
                (false, true) => ticks.next(now),
                (false, false) => before.standing.next_run_at,
            };
            Ok(Some(Write { plan: before.plan.clone(), paused, anchor: before.anchor, next }))
        });
        written.await?;
        let schedule = self.schedule(name).await.map_err(Error::after_a_change)?;
        schedule.ok_or_else(|| Error::Refused(Refusal::NoSchedule(name.clone())))
    }

    /// Removes a schedule; its jobs stay.
    ///
    /// # Errors
    /// As [`Store::pause_schedule`].
    pub async fn remove_schedule(&self, name: &ScheduleName, by: DeclaredIn) -> Result<()> {
        let remove = |before: Option<&Stored>, _| match before {
            None => Err(Refusal::NoSchedule(name.clone())),
            Some(_) => Ok(None),
        };
        self.change_schedule(name, by, remove).await
    }

    /// Writes the schedules of a kinds file, and removes those that an earlier file declared and this one does not. A
    /// schedule of a request that has the name of one in the file becomes the file's. Without kinds nothing changes.
    ///
    /// # Errors
    /// Those of any call; a schedule that is refused is logged, and keeps no other from being written.
    pub async fn declare_schedules(&self, kinds: &Kinds) -> Result<()> {
        if kinds.is_empty() && kinds.schedules().is_empty() {
            return Ok(());
        }
        let refused = |name: &ScheduleName, done: Result<()>| match done {
            Err(Error::Refused(refusal)) => {
                tracing::error!(schedule = %name, "the schedule of the kinds file is not in effect: {refusal}");
                Ok(())
            }
            done => done,
        };
        let there = self.schedules().await?;
        for (name, declared) in kinds.schedules() {
            let is_same = |schedule: &&Schedule| {
                let standing = &schedule.standing;
                schedule.plan == declared.plan
                    && (standing.paused, standing.declared_in) == (declared.paused, DeclaredIn::File)
            };
            if !there.iter().filter(|schedule| schedule.name == *name).any(|schedule| is_same(&schedule)) {
                let written = self.put_schedule(name, &declared.plan, declared.paused, DeclaredIn::File).await;
                refused(name, written.map(drop))?;
            }
        }
        let is_old = |schedule: &&Schedule| {
            schedule.standing.declared_in == DeclaredIn::File && !kinds.schedules().contains_key(&schedule.name)
        };
        for schedule in there.iter().filter(is_old) {
            refused(&schedule.name, self.remove_schedule(&schedule.name, DeclaredIn::File).await)?;
        }
        Ok(())
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

    /// Reads schedules of a partition, and the time.
    async fn read_schedules(&self, partition: u16, names: &[ScheduleName]) -> Result<(Timestamp, Vec<Option<Stored>>)> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for name in names {
            pipeline.cmd("HGETALL").arg(keys::schedule(partition, name));
        }
        let replies = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
        let now = self.time_of(&replies[0]);
        let stored = names.iter().zip(&replies[1..]).map(|(name, fields)| {
            let key = || keys::schedule(partition, name);
            Stored::read(fields, now).map_err(|reason| Error::Corrupt { key: key(), reason })
        });
        Ok((now, stored.collect::<Result<_>>()?))
    }

    /// The time of Redis, or that of a test.
    fn time_of(&self, reply: &Value) -> Timestamp {
        let part = |at: usize| array(reply).get(at).and_then(number).unwrap_or(0);
        Timestamp(self.inner.wire.clock().unwrap_or_else(|| part(0) * 1_000 + part(1) / 1_000))
    }

    /// Reads a schedule, and writes what `change` makes of it (`None`: removes it), until nobody else has changed it in
    /// between.
    async fn change_schedule(
        &self,
        name: &ScheduleName,
        by: DeclaredIn,
        mut change: impl FnMut(Option<&Stored>, Timestamp) -> Result<Option<Write>, Refusal>,
    ) -> Result<()> {
        let partition = self.home_of_schedule(name);
        let mut sent = false;
        for _ in 0..TRIES {
            let (now, mut read) = self.read_schedules(partition, std::slice::from_ref(name)).await?;
            let before = read.remove(0);
            let declared_in = before.as_ref().map(|before| before.standing.declared_in);
            if declared_in == Some(DeclaredIn::File) && by == DeclaredIn::Api {
                return Err(Error::Refused(Refusal::DeclaredInFile(name.clone())));
            }
            let revision = before.as_ref().map_or("", |before| before.revision.as_str());
            let mut args = Args::default().texts([name.as_str(), revision]).count(limits::SCHEDULES_MAX);
            let write = match change(before.as_ref(), now) {
                // This call may have removed it, and its reply was lost.
                Err(Refusal::NoSchedule(_)) if sent => return Ok(()),
                changed => changed.map_err(Error::Refused)?,
            };
            if let Some(write) = write {
                let plan = serde_json::to_string(&write.plan).expect("a plan is plain JSON");
                let created_at = before.as_ref().map_or(now, |before| before.standing.created_at);
                args = args.text(write.next.map(|next| next.0.to_string()).unwrap_or_default());
                args = args.texts(["plan", &plan, "by", by.as_str(), "paused", if write.paused { "1" } else { "0" }]);
                for (field, time) in [("anchor", write.anchor), ("created_at", created_at), ("updated_at", now)] {
                    args = args.text(field).number(u64::try_from(time.0).unwrap_or(0));
                }
            }
            sent = true;
            let reply = self.inner.wire.run(&scripts::SCHEDULE, partition, &args, Repeat::Safe).await?;
            match text(&reply).as_str() {
                "changed" => {}
                "full" => return Err(Error::Refused(Refusal::TooManySchedules(limits::SCHEDULES_MAX))),
                _ => return Ok(()),
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

/// What a change writes.
struct Write {
    plan: Plan,
    paused: bool,
    anchor: Timestamp,
    next: Option<Timestamp>,
}

fn shown(name: &ScheduleName, stored: Stored) -> Schedule {
    Schedule { name: name.clone(), plan: stored.plan, standing: stored.standing }
}

fn wait(from: Timestamp, until: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(until.0 - from.0).unwrap_or(0))
}

fn changing(name: &ScheduleName) -> Error {
    Error::Unavailable(format!("the schedule {name} is being changed by others; nothing was done; try again"))
}
