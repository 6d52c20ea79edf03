//! A job's history: what the scripts noted, and what its record tells. The plain path notes nothing, so its submit, its
//! run and its end are read from the record.
use serde::{Deserialize, Serialize};

use super::Store;
use super::wire::reply::{array, text};
use super::wire::{Home, keys};
use crate::{Job, JobError, JobId, Result, State, Timestamp, WorkerId};

/// One entry of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The time.
    pub at: Timestamp,
    /// The event: a verb of the state machine, `phase`, `warning`, or `cancelled` for the end of a cancelled run.
    pub event: String,
    /// The attempt.
    pub attempt: Option<u32>,
    /// The worker that ran it.
    pub worker: Option<WorkerId>,
    /// The phase.
    pub message: Option<String>,
    /// The failure.
    pub error: Option<JobError>,
}

/// An entry as written by a script.
#[derive(Deserialize)]
struct Noted {
    #[serde(flatten)]
    entry: HistoryEntry,
    /// The start of the run concerned.
    started_at: Option<Timestamp>,
}

impl Store {
    /// A job's submit, attempts, phases, interventions and end, oldest first: at most [`crate::limits::HISTORY_MAX`] of
    /// what was noted, the newest, and what follows from the record. Empty when there is no such job.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn history(&self, id: &JobId) -> Result<Vec<HistoryEntry>> {
        let (partition, mut pipeline) = (self.place(id).await?, redis::pipe());
        pipeline.cmd("LRANGE").arg(keys::history(partition, id)).arg(0).arg(-1);
        let replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
        // The record is read last, so that it is at least as recent as the entries.
        let Some(job) = self.get(id).await? else { return Ok(Vec::new()) };
        let noted = array(&replies[0]).iter().filter_map(|v| serde_json::from_str(&text(v)).ok());
        Ok(whole(&job, noted.collect()))
    }
}

/// Merges the written entries with those derived from the record.
fn whole(job: &Job, noted: Vec<Noted>) -> Vec<HistoryEntry> {
    let entry = |at: Timestamp, event: &str| HistoryEntry {
        at,
        event: event.to_owned(),
        attempt: None,
        worker: None,
        message: None,
        error: None,
    };
    let mut entries = vec![entry(job.created_at, "submit")];
    let mut begun: Vec<Timestamp> = Vec::new();
    // The entries are in the order of the events, also within a millisecond and when the clock was set back: no time is
    // before that of an earlier event.
    let mut latest = job.created_at;
    let mut forward = |at: Timestamp| {
        latest = latest.max(at);
        latest
    };
    for Noted { entry: mut noted, started_at } in noted {
        let started_at = started_at.map(|at| at.max(job.created_at));
        if let Some(started_at) = started_at.filter(|at| !begun.contains(at)) {
            begun.push(started_at);
            let claim = entry(forward(started_at), "claim");
            entries.push(HistoryEntry { attempt: noted.attempt, worker: noted.worker.clone(), ..claim });
        }
        noted.at = forward(noted.at);
        entries.push(noted);
    }
    // The last run, if its end has no entry.
    if let Some(started_at) = job.started_at.filter(|at| !begun.contains(at)) {
        let claim = entry(forward(started_at), "claim");
        entries.push(HistoryEntry { attempt: Some(job.attempt), worker: job.worker.clone(), ..claim });
    }
    if let Some(end) =
        job.finished_at.map(&mut forward).and_then(|at| last_word(job, at, &entries).map(|event| entry(at, event)))
    {
        let ran = job.started_at.is_some();
        entries.push(HistoryEntry {
            attempt: ran.then_some(job.attempt),
            worker: job.worker.clone().filter(|_| ran),
            error: job.error.clone().filter(|_| job.state != State::Completed),
            message: job.skipped.clone(),
            ..end
        });
    }
    entries
}

