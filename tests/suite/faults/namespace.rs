//! Row 14: packets that vanish, between network namespaces.
use std::path::Path;
use std::process::Command;

use leasehold::{Config, JobId, State, Store};
use leasehold_tests::{Process, Worker, check_invariants};
use nix::unistd::geteuid;
use serde_json::json;

use super::*;

const FAULT: &str = "half-open connections, packets dropped";
const LEASE_MS: u64 = 3_000;

/// A namespace with a link to this one; both go when it is dropped.
struct Namespace {
    name: String,
    outside: String,
    /// The first three bytes of its network.
    network: String,
}

impl Namespace {
    fn create() -> Option<Namespace> {
        let number = std::process::id() % 250;
        let (name, outside) = (format!("lh-test-{number}"), format!("lht{number}a"));
        let this = Namespace { name, outside, network: format!("10.231.{number}") };
        let (name, outside, inside) = (&this.name, &this.outside, format!("lht{number}b"));
        let commands = [
            format!("netns add {name}"),
            format!("link add {outside} type veth peer name {inside}"),
            format!("link set {inside} netns {name}"),
            format!("addr add {}.1/24 dev {outside}", this.network),
            format!("link set {outside} up"),
            format!("-n {name} addr add {}.2/24 dev {inside}", this.network),
            format!("-n {name} link set {inside} up"),
        ];
        commands.iter().all(|command| ip(command)).then_some(this)
    }

    /// Whether nothing that Redis sends leaves its namespace.
    fn drop_packets(&self, drops: bool) {
        let change = if drops { "add" } else { "del" };
        assert!(ip(&format!("-n {} route {change} blackhole {}.1/32", self.name, self.network)));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.outside));
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success())
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_14_packets_vanish_on_open_connections() {
    let namespace = if geteuid().is_root() { Namespace::create() } else { None };
    let Some(namespace) = namespace else {
        return table::not_run(14, FAULT, "network namespaces, which only root can create");
    };
    let (address, config) =
        (format!("{}.2", namespace.network), Path::new(env!("CARGO_MANIFEST_DIR")).join("../redis.conf"));
    let config = config.display().to_string();
    let words =
        ["netns", "exec", &namespace.name, "redis-server", &config, "--bind", &address, "--protected-mode", "no"];
    let _redis = Process::start(Path::new("ip"), &words, &[]);
    let (url, lease, folder) = (format!("redis://{address}:6379/"), LEASE_MS.to_string(), tempfile::tempdir().unwrap());
    let kinds = folder.path().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.nap]\ncommand = [\"sleep\", \"0.1\"]\n").unwrap();
    let kinds = kinds.display().to_string();
    let environment = [("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_LEASE_MS", &lease)];
    let api = Api::start(&url, &environment).await;
    let _workers = [Worker::start(&url, &environment), Worker::start(&url, &environment)];
    api.wait_ready().await;
    let store = Store::connect(&Config { redis_url: url.clone(), ..Config::default() }).await.unwrap();
    let (mut ids, mut began) = (Vec::new(), Instant::now());
    for round in 0..3 {
        for n in 0..10 {
            let answer = api.post("/api/v1/jobs", &json!({"kind": "nap", "payload": 10 * round + n})).await;
            assert_eq!(answer.status, 202, "{}", answer.text);
            ids.push(JobId::parse(answer.json["id"].as_str().unwrap()).unwrap());
        }
        namespace.drop_packets(true);
        let (drop, truth) = (sleep(Duration::from_secs(12)), says(&api, 503, "redis_unavailable"));
        tokio::join!(drop, truth);
        namespace.drop_packets(false);
        began = Instant::now();
        says(&api, 200, "").await;
    }
    let mut crashes = 0;
    for id in &ids {
        let job = eventually(TRUTH + STALL, "each job ends", async || {
            store.get(id).await.ok().flatten().filter(|job| job.state.is_final())
        })
        .await;
        assert_eq!(job.state, State::Completed);
        crashes = crashes.max(job.crashes as usize);
    }
    assert_eq!(crashes, 0, "no lease was lost");
    let injected = "3 × a blackhole route in Redis's namespace for 12 s";
    table::line(14, FAULT, injected, [ids.len(), 1, 0, 0], Some(began.elapsed()));
    check_invariants(&url, LEASE_MS).await;
}
