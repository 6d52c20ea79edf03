//! Schedules: written by clients and by the kinds file. A schedule is a hash in the partition of its name, where its
//! jobs are too; `tick` submits them.
use std::collections::HashMap;

use futures_util::future::try_join_all;
use redis::Value;

use super::Store;
use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::schedule::{DeclaredIn, InvalidTiming, Plan, Standing};
use crate::{Error, JobId, Kinds, Refusal, Result, Schedule, ScheduleName, Timestamp, limits};

/// How often a change is tried while others change the same schedule.
pub(super) const TRIES: usize = 10;
/// Next ticks that are shown.
const SHOWN: usize = 5;
/// Schedules that one call reads.
const READ_MAX: usize = 100;

/// What is stored under a schedule's name.
pub(super) struct Found {
    /// Changes with each write, but not with a tick.
    pub(super) revision: String,
    /// The next tick as it is stored, ms; empty: there is none.
    pub(super) next: String,
    declared_in: DeclaredIn,
    /// [`Error::Corrupt`]: it cannot be read. It can be written again, or removed.
    pub(super) stored: Result<Stored>,
}

/// A schedule as it is stored.
pub(super) struct Stored {
    pub(super) plan: Plan,
    pub(super) anchor: Timestamp,
    pub(super) standing: Standing,
}

impl Found {
    /// `None`: there is nothing.
    fn read(key: &str, reply: &Value, now: Timestamp) -> Option<Self> {
        let fields: HashMap<String, String> =
            array(reply).chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        let is_other = matches!(reply, Value::ServerError(_));
        if fields.is_empty() && !is_other {
            return None;
        }
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let is_of_file = field("by") == DeclaredIn::File.as_str();
        let declared_in = if is_of_file { DeclaredIn::File } else { DeclaredIn::Api };
        let stored =
            if is_other { Err("it is not a hash".to_owned()) } else { Stored::read(&fields, declared_in, now) };
        let stored = stored.map_err(|reason| Error::Corrupt { key: key.to_owned(), reason });
        Some(Self { revision: field("revision"), next: field("next"), declared_in, stored })
    }
}

impl Stored {
    fn read(fields: &HashMap<String, String>, declared_in: DeclaredIn, now: Timestamp) -> Result<Self, String> {
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
            declared_in,
            created_at: need("created_at")?,
            updated_at: need("updated_at")?,
            next_run_at: first,
            next_runs,
            last_run_at: time("last_run_at"),
            last_job: field("last_job").and_then(|id| JobId::parse(id).ok()),
            last_skipped_at: time("last_skipped_at"),
        };
        Ok(Self { plan, anchor, standing })
    }
}

impl Store {
    /// The partition of a schedule and of its jobs: by the first number of partitions, so that it stays there.
    pub(super) fn home_of_schedule(&self, name: &ScheduleName) -> u16 {
        keys::partition_of(name.as_str(), self.sizes().first())
    }

    /// All schedules, by name; those that cannot be read are logged and left out.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn schedules(&self) -> Result<Vec<Schedule>> {
        let list = |partition| {
            let range = redis::cmd("ZRANGE").arg(keys::schedules(partition)).arg(0).arg(-1).to_owned();
            (Home::Partition(partition), range)
        };
        let lists: Vec<_> = (0..self.sizes().first()).map(list).collect();
        let lists = self.inner.wire.pipe_each(&lists).await?;
        let of_partition = async |(partition, list): (u16, &Value)| {
            let names: Vec<_> = array(list).iter().filter_map(|v| ScheduleName::parse(&text(v)).ok()).collect();
            let mut all = Vec::new();
            for part in names.chunks(READ_MAX) {
                let (_, read) = self.read_schedules(partition, part).await?;
                let readable = |found: Found| found.stored.inspect_err(|e| tracing::error!("{e}")).ok();
                let found = part.iter().zip(read).filter_map(|(name, found)| Some(shown(name, readable(found?)?)));
                all.extend(found);
            }
            Ok::<_, Error>(all)
        };
        let mut all = try_join_all((0..).zip(&lists).map(of_partition)).await?.concat();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// One schedule.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it cannot be read; those of any call.
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>> {
        let (_, mut read) = self.read_schedules(self.home_of_schedule(name), std::slice::from_ref(name)).await?;
        read.remove(0).map(|found| Ok(shown(name, found.stored?))).transpose()
    }

