//! A verdict that never fails proves nothing: clean evidence, and each way to spoil it.
use std::collections::HashMap;
use std::time::Duration;

use leasehold::{Job, State};
use serde_json::{Value, json};

use super::evidence::Evidence;
use super::faults::{Fault, Struck, Target, Way};
use super::load::{Heard, Step, Submit};
use super::work::Run;

/// The worker that was killed, and the one that was not.
const KILLED: u32 = 50;
const ALIVE: u32 = 51;

fn payload(number: u64, fails: bool) -> Value {
    json!({"number": number, "seconds": "0", "fails": fails})
}

fn job(id: &str, token: u64, payload: &Value, attempt: u32, crashes: u32) -> Job {
    serde_json::from_value(json!({
        "id": id, "partition": 0, "kind": "chaos", "queue": "default", "state": "completed", "priority": "normal",
        "payload": payload,
        "attempt": attempt, "max_attempts": 3, "crashes": crashes, "token": token, "worker": "w", "cancel_requested": false,
        "progress": null, "result": {"number": payload["number"], "token": token}, "skipped": null, "error": null,
        "parent": null, "items": null, "created_at": "2026-11-22T06:00:00.000Z", "scheduled_at": null, "started_at": null,
        "updated_at": "2026-11-22T06:00:00.000Z", "finished_at": null, "lease_expires_at": null,
    }))
    .unwrap()
}

fn run(job: &str, token: u64, attempt: u32, worker_pid: u32, code: Option<u8>) -> Run {
    Run { job: job.into(), token, attempt, worker_pid, begun: token as f64, code, ended: token as f64 + 0.5 }
}

fn submit(key: &str, body: Value, heard: &[Heard]) -> Submit {
    let tries = heard.iter().map(|heard| (Duration::ZERO, Duration::ZERO, heard.clone())).collect();
    Submit { key: key.into(), body, file: None, tries, steps: Vec::new() }
}

/// A job that failed as asked and met a kill, one whose first answer was lost, and a batch of one.
fn clean() -> Evidence {
    let (first, second, third) = (payload(1, true), payload(2, false), payload(3, false));
    let mut batch = job("c", 0, &Value::Null, 1, 0);
    batch.items = Some(leasehold::job::Items { total: 1, succeeded: 1, ..Default::default() });
    let at = Duration::from_secs(1);
    let mut first_submit = submit("1", json!({"payload": first}), &[Heard::Made("a".into()), Heard::Known("a".into())]);
    first_submit.file = Some("text".into());
    let fault = Fault { at, row: 2, way: Way::Kill, target: Target::Worker(0), lasts: Duration::ZERO };
    Evidence {
        submits: vec![
            first_submit,
            submit("2", json!({"payload": second}), &[Heard::Unknown("cut".into()), Heard::Known("b".into())]),
            submit("3", json!({"items": [third]}), &[Heard::NotDone("busy".into()), Heard::Made("c".into())]),
        ],
        jobs: vec![job("a", 4, &first, 2, 1), job("b", 2, &second, 1, 0), batch],
        items: HashMap::from([("c".into(), vec![job("d", 5, &third, 1, 0)])]),
        outputs: HashMap::from([("a".to_owned(), "text 4".to_owned())]),
        runs: vec![
            run("a", 1, 1, KILLED, None),
            run("b", 2, 1, ALIVE, Some(0)),
            run("a", 3, 1, ALIVE, Some(75)),
            run("a", 4, 2, ALIVE, Some(0)),
            run("d", 5, 1, ALIVE, Some(0)),
        ],
        partitions: ["a", "b", "d"].map(|job| (job.to_owned(), 0)).into(),
        struck: vec![Struck { fault, workers: vec![KILLED], at, back_at: at }],
        booted: 0.0,
        took: Duration::from_secs(2),
    }
}

#[test]
fn clean_evidence_has_no_violation() {
    assert_eq!(clean().violations(), []);
}

#[test]
fn each_way_to_spoil_the_evidence_is_found() {
    type Spoil = fn(&mut Evidence);
    let cases: [(&str, Spoil); 25] = [
        ("was acknowledged, and is gone", |e| drop(e.jobs.remove(1))),
        ("it was acknowledged, and is Queued", |e| e.jobs[1].state = State::Queued),
        ("it was acknowledged, and is Failed", |e| e.items.get_mut("c").unwrap()[0].state = State::Failed),
        ("a second job of some key", |e| e.jobs.push(job("e", 9, &payload(1, true), 2, 0))),
        ("it is listed twice", |e| e.jobs.push(job("b", 2, &payload(2, false), 1, 0))),
        ("was never answered", |e| e.submits[1].tries.truncate(1)),
        ("was answered with f too", |e| e.submits[0].tries[1].2 = Heard::Known("f".into())),
        ("it was made a second time", |e| e.submits[0].tries[1].2 = Heard::Made("a".into())),
        ("nothing was said to be done", |e| e.submits[1].tries[0].2 = Heard::NotDone("busy".into())),
        ("was answered 500", |e| e.submits[0].tries[1].2 = Heard::Odd("500".into())),
        ("is lost", |e| e.jobs[1].payload = leasehold::Json::null()),
        ("a batch of 1 that ended", |e| e.jobs[2].items.as_mut().unwrap().succeeded = 2),
        ("its file is not what its last run left", |e| e.outputs.insert("a".into(), "text 3".into()).map_or((), drop)),
        ("it has what nobody submitted", |e| e.items.get_mut("c").unwrap().push(job("d", 5, &payload(9, false), 1, 0))),
        ("token 2 was given twice", |e| e.runs[3].token = 2),
        ("token 1 came after token 3", |e| e.runs.swap(0, 2)),
        ("but its result is", |e| e.jobs[1].result = Some(leasehold::Json::null())),
        ("but its last run was", |e| e.runs[1].code = None),
        ("it ran again, though nothing befell", |e| e.struck.clear()),
        ("it completed in attempt 3, not in 2", |e| e.jobs[0].attempt = 3),
        ("crashes are counted", |e| e.jobs[1].crashes = 9),
        // A worker that was only stopped, and that long before the run.
        ("it ran again, though nothing befell", |e| {
            (e.struck[0].fault.way, e.struck[0].at, e.runs[0].begun) = (Way::Stop, Duration::ZERO, 90.0);
        }),
        ("should be [Cancelled]", |e| e.submits[1].steps = vec![Step::Cancel, Step::SeenCancelled]),
        ("should be [Completed]", |e| {
            e.submits[1].steps = vec![Step::Cancel, Step::SeenCancelled, Step::Retry, Step::Retried];
            e.jobs[1].state = State::Cancelled;
        }),
        ("a cancel or a retry was answered", |e| e.submits[1].steps = vec![Step::Cancel, Step::Odd("500".into())]),
    ];
    for (what, spoil) in cases {
        let mut evidence = clean();
        spoil(&mut evidence);
        let found = evidence.violations();
        assert!(found.iter().any(|violation| violation.what.contains(what)), "{what}: {found:#?}");
    }
}