/// The verb that ended the job, unless it already has an entry.
fn last_word(job: &Job, at: Timestamp, entries: &[HistoryEntry]) -> Option<&'static str> {
    let noted = |event: &str| entries.iter().any(|e| e.at == at && e.event == event);
    // A cancel of a running job only flags it; its end comes later, if only in the same millisecond.
    let cancelled = || entries.iter().any(|e| e.at == at && e.event == "cancel" && e.worker.is_none());
    match job.state {
        // It had already ended in its old store.
        state if state.is_final() && entries.len() == 1 && job.imported.is_some() => Some("import"),
        State::Completed if job.items.is_some() && job.started_at.is_none() => Some("finish"),
        State::Completed => Some("complete"),
        State::Failed => (!noted("fail")).then_some("fail"),
        State::Cancelled if job.items.is_some() && job.started_at.is_none() => Some("finish"),
        State::Cancelled => (!cancelled()).then_some("cancelled"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(changes: serde_json::Value) -> Job {
        let mut job = serde_json::json!({
            "id": "a", "partition": 0, "kind": "k", "queue": "q", "state": "completed", "priority": "normal",
            "payload": null, "attempt": 1,
            "max_attempts": 3, "crashes": 0, "token": 1, "worker": "w", "cancel_requested": false, "progress": null,
            "result": null, "skipped": null, "error": null, "parent": null, "items": null, "created_at": at(10),
            "scheduled_at": null, "started_at": at(20), "updated_at": at(30), "finished_at": at(30),
            "lease_expires_at": null
        });
        for (name, value) in changes.as_object().unwrap() {
            job[name] = value.clone();
        }
        serde_json::from_value(job).unwrap()
    }

    fn at(ms: i64) -> serde_json::Value {
        serde_json::to_value(Timestamp(ms)).unwrap()
    }

    fn noted(entries: serde_json::Value) -> Vec<Noted> {
        serde_json::from_value(entries).unwrap()
    }

    fn told(entries: &[HistoryEntry]) -> Vec<(i64, &str, Option<u32>)> {
        entries.iter().map(|e| (e.at.0, e.event.as_str(), e.attempt)).collect()
    }

    #[test]
    fn a_plain_job_has_its_submit_its_run_and_its_end() {
        let entries = whole(&job(serde_json::json!({})), vec![]);
        assert_eq!(told(&entries), [(10, "submit", None), (20, "claim", Some(1)), (30, "complete", Some(1))]);
        assert_eq!(entries[2].worker.as_ref().unwrap().as_str(), "w");
    }

    #[test]
    fn an_attempt_is_told_once_by_its_note_or_its_record() {
        let fail = serde_json::json!([{"at": 30, "event": "fail", "attempt": 1, "worker": "w", "started_at": 20,
            "error": {"code": "failed", "message": "no", "at": 0}}]);
        let failed = job(serde_json::json!({"state": "failed"}));
        assert_eq!(
            told(&whole(&failed, noted(fail.clone()))),
            [(10, "submit", None), (20, "claim", Some(1)), (30, "fail", Some(1))]
        );
        let again = job(serde_json::json!({"attempt": 2, "started_at": at(40), "finished_at": at(50)}));
        let entries = whole(&again, noted(fail));
        assert_eq!(told(&entries)[3..], [(40, "claim", Some(2)), (50, "complete", Some(2))]);
    }

    #[test]
    fn what_happens_within_a_millisecond_is_told_in_its_order() {
        let notes = serde_json::json!([
            {"at": 20, "event": "cancel"}, {"at": 20, "event": "retry"},
            {"at": 20, "event": "phase", "attempt": 1, "worker": "w", "message": "m", "started_at": 20},
            {"at": 20, "event": "cancel", "attempt": 1, "worker": "w", "started_at": 20}]);
        let job = job(serde_json::json!({"created_at": at(20), "finished_at": at(20)}));
        let entries = whole(&job, noted(notes));
        let events: Vec<_> = entries.iter().map(|e| e.event.as_str()).collect();
        assert_eq!(events, ["submit", "cancel", "retry", "claim", "phase", "cancel", "complete"]);
    }
}
