//! Schedules: written by clients and by the kinds file. A schedule is a hash in the partition of its name, where its
//! jobs are too; `tick` submits them.
use std::collections::HashMap;

use redis::Value;

use super::Store;
use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::schedule::{DeclaredIn, Plan, Standing};
use crate::{Error, JobId, Kinds, Refusal, Result, Schedule, ScheduleName, Timestamp, limits};

/// How often a change is tried while others change the same schedule.
pub(super) const TRIES: usize = 10;
/// Next ticks that are shown.
const SHOWN: usize = 5;
/// Schedules that one call reads.
const READ_MAX: usize = 100;

/// A schedule as it is stored.
pub(super) struct Stored {
    pub(super) plan: Plan,
    /// Changes with each write, but not with a tick.
    pub(super) revision: String,
    pub(super) anchor: Timestamp,
    pub(super) standing: Standing,
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
    pub(super) fn home_of_schedule(&self, name: &ScheduleName) -> u16 {
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

    /// Reads schedules of a partition, and the time.
    pub(super) async fn read_schedules(
        &self,
        partition: u16,
        names: &[ScheduleName],
    ) -> Result<(Timestamp, Vec<Option<Stored>>)> {
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