    /// Writes a schedule, and says whether it is a new one. It has its ticks from now on; with those that it had
    /// before, a tick that is just due is kept.
    ///
    /// # Errors
    /// [`Error::Refused`]: a file declares it and this is a request, its plan has no tick to come, its kind has a limit
    /// that would not hold, or there are too many.
    pub async fn put_schedule(
        &self,
        name: &ScheduleName,
        plan: &Plan,
        paused: bool,
        by: DeclaredIn,
        kinds: &Kinds,
    ) -> Result<(Schedule, bool)> {
        let mut created = false;
        self.refuse_if_unfit()?;
        self.refuse_limited(plan, kinds)?;
        let written = self.change_schedule(name, by, |before, now| {
            created |= before.is_none();
            let stored = before.and_then(|found| found.stored.as_ref().ok());
            let same = stored.filter(|stored| stored.plan.has_the_ticks_of(plan));
            let anchor = same.map_or(now, |stored| stored.anchor);
            let ticks = plan.ticks_after(anchor, now).map_err(|fault| Error::Refused(Refusal::Timing(fault)))?;
            let next = ticks.next(now);
            // One that lies beyond the next was set by a clock that was ahead.
            let due = same.and_then(|stored| stored.standing.next_run_at).filter(|due| Some(*due) < next);
            Ok(Some(Write { plan: plan.clone(), paused, anchor, next: due.or(next).filter(|_| !paused) }))
        });
        written.await?;
        let schedule = self.schedule(name).await.map_err(Error::after_a_change)?;
        Ok((schedule.ok_or_else(|| Error::Refused(Refusal::NoSchedule(name.clone())))?, created))
    }

    /// The jobs of a schedule are in its own partition, and those of a kind with `max_running` must all be in that of
    /// the kind.
    pub(super) fn refuse_limited(&self, plan: &Plan, kinds: &Kinds) -> Result<()> {
        if self.has_room_for(plan, kinds) {
            return Ok(());
        }
        let reason = format!(
            "{} has max_running, which is not counted over several partitions for jobs of schedules; name another kind",
            plan.kind
        );
        Err(Error::Refused(Refusal::Timing(InvalidTiming { field: "kind", reason })))
    }

    /// Whether the limit of the plan's kind holds for the jobs of schedules.
    pub(super) fn has_room_for(&self, plan: &Plan, kinds: &Kinds) -> bool {
        self.partitions() == 1 || kinds.get(&plan.kind).max_running.is_none()
    }

