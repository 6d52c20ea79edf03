//! Upgrades: the step from an earlier layout, and two versions side by side on one Redis.
use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_tests::{Api, Process, System, eventually, next_path};
use serde_json::{Value, json};

/// How long anything may take that ought to happen soon.
const SOON: Duration = Duration::from_secs(30);
/// Jobs of the rolling upgrade.
const JOBS: usize = 400;

/// A kind whose jobs note their begin, and fail for good at the first failed attempt.
fn kinds(system: &System) -> String {
    let (script, path) = (system.folder().join("note.sh"), system.folder().join("kinds.toml"));
    std::fs::write(&script, "echo \"$LEASEHOLD_JOB_ID\" >> \"$(dirname \"$0\")/journal\"\nsleep 0.05\n").unwrap();
    std::fs::write(&path, "[kinds.note]\ncommand = [\"sh\", \"{dir}/note.sh\"]\nmax_attempts = 1\n").unwrap();
    path.display().to_string()
}

/// How often each job has begun.
fn begun(system: &System) -> BTreeMap<String, usize> {
    let journal = std::fs::read_to_string(system.folder().join("journal")).unwrap_or_default();
    journal.lines().fold(BTreeMap::new(), |mut begun, id| {
        *begun.entry(id.to_owned()).or_default() += 1;
        begun
    })
}

async fn submit(api: &Api) -> String {
    let answer = api.post("/api/v1/jobs", &json!({"kind": "note"})).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json["id"].as_str().unwrap().to_owned()
}

async fn job(api: &Api, id: &str) -> Value {
    api.get(&format!("/api/v1/jobs/{id}")).await.json
}

#[tokio::test]
async fn an_earlier_layout_is_migrated_once_its_workers_are_stopped() {
    let system = System::start(&[]).await;
    let environment = [("LEASEHOLD_KINDS", kinds(&system))];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (api, worker) = (system.api(&environment).await, system.worker(&environment));
    api.wait_ready().await;
    let id = submit(&api).await;
    eventually(SOON, "the job is completed", async || job(&api, &id).await["state"] == "completed").await;
    let migrate = async || system.command(&["migrate"], &[]).await;
    assert!(migrate().await.stdout.contains("was ready for Leasehold"), "a new key space has this version's layout");
    // As 0.1 left it: without a layout.
    let _: i64 = system.redis().command(&["HDEL", "lh:meta", "layout"]).await;
    let refused = system.command(&["jobs", "ls"], &[]).await;
    assert!(!refused.status.success() && refused.stderr.contains("then run `leasehold migrate`"), "{refused:?}");
    let doctor = system.command(&["doctor"], &[]).await;
    assert!(doctor.stdout.contains("its layout is 1, of an earlier version"), "{doctor:?}");
    let early = migrate().await;
    assert_eq!(early.status.code(), Some(1));
    assert!(early.stderr.contains("nothing was changed: these workers are alive"), "{early:?}");
    let layout = async || system.redis().command::<Option<i64>>(&["HGET", "lh:meta", "layout"]).await;
    assert_eq!(layout().await, None);
    worker.sigterm();
    worker.wait_exit(SOON).await;
    drop(api);
    let done = migrate().await;
    assert!(done.status.success() && done.stdout.contains("is ready for Leasehold"), "{done:?}");
    assert!(migrate().await.stdout.contains("was ready for Leasehold"), "it can be repeated");
    let api = system.api(&environment).await;
    api.wait_ready().await;
    assert_eq!(job(&api, &id).await["state"], "completed", "the earlier jobs are there");
    let _: i64 = system.redis().command(&["HSET", "lh:meta", "layout", "99"]).await;
    for command in [&["migrate"][..], &["jobs", "ls"]] {
        let later = system.command(command, &[]).await;
        assert!(!later.status.success() && later.stderr.contains("layout 99, written by a later version"), "{later:?}");
    }
    let _: i64 = system.redis().command(&["HSET", "lh:meta", "layout", "2"]).await;
    drop((api, worker));
    system.finish().await;
}

#[tokio::test]
async fn two_versions_work_side_by_side() {
    let system = System::start(&[]).await;
    let kinds = kinds(&system);
    let url = system.redis().url();
    let (next_api, next_worker) = (next_path("leasehold-api"), next_path("leasehold-worker"));
    let environment = [("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_WORKER__CONCURRENCY", "4")];
    let of_worker = [environment[0], environment[1], ("LEASEHOLD_REDIS_URL", &url)];
    let old_api = system.api(&environment).await;
    let old = [system.worker(&environment), system.worker(&environment)];
    let mut ids = Vec::new();
    for _ in 0..JOBS / 4 {
        ids.push(submit(&old_api).await);
    }
    // The API first: the workers of this version meet records of the next one.
    let new_api = Api::start_program(&next_api, &url, &environment).await;
    let early = submit(&new_api).await;
    eventually(SOON, "the job was released, uncharged", async || {
        let job = job(&old_api, &early).await;
        (job["state"] == "retrying" && job["attempt"] == 1).then_some(()).ok_or(job)
    })
    .await;
    let mut new = vec![Process::start(&next_worker, &[], &of_worker)];
    for at in 0..JOBS / 2 {
        ids.push(submit(if at % 2 == 0 { &old_api } else { &new_api }).await);
    }
    old[0].sigterm();
    new.push(Process::start(&next_worker, &[], &of_worker));
    old[1].sigterm();
    for worker in &old {
        assert!(worker.wait_exit(SOON).await.success());
    }
    drop(old_api);
    for _ in 0..JOBS / 4 {
        ids.push(submit(&new_api).await);
    }
    ids.push(early);
    for id in &ids {
        eventually(SOON, "each job is completed", async || {
            let job = job(&new_api, id).await;
            let outcome = (&job["state"], &job["attempt"], &job["crashes"]);
            (outcome == (&json!("completed"), &json!(1), &json!(0))).then_some(()).ok_or(job)
        })
        .await;
    }
    let begun = begun(&system);
    assert_eq!((begun.len(), begun.values().max()), (ids.len(), Some(&1)), "each has begun once");
    drop((new_api, new, old));
    system.finish().await;
}
