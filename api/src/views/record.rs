//! A job in the format of the old systems: its status word, its times and numbers, and the values of its imported
//! record. Pure.
use std::collections::HashMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use leasehold::{Job, Json, State, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A view's words for a job that is waiting, running, completed, failed, cancelled.
pub type Words = [&'static str; 5];

/// A job and, when it was imported, its old record.
pub struct Record<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its state, in the view's word.
    pub status: &'static str,
    old: HashMap<String, Json>,
    /// Whether the job ended in the old system and has not changed since its import.
    is_unchanged: bool,
}

impl<'a> Record<'a> {
    /// The record of a job; `begun` says whether any item of a batch has started.
    pub fn new(job: &'a Job, words: &Words, begun: bool) -> Self {
        let status = word(job, words, begun);
        let old: HashMap<String, Json> = job.imported.as_ref().and_then(|old| old.to().ok()).unwrap_or_default();
        let old_status: Option<String> = old.get("status").and_then(|old| old.to().ok());
        let is_same = old_status.is_none_or(|old| old.eq_ignore_ascii_case(status));
        let is_unchanged = is_same && job.state.is_final() && job.token.is_none();
        Self { job, status, old, is_unchanged }
    }

    /// A field of the old record; `None` when it is absent, null or of another type.
    pub fn old<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        self.old
            .get(field)
            .filter(|value| value.as_str() != "null")
            .and_then(|value| serde_json::from_str(value.as_str()).ok())
    }

    /// A field of the old record about the outcome: `None` once the job has changed since its import.
    pub fn past<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        self.is_unchanged.then(|| self.old(field)).flatten()
    }

    /// [`Record::past`] of a number, with its digits as they are.
    pub fn past_number(&self, field: &str) -> Option<Json> {
        self.past::<Json>(field).filter(|value| value.to::<f64>().is_ok())
    }

    /// When the job was created, by the old record or else by ours.
    pub fn made_at(&self, field: &str, clock: Clock) -> Json {
        self.old(field).and_then(|old| clock.read(old)).unwrap_or_else(|| clock.at(self.job.created_at))
    }

    /// A later time, by the old record or else `ours`.
    pub fn past_time(&self, field: &str, clock: Clock, ours: Option<Timestamp>) -> Option<Json> {
        self.past(field).and_then(|old| clock.read(old)).or_else(|| ours.map(|time| clock.at(time)))
    }

    /// Why the job failed; `None` when its state is not failed.
    pub fn failure(&self, field: &str) -> Option<String> {
        let ours = || Some(self.job.error.as_ref()?.message.clone());
        (self.job.state == State::Failed).then(|| self.past(field).or_else(ours)).flatten()
    }

    /// Its progress, 0 to 100.
    pub fn percent(&self) -> f64 {
        let told = self.job.progress.as_ref().and_then(|progress| progress.percent);
        if self.job.state == State::Completed { 100.0 } else { told.unwrap_or(0.0) }
    }

    /// The seconds from its submission to its end.
    pub fn seconds(&self) -> Option<f64> {
        self.job.finished_at.map(|end| (end.0 - self.job.created_at.0).max(0) as f64 / 1_000.0)
    }
}

fn word(job: &Job, words: &Words, begun: bool) -> &'static str {
    match job.state {
        State::Waiting if !begun => words[0],
        State::Scheduled | State::Queued | State::Retrying => words[0],
        State::Waiting | State::Running => words[1],
        State::Completed => words[2],
        State::Failed => words[3],
        State::Cancelled => words[4],
    }
}

/// How a view writes times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// `2025-01-01T00:00:00`, UTC.
    Seconds,
    /// `2025-09-16T20:44:07.533700`, UTC.
    Micros,
    /// Seconds since 1970, a float.
    Unix,
}

impl Clock {
    /// Writes a time.
    pub fn at(self, time: Timestamp) -> Json {
        let utc = DateTime::<Utc>::from_timestamp_millis(time.0).unwrap_or_default();
        match self {
            Clock::Seconds => json(&utc.format("%Y-%m-%dT%H:%M:%S").to_string()),
            Clock::Micros => json(&utc.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()),
            Clock::Unix => json(&(time.0 as f64 / 1_000.0)),
        }
    }

    /// Writes the current time, by this process's clock.
    pub fn now(self) -> Json {
        self.at(Timestamp(Utc::now().timestamp_millis()))
    }