    /// Pauses or resumes a schedule. A tick that passes meanwhile has no job.
    ///
    /// # Errors
    /// [`Error::Refused`]: there is none of that name, or a file declares it. [`Error::Corrupt`] when it cannot be
    /// read.
    pub async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Schedule> {
        let written = self.change_schedule(name, DeclaredIn::Api, |before, now| {
            let before = before.ok_or_else(|| Error::Refused(Refusal::NoSchedule(name.clone())))?;
            let stored = before.stored.as_ref().map_err(Clone::clone)?;
            let ticks = stored.plan.ticks(stored.anchor).map_err(|fault| Error::Refused(Refusal::Timing(fault)))?;
            let next = match (paused, stored.standing.paused) {
                (true, _) => None,
                (false, true) => ticks.next(now),
                (false, false) => stored.standing.next_run_at,
            };
            Ok(Some(Write { plan: stored.plan.clone(), paused, anchor: stored.anchor, next }))
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
        let remove = |before: Option<&Found>, _| match before {
            None => Err(Error::Refused(Refusal::NoSchedule(name.clone()))),
            Some(_) => Ok(None),
        };
        self.change_schedule(name, by, remove).await
    }

    /// Writes the schedules of a kinds file, and removes those that an earlier file declared and this one does not. A
    /// schedule of a request that has the name of one in the file becomes the file's. Without a file nothing changes.
    ///
    /// # Errors
    /// Those of any call; a schedule that is refused is logged, and keeps no other from being written.
    pub async fn declare_schedules(&self, kinds: &Kinds) -> Result<()> {
        if !kinds.has_file() {
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
            let before = there.iter().find(|schedule| schedule.name == *name);
            if before.is_some_and(|schedule| is_same(&schedule)) {
                continue;
            }
            let by = DeclaredIn::File;
            let written = self.put_schedule(name, &declared.plan, declared.paused, by, kinds).await.map(drop);
            // What the file said before must not go on.
            if matches!(written, Err(Error::Refused(_))) && before.is_some_and(|s| s.standing.declared_in == by) {
                refused(name, self.remove_schedule(name, by).await)?;
            }
            refused(name, written)?;
        }
        let is_old = |schedule: &&Schedule| {
            schedule.standing.declared_in == DeclaredIn::File && !kinds.schedules().contains_key(&schedule.name)
        };
        for schedule in there.iter().filter(is_old) {
            refused(&schedule.name, self.remove_schedule(&schedule.name, DeclaredIn::File).await)?;
        }
        Ok(())
    }

    /// Reads schedules of a partition, and the time.
    pub(super) async fn read_schedules(
        &self,
        partition: u16,
        names: &[ScheduleName],
    ) -> Result<(Timestamp, Vec<Option<Found>>)> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for name in names {
            pipeline.cmd("HGETALL").arg(keys::schedule(partition, name));
        }
        let replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
        let now = self.time_of(&replies[0]);
        let found = names.iter().zip(&replies[1..]);
        Ok((now, found.map(|(name, reply)| Found::read(&keys::schedule(partition, name), reply, now)).collect()))
    }

    /// Drops the entry of a schedule of which nothing else is left.
    pub(super) async fn unlist_schedule(&self, partition: u16, name: &ScheduleName) -> Result<()> {
        let args = Args::default().texts([name.as_str(), "", ""]).count(limits::SCHEDULES_MAX);
        self.inner.wire.run(&scripts::SCHEDULE, partition, &args, Repeat::Safe).await.map(drop)
    }

    /// The time of Redis, or that of a test.
    pub(super) fn time_of(&self, reply: &Value) -> Timestamp {
        let part = |at: usize| array(reply).get(at).and_then(number).unwrap_or(0);
        Timestamp(self.inner.wire.clock().unwrap_or_else(|| part(0) * 1_000 + part(1) / 1_000))
    }

    /// Reads a schedule, and writes what `change` makes of it (`None`: removes it), until nobody else has changed it in
    /// between.
    async fn change_schedule(
        &self,
        name: &ScheduleName,
        by: DeclaredIn,
        mut change: impl FnMut(Option<&Found>, Timestamp) -> Result<Option<Write>>,
    ) -> Result<()> {
        let partition = self.home_of_schedule(name);
        let mut sent = false;
        for _ in 0..TRIES {
            let (now, mut read) = self.read_schedules(partition, std::slice::from_ref(name)).await?;
            let before = read.remove(0);
            let declared_in = before.as_ref().map(|before| before.declared_in);
            if declared_in == Some(DeclaredIn::File) && by == DeclaredIn::Api {
                return Err(Error::Refused(Refusal::DeclaredInFile(name.clone())));
            }
            let (revision, next) = before.as_ref().map_or(("", ""), |found| (&found.revision, &found.next));
            let mut args = Args::default().texts([name.as_str(), revision, next]).count(limits::SCHEDULES_MAX);
            let write = match change(before.as_ref(), now) {
                // This call may have removed it, and its reply was lost.
                Err(Error::Refused(Refusal::NoSchedule(_))) if sent => return Ok(()),
                changed => changed?,
            };
            if let Some(write) = write {
                let plan = serde_json::to_string(&write.plan).expect("a plan is plain JSON");
                let stored = before.as_ref().and_then(|found| found.stored.as_ref().ok());
                let created_at = stored.map_or(now, |stored| stored.standing.created_at);
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

pub(super) fn changing(name: &ScheduleName) -> Error {
    Error::Unavailable(format!("the schedule {name} is being changed by others; nothing was done; try again"))
}
