//! `jobs watch`, over what may happen to those it watches through.
use std::fs;

use leasehold_tests::{Process, System, eventually};
use serde_json::{Value, json};

use super::SOON;

const KINDS: &str = r#"
[kinds.gate]
command = ["sh", "{dir}/gate.sh"]
"#;

const GATE: &str = r#"
echo '{"progress": 30, "message": "waiting at the gate"}'
i=0
while [ ! -e "$(dirname "$0")/gate" ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done
echo '{"result": "through"}'
"#;

struct Gate {
    system: System,
    folder: tempfile::TempDir,
    kinds: String,
}

impl Gate {
    async fn start() -> Gate {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kinds.toml"), KINDS).unwrap();
        fs::write(folder.path().join("gate.sh"), GATE).unwrap();
        let kinds = folder.path().join("kinds.toml").display().to_string();
        Gate { system: System::start(&[("LEASEHOLD_LEASE_MS", "3000")]).await, folder, kinds }
    }

    fn open(&self) {
        fs::write(self.folder.path().join("gate"), "").unwrap();
    }

    async fn submit(&self) -> String {
        super::ok(&self.system, &["jobs", "submit", "--kind", "gate"]).await.trim().to_owned()
    }

    fn watch(&self, id: &str, door: &[&str]) -> Process {
        let url = self.system.redis().url();
        let arguments = [&["jobs", "watch", id, "-o", "json"], door].concat();
        Process::ours("leasehold", &arguments, &[("LEASEHOLD_REDIS_URL", &url)])
    }
}

async fn said(process: &Process, text: &str) {
    eventually(SOON, text, async || process.stderr().contains(text).then_some(()).ok_or(process.stderr())).await;
}

#[tokio::test]
async fn a_watch_lives_through_the_death_of_the_api() {
    let gate = Gate::start().await;
    let (worker, api) = (gate.system.worker(&[("LEASEHOLD_KINDS", &gate.kinds)]), gate.system.api(&[]).await);
    let id = gate.submit().await;
    let watch = gate.watch(&id, &["--api", &api.url("")]);
    said(&watch, "running, 30 % waiting at the gate").await;
    api.kill9();
    gate.open();
    // The job ends while there is nobody to tell it.
    let store = leasehold::Config { redis_url: gate.system.redis().url(), ..Default::default() };
    let store = leasehold::Store::connect(&store).await.unwrap();
    let job = leasehold::JobId::parse(&id).unwrap();
    eventually(SOON, "it has ended", async || store.get(&job).await.unwrap().unwrap().state.is_final().then_some(()))
        .await;
    assert!(watch.is_running());
    api.restart().await;
    assert_eq!(watch.wait_exit(SOON).await.code(), Some(0), "{}", watch.stderr());
    let ended: Value = serde_json::from_str(&watch.stdout()).unwrap();
    assert_eq!((&ended["state"], &ended["result"]), (&json!("completed"), &json!("through")));
    drop((worker, api));
    gate.system.finish().await;
}

#[tokio::test]
async fn a_watch_lives_through_the_death_of_redis_and_tells_a_cancel() {
    let gate = Gate::start().await;
    let worker = gate.system.worker(&[("LEASEHOLD_KINDS", &gate.kinds)]);
    let id = gate.submit().await;
    let watch = gate.watch(&id, &[]);
    said(&watch, "running, 30 % waiting at the gate").await;
    gate.system.redis().kill9();
    gate.system.redis().restart().await;
    super::ok(&gate.system, &["jobs", "cancel", &id]).await;
    assert_eq!(watch.wait_exit(SOON).await.code(), Some(1), "{}", watch.stderr());
    assert!(watch.stderr().contains("cancelled"), "{}", watch.stderr());
    let ended: Value = serde_json::from_str(&watch.stdout()).unwrap();
    assert_eq!(ended["state"], "cancelled");
    drop(worker);
    gate.system.finish().await;
}

#[tokio::test]
async fn an_interrupted_watch_says_that_the_job_continues() {
    let gate = Gate::start().await;
    let id = gate.submit().await;
    let watch = gate.watch(&id, &[]);
    said(&watch, "queued, no living worker serves kind gate").await;
    watch.sigint();
    assert_eq!(watch.wait_exit(SOON).await.code(), Some(1), "{}", watch.stderr());
    let stderr = watch.stderr();
    assert!(stderr.contains(&format!("job {id} continues")) && stderr.contains("jobs cancel"), "{stderr}");
    gate.system.finish().await;
}

#[tokio::test]
async fn a_watch_of_a_job_that_is_removed_ends() {
    let gate = Gate::start().await;
    let api = gate.system.api(&[]).await;
    for door in [&[][..], &["--api", &api.url("")]] {
        let id = gate.submit().await;
        let watch = gate.watch(&id, door);
        said(&watch, "queued, no living worker serves kind gate").await;
        let key = format!("lh:{{0}}:job:{id}");
        gate.system.redis().command::<i64>(&["DEL", &key]).await;
        assert_eq!(watch.wait_exit(SOON).await.code(), Some(1), "{}", watch.stderr());
        assert!(watch.stderr().contains("was removed while this waited"), "{}", watch.stderr());
        gate.system.redis().command::<i64>(&["LREM", "lh:{0}:queue:default", "0", &id]).await;
        gate.system.redis().command::<i64>(&["ZREM", "lh:{0}:kind:gate", &id]).await;
    }
    drop(api);
    gate.system.finish().await;
}
