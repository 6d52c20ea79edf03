//! Schedules: what they submit, and when. Pure; [`crate::Store`] keeps them, and submits their jobs.
mod ticks;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::job::{Due, Priority};
use crate::{Draft, JobId, Json, Kind, QueueName, ScheduleName, Timestamp};

pub use ticks::{CatchUp, InvalidTiming, ON_TIME_MS, Ticks, Timing};

/// What becomes of a tick while the schedule's last job has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It has no job.
    #[default]
    Skip,
    /// Its job runs beside the other.
    Allow,
    /// The last job is cancelled.
    Replace,
}

impl Overlap {
    /// The word in keys and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Allow => "allow",
            Self::Replace => "replace",
        }
    }

    /// The one named by a word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Skip, Self::Allow, Self::Replace].into_iter().find(|overlap| overlap.as_str() == word)
    }
}

/// A schedule as its client wrote it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its times: minute, hour, day of month, month and day of week, or a name such as `@daily`.
    pub cron: Option<String>,
    /// The IANA time zone of `cron`; absent: UTC.
    pub time_zone: Option<String>,
    /// In place of `cron`: the interval, ms.
    pub every_ms: Option<u64>,
    /// The kind of its jobs.
    pub kind: Kind,
    /// Their payload.
    pub payload: Json,
    /// Their queue; absent: their kind's.
    pub queue: Option<QueueName>,
    /// Their priority; absent: normal.
    pub priority: Option<Priority>,
    /// Their maximum attempts; absent: their kind's.
    pub max_attempts: Option<u32>,
    /// The maximum run time of an attempt, ms; absent: their kind's.
    pub timeout_ms: Option<u64>,
    /// What becomes of a tick while the last job has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// What becomes of ticks that nobody could do in time.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// The first moment at which there may be a tick; an interval counts from it.
    pub start_at: Option<Timestamp>,
    /// The last moment.
    pub end_at: Option<Timestamp>,
}

impl Plan {
    /// Its ticks; the steps of an interval without `start_at` are counted from `anchor`.
    ///
    /// # Errors
    /// [`InvalidTiming`].
    pub fn ticks(&self, anchor: Timestamp) -> Result<Ticks, InvalidTiming> {
        let timing = Timing::parse(self.cron.as_deref(), self.time_zone.as_deref(), self.every_ms)?;
        Ok(Ticks { timing, anchor, start: self.start_at, end: self.end_at })
    }

    /// Its ticks, of which there must be one after `now`.
    ///
    /// # Errors
    /// [`InvalidTiming`].
    pub fn ticks_after(&self, anchor: Timestamp, now: Timestamp) -> Result<Ticks, InvalidTiming> {
        let ticks = self.ticks(anchor)?;
        if ticks.next(now).is_some() {
            return Ok(ticks);
        }
        let fault = |field, reason: &str| Err(InvalidTiming { field, reason: reason.to_owned() });
        match self.end_at {
            Some(end) if end <= now => fault("end_at", "it has passed, so there would be no job"),
            Some(_) => fault("end_at", "no tick comes until then"),
            None => fault("cron", "such a date never comes"),
        }
    }

    /// Whether the ticks of two plans are the same.
    pub fn has_the_ticks_of(&self, other: &Plan) -> bool {
        let timing =
            |plan: &Plan| (plan.cron.clone(), plan.time_zone.clone(), plan.every_ms, plan.start_at, plan.end_at);
        timing(self) == timing(other)
    }

    /// The submit of one of its jobs.
    pub fn draft(&self) -> Draft {
        Draft {
            queue: self.queue.clone(),
            priority: self.priority,
            due: Some(Due::Now),
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms,
            ..Draft::new(self.kind.clone(), self.payload.clone())
        }
    }
}

/// Where a schedule is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclaredIn {
    /// By a request.
    Api,
    /// In the kinds file, which alone can change it.
    File,
}

impl DeclaredIn {
    /// The word in keys and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::File => "file",
        }
    }
}

/// A schedule as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schedule {
    /// Its name.
    pub name: ScheduleName,
    /// What its client wrote.
    #[serde(flatten)]
    pub plan: Plan,
    /// What the others than its plan have.
    #[serde(flatten)]
    pub standing: Standing,
}

/// How a schedule stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// It has no ticks until it is resumed.
    pub paused: bool,
    /// Where it is declared.
    pub declared_in: DeclaredIn,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its plan was last changed, or it was paused or resumed.
    pub updated_at: Timestamp,
    /// Its next tick.
    pub next_run_at: Option<Timestamp>,
    /// Its next ticks, at most five.
    pub next_runs: Vec<Timestamp>,
    /// The last tick for which there was a job.
    pub last_run_at: Option<Timestamp>,
    /// Its last job.
    pub last_job: Option<JobId>,
    /// The last tick for which there was no job, because the last one had not ended.
    pub last_skipped_at: Option<Timestamp>,
}

/// Reads both parts from the same object: serde cannot read raw JSON, which the payload is, in a flattened part.
impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            name: ScheduleName,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let read = || {
            let Named { name } = serde_json::from_str(text.get())?;
            let (plan, standing) = (serde_json::from_str(text.get())?, serde_json::from_str(text.get())?);
            Ok(Self { name, plan, standing })
        };
        read().map_err(|e: serde_json::Error| serde::de::Error::custom(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_schedule_is_read_as_it_is_written() {
        let now = Timestamp(1_000);
        let standing = Standing {
            paused: true,
            declared_in: DeclaredIn::File,
            created_at: now,
            updated_at: now,
            next_run_at: None,
            next_runs: vec![now],
            last_run_at: Some(now),
            last_job: JobId::parse("a").ok(),
            last_skipped_at: None,
        };
        let plan = plan(r#"{"cron": "0 3 * * *", "kind": "report", "payload": {"x": 1.50}, "overlap": "replace"}"#);
        let schedule = Schedule { name: ScheduleName::parse("nightly").unwrap(), plan, standing };
        let text = serde_json::to_string(&schedule).unwrap();
        assert!(text.contains("\"payload\":{\"x\":1.50}"), "{text}");
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }

    #[test]
    fn a_plan_without_a_tick_to_come_is_refused() {
        let now = Timestamp::parse("2027-01-01T12:00:00Z").unwrap();
        for (text, field, said) in [
            (r#"{"cron": "0 0 30 2 *", "kind": "a", "payload": null}"#, "cron", "never comes"),
            (
                r#"{"cron": "0 0 * * *", "kind": "a", "payload": null, "end_at": "2027-01-01T00:00:00Z"}"#,
                "end_at",
                "it has passed",
            ),
            (
                r#"{"cron": "0 0 * * *", "kind": "a", "payload": null, "end_at": "2027-01-01T13:00:00Z"}"#,
                "end_at",
                "no tick comes until then",
            ),
        ] {
            let fault = plan(text).ticks_after(now, now).unwrap_err();
            assert!(fault.field == field && fault.reason.contains(said), "{fault}");
        }
    }
}