    /// A time of an old record: as it is when it has this format, else written in it. `None`: it is not a time.
    fn read(self, old: Json) -> Option<Json> {
        if self.wrote(&old) {
            return Some(old);
        }
        let micros = leasehold::time::foreign(&old.to().ok()?)?;
        let utc = DateTime::<Utc>::from_timestamp_micros(micros)?;
        match self {
            Clock::Seconds if micros % 1_000_000 == 0 => Some(self.at(Timestamp(micros.div_euclid(1_000)))),
            Clock::Seconds | Clock::Micros => Some(json(&utc.format("%Y-%m-%dT%H:%M:%S%.6f").to_string())),
            Clock::Unix => Some(json(&(micros as f64 / 1e6))),
        }
    }

    /// Whether `old` is a time in this format, with or without fractions of a second.
    fn wrote(self, old: &Json) -> bool {
        match self {
            Clock::Seconds | Clock::Micros => old
                .to::<String>()
                .is_ok_and(|text| NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").is_ok()),
            Clock::Unix => old.to::<f64>().is_ok_and(|seconds| seconds < 1e11),
        }
    }
}

/// A number, without a decimal point when it is whole: `100`, `75.5`.
pub fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 1e15 { json(&(value as i64)) } else { json(&value) }
}

/// A value of plain JSON: strings, numbers, and structs of them.
pub fn json<T: Serialize>(value: &T) -> Json {
    Json::of(value).expect("plain JSON can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words = ["queued", "running", "completed", "failed", "cancelled"];

    fn job(state: State, imported: &str) -> Job {
        let mut job: Job = serde_json::from_value(serde_json::json!({
            "id": "271945c6", "partition": 0, "kind": "k", "queue": "q", "state": "completed", "priority": "normal",
            "payload": null,
            "attempt": 1, "max_attempts": 1, "crashes": 0, "token": null, "worker": null, "cancel_requested": false,
            "progress": null, "result": null, "skipped": null, "parent": null, "items": null, "scheduled_at": null,
            "error": {"code": "failed", "message": "ours", "at": 0}, "created_at": 1_758_055_447_533_i64,
            "started_at": null, "updated_at": 0, "finished_at": 1_758_055_448_000_i64, "lease_expires_at": null
        }))
        .unwrap();
        job.state = state;
        job.imported = Json::parse(imported, 9, 999).ok();
        job
    }

    #[test]
    fn an_old_record_wins_until_the_job_changes() {
        let old = r#"{"status": "Failed", "at": "2025-09-16T20:44:07.533700", "n": 0.000319, "error": "theirs"}"#;
        let mut job = job(State::Failed, old);
        let record = Record::new(&job, &WORDS, false);
        assert_eq!(record.made_at("at", Clock::Micros).as_str(), "\"2025-09-16T20:44:07.533700\"");
        assert_eq!(record.past_time("at", Clock::Seconds, None).unwrap().as_str(), "\"2025-09-16T20:44:07.533700\"");
        assert_eq!(record.past_number("n").unwrap().as_str(), "0.000319");
        assert_eq!((record.past_number("at"), record.failure("error")), (None, Some("theirs".into())));
        job.token = Some(7);
        let record = Record::new(&job, &WORDS, false);
        assert_eq!((record.past_number("n"), record.failure("error")), (None, Some("ours".into())));
        assert_eq!(record.made_at("at", Clock::Micros).as_str(), "\"2025-09-16T20:44:07.533700\"");
        (job.token, job.state) = (None, State::Queued);
        let record = Record::new(&job, &WORDS, false);
        assert_eq!((record.status, record.failure("error"), record.past_number("n")), ("queued", None, None));
    }

    #[test]
    fn a_time_of_another_format_is_read_or_replaced() {
        for (old, micros) in [
            ("2025-09-16 20:44:07", "000000"),
            ("2025-09-16T20:44:07Z", "000000"),
            ("yesterday", "533000"),
            ("", "533000"),
        ] {
            let job = job(State::Completed, json(&HashMap::from([("at", old)])).as_str());
            let record = Record::new(&job, &WORDS, false);
            let shown = format!("\"2025-09-16T20:44:07.{micros}\"");
            assert_eq!(record.made_at("at", Clock::Micros).as_str(), shown, "{old}");
            assert_eq!(record.made_at("at", Clock::Seconds).as_str(), "\"2025-09-16T20:44:07\"");
        }
    }

    #[test]
    fn a_whole_number_has_no_point() {
        assert_eq!([100.0, 75.5, 0.0].map(|n| number(n).as_str().to_owned()), ["100", "75.5", "0"]);
    }

    #[test]
    fn each_state_has_a_word() {
        let word = |state, begun| Record::new(&job(state, ""), &WORDS, begun).status;
        let all: Vec<&str> = State::ALL.iter().map(|state| word(*state, false)).collect();
        assert_eq!(all, ["queued", "queued", "queued", "running", "queued", "completed", "failed", "cancelled"]);
        assert_eq!(word(State::Waiting, true), "running");
    }
}
