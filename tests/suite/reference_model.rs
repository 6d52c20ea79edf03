//! Random sequences of Store calls beside a small pure model: after every call each job must be what the model says. A
//! failing sequence shrinks to a few calls.
mod model;

use std::collections::{BTreeMap, HashSet};

use leasehold::job::{Due, NewBatch, Priority};
use leasehold::store::{self, Held, ImportedItem, ImportedJob, Past, Settle, Settled};
use leasehold::{JobId, NewJob, QueueName, State, Timestamp};
use leasehold_tests::RedisServer;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::clocked_store::*;
use model::{Answer, Ending, Model};

/// One call. Numbers pick from what exists when it is made.
#[derive(Debug, Clone)]
enum Call {
    Submit { priority: Priority, delay_s: u64, limited: bool },
    Keyed { key: u8, digest: u8 },
    Batch { items: usize, open: bool },
    Import { old: u8, ending: u8 },
    ImportBatch { old: u8, ending: u8, items: Vec<u8> },
    Items { parent: usize, items: usize, last: bool },
    Claim { worker: u8, slots: usize },
    Settle { job: usize, ending: Ending, forged: bool },
    SettleAgain,
    Renew { worker: u8 },
    Pass { seconds: i64 },
    Away { seconds: i64 },
    Cancel { job: usize },
    Retry { job: usize },
    Remove { job: usize },
    Pause { paused: bool },
    LoseTokens,
}

fn call() -> impl Strategy<Value = Call> {
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    let ending = prop_oneof![
        3 => Just(Ending::Complete),
        1 => Just(Ending::Skip),
        2 => Just(Ending::Retry(3_000)),
        1 => Just(Ending::Fail),
        1 => Just(Ending::Release),
        1 => Just(Ending::ReleaseLater(5_000)),
    ];
    let at = 0..usize::MAX;
    prop_oneof![
        4 => (priority, prop_oneof![3 => Just(0_u64), 1 => 1..8_u64], any::<bool>())
            .prop_map(|(priority, delay_s, limited)| Call::Submit { priority, delay_s, limited }),
        1 => (0..3_u8, 0..2_u8).prop_map(|(key, digest)| Call::Keyed { key, digest }),
        2 => (0..4_usize, any::<bool>()).prop_map(|(items, open)| Call::Batch { items, open }),
        2 => (0..4_u8, 0..5_u8).prop_map(|(old, ending)| Call::Import { old, ending }),
        2 => (0..3_u8, 1..4_u8, prop::collection::vec(0..5_u8, 0..4))
            .prop_map(|(old, ending, items)| Call::ImportBatch { old, ending, items }),
        2 => (at.clone(), 0..3_usize, any::<bool>()).prop_map(|(parent, items, last)| Call::Items { parent, items, last }),
        6 => (0..3_u8, 1..5_usize).prop_map(|(worker, slots)| Call::Claim { worker, slots }),
        6 => (at.clone(), ending, prop::bool::weighted(0.1))
            .prop_map(|(job, ending, forged)| Call::Settle { job, ending, forged }),
        1 => Just(Call::SettleAgain),
        2 => (0..3_u8).prop_map(|worker| Call::Renew { worker }),
        3 => (1..20_i64).prop_map(|seconds| Call::Pass { seconds }),
        1 => (5..120_i64).prop_map(|seconds| Call::Away { seconds }),
        2 => at.clone().prop_map(|job| Call::Cancel { job }),
        2 => at.clone().prop_map(|job| Call::Retry { job }),
        1 => at.prop_map(|job| Call::Remove { job }),
        1 => any::<bool>().prop_map(|paused| Call::Pause { paused }),
        1 => Just(Call::LoseTokens),
    ]
}

/// What a job was in another store, by a number: open, completed, failed, cancelled, skipped.
fn past(ending: u8) -> Past {
    let ending = match ending {
        0 => None,
        1 => Some(store::Ending::Completed { result: json("1"), skipped: None }),
        2 => Some(store::Ending::Failed { message: "no".into(), at: Timestamp(1) }),
        3 => Some(store::Ending::Cancelled),
        _ => Some(store::Ending::Completed { result: json("null"), skipped: Some("none".into()) }),
    };
    Past { created_at: Timestamp(1), record: Some(json("{}")), ending, ended_at: None, output: Vec::new() }
}

/// Where that begins here, and whether as skipped.
fn state_of(ending: u8) -> (State, bool) {
    let states = [State::Queued, State::Completed, State::Failed, State::Cancelled, State::Completed];
    (states[usize::from(ending)], ending == 4)
}

/// The Store and the model, side by side.
struct Pair {
    ground: Ground,
    model: Model,
    keys: BTreeMap<u8, (u8, JobId)>,
    last: Option<(String, Settle, Settled)>,
    /// Every token that was issued, with its partition.
    issued: HashSet<(u16, u64)>,
}

const KINDS: [(&str, u32); 2] = [("work", 0), ("narrow", 2)];

impl Pair {
    async fn make(&mut self, call: &Call) {
        let pick = |at: usize, ids: Vec<JobId>| (!ids.is_empty()).then(|| ids[at % ids.len()].clone());
        match call {
            Call::Submit { priority, delay_s, limited } => self.submit(*priority, *delay_s, *limited).await,
            Call::Keyed { key, digest } => self.keyed(*key, *digest).await,
            Call::Batch { items, open } => {
                let items = (0..*items).map(|n| json(&n.to_string())).collect::<Vec<_>>();
                let (n, open) = (items.len(), *open);
                let parent =
                    self.ground.submit(NewJob { batch: Some(NewBatch { items, open, then: None }), ..job() }).await;
                self.model.batch(&parent, open);
                self.append(&parent, 0, n, !open);
            }
            Call::Import { old, ending } => self.import(*old, *ending).await,
            Call::ImportBatch { old, ending, items } => self.import_batch(*old, *ending, items).await,
            Call::Items { parent, items, last } => {
                if let Some(parent) = pick(*parent, self.model.parents()) {
                    self.items(&parent, *items, *last).await;
                }
            }
            Call::Claim { worker, slots } => self.claim(&format!("w{worker}"), *slots).await,
            Call::Settle { job, ending, forged } => {
                if let Some(id) = pick(*job, self.model.running()) {
                    self.settle(&id, *ending, *forged).await;
                }
            }
            Call::SettleAgain => self.settle_again().await,
            Call::Renew { worker } => {
                let name = format!("w{worker}");
                let held: Vec<Held> = self.model.held_by(&name).into_iter().map(|held| self.held(held)).collect();
                self.ground.renew(&name, &held).await;
                self.model.stamp();
                self.model.renew(&held);
            }
            Call::Pass { seconds } => {
                for _ in 0..*seconds {
                    self.tick(1_000).await;
                }
            }
            Call::Away { seconds } => self.tick(seconds * 1_000).await,
            Call::Cancel { job } => self.on_any(*job, "cancel").await,
            Call::Retry { job } => self.on_any(*job, "retry").await,
            Call::Remove { job } => self.on_any(*job, "remove").await,
            Call::Pause { paused } => {
                self.ground.store.pause(&QueueName::parse("default").unwrap(), *paused).await.unwrap();
                self.model.paused = *paused;
            }
            Call::LoseTokens => {
                for partition in 0..self.ground.store.partitions() {
                    self.ground.redis.command::<()>(&["DEL", &format!("lh:{{{partition}}}:tokens")]).await;
                }
                self.tick(1_000).await;
            }
        }
        self.compare(call).await;
    }

    /// Ended jobs are listed by their state. The walk over the keys finds nothing but a counter that was lost and not
    /// claimed from since.
    async fn end(&self) {
        let store = &self.ground.store;
        let totals = store.totals().await.unwrap();
        for state in [State::Completed, State::Failed, State::Cancelled] {
            let mut listed = self.ground.listed(Some(state), None).await;
            listed.sort();
            let wanted: Vec<JobId> = self.model.ids().into_iter().filter(|id| self.model.state(id) == state).collect();
            assert_eq!((&listed, totals[&state]), (&wanted, wanted.len() as u64), "{state}");
        }
        for finding in store.check().await.unwrap() {
            assert!(finding.subject.ends_with(":tokens"), "{finding:?}");
            store.repair(&finding).await.unwrap();
        }
        assert_eq!(store.check().await.unwrap(), []);
    }

    async fn tick(&mut self, ms: i64) {
        self.ground.advance(ms);
        self.model.now += ms;
        self.ground.sweep().await;
        self.model.sweep();
    }

    async fn submit(&mut self, priority: Priority, delay_s: u64, limited: bool) {
        let kind = kind(if limited { "narrow" } else { "work" });
        let due = if delay_s == 0 { Due::Now } else { Due::In(delay_s * 1_000) };
        let id = self.ground.submit(NewJob { kind, priority, due, limited, ..job() }).await;
        self.model.submit(&id, limited, delay_s as i64 * 1_000);
    }

    async fn keyed(&mut self, key: u8, digest: u8) {
        let submitted = self.ground.store.submit(keyed(&format!("k{key}"), &digest.to_string())).await;
        match self.keys.get(&key) {
            None => {
                let submitted = submitted.unwrap();
                assert!(!submitted.replayed);
                self.model.submit(&submitted.id, false, 0);
                self.keys.insert(key, (digest, submitted.id));
            }
            Some((known, id)) if *known == digest && self.model.contains(id) => {
                assert_eq!(submitted.unwrap().id, *id);
            }
            Some(_) => assert!(submitted.is_err(), "another body, or a job that is gone"),
        }
    }

    async fn items(&mut self, parent: &JobId, n: usize, last: bool) {
        let first = self.model.items_of(parent) as u64;
        let payloads: Vec<_> = (0..n).map(|n| json(&n.to_string())).collect();
        let added = self.ground.store.add_items(parent, first, &payloads, last).await;
        if self.model.is_sealed(parent) {
            assert_eq!(added.is_ok(), n == 0, "a sealed parent takes nothing new: {added:?}");
        } else {
            assert_eq!(added.unwrap(), first + n as u64);
            self.append(parent, first, n, last);
        }
    }

    fn append(&mut self, parent: &JobId, first: u64, n: usize, last: bool) {
        let ids = (first..first + n as u64)
            .map(|k| self.ground.store.item_id(parent, self.ground.store.partition_of(parent), k))
            .collect::<Vec<_>>();
        self.model.append(parent, &ids, last);
    }

    async fn import(&mut self, old: u8, ending: u8) {
        let id = JobId::parse(&format!("old-{old}")).unwrap();
        let imported = ImportedJob { id: id.clone(), job: job(), past: past(ending), input: Vec::new() };
        let new = self.ground.store.import(vec![imported]).await.unwrap().remove(0).unwrap();
        assert_eq!(new, !self.model.contains(&id), "a known id changes nothing");
        if new {
            let (state, skipped) = state_of(ending);
            self.model.import(&id, state, skipped);
        }
    }

    async fn import_batch(&mut self, old: u8, ending: u8, items: &[u8]) {
        let (store, id) = (&self.ground.store, JobId::parse(&format!("box-{old}")).unwrap());
        let batch = Some(NewBatch { items: Vec::new(), open: true, then: None });
        let parent = ImportedJob { id: id.clone(), job: NewJob { batch, ..job() }, past: past(0), input: Vec::new() };
        let new = store.import(vec![parent]).await.unwrap().remove(0).unwrap();
        assert_eq!(new, !self.model.contains(&id), "a known id changes nothing");
        let all: Vec<ImportedItem> =
            items.iter().map(|ending| ImportedItem { payload: json("1"), past: past(*ending) }).collect();
        let total = items.len() as u64;
        if !new {
            let known = self.model.items_of(&id) as u64;
            assert_eq!(store.import_items(&id, 0, &all).await.is_ok(), total <= known, "a sealed batch stays as it is");
            return;
        }
        // In two parts, the first of them twice.
        let half = items.len() / 2;
        for part in [&all[..half], &all[..half], &all[..]] {
            store.import_items(&id, 0, part).await.unwrap();
        }
        for _ in 0..2 {
            store.seal_import(&id, total, past(ending).ending.as_ref(), None).await.unwrap();
        }
        let items: Vec<_> = (0..total)
            .zip(items)
            .map(|(number, ending)| {
                let (state, skipped) = state_of(*ending);
                (store.item_id(&id, store.partition_of(&id), number), state, skipped)
            })
            .collect();
        self.model.import_batch(&id, &items, state_of(ending).0);
    }

    async fn claim(&mut self, name: &str, slots: usize) {
        let claimed = self.ground.claim_kinds(name, slots, &KINDS).await;
        assert!(claimed.len() <= slots);
        let left = slots - claimed.len();
        for job in &claimed {
            assert!(self.issued.insert((job.partition, job.held.token)), "{:?} was issued before", job.held);
            self.model.claim(&job.held, name, job.attempts, job.crashes);
        }
        let suspects = claimed.iter().filter(|j| j.crashes > 0).count();
        assert!(suspects <= usize::from(self.ground.store.partitions()));
        if left > 0 && suspects == 0 {
            assert_eq!(self.model.claimable(), Vec::<JobId>::new(), "{left} slots stayed free");
        }
    }

    fn held(&self, (id, token): (JobId, u64)) -> Held {
        Held { partition: self.ground.store.partition_of(&id), id, token }
    }

    async fn settle(&mut self, id: &JobId, ending: Ending, forged: bool) {
        let (held, name) = self.model.holder(id);
        let mut held = self.held(held);
        let expected = if forged {
            held.token += 1;
            Settled::Stale
        } else {
            self.model.settle(id, ending)
        };
        let settle = ending.settle(held);
        assert_eq!(self.ground.settle(&name, settle.clone()).await, expected);
        if !forged {
            self.last = Some((name, settle, expected));
        }
    }

    async fn settle_again(&mut self) {
        let Some((name, settle, answer)) = self.last.clone() else { return };
        let expected = if !self.model.contains(&settle.held.id) {
            Settled::Missing
        } else if self.model.claimed_since(&settle.held) {
            Settled::Stale
        } else {
            answer
        };
        assert_eq!(self.ground.settle(&name, settle).await, expected);
    }

    async fn on_any(&mut self, at: usize, verb: &str) {
        let ids = self.model.ids();
        let Some(id) = (!ids.is_empty()).then(|| ids[at % ids.len()].clone()) else { return };
        let store = &self.ground.store;
        let ids = std::slice::from_ref(&id);
        let (did, expected) = match verb {
            "cancel" => (store.cancel(ids).await.unwrap()[0].is_ok(), self.model.cancel(&id)),
            "retry" => (store.retry(ids).await.unwrap()[0].is_ok(), self.model.retry(&id)),
            _ => (store.remove(ids).await.unwrap()[0].is_ok(), self.model.remove(&id)),
        };
        assert_eq!(did, expected == Answer::Done, "{verb} of {id}");
    }

    async fn compare(&self, call: &Call) {
        let ids = self.model.ids();
        for (id, job) in ids.iter().zip(self.ground.store.get_many(&ids).await.unwrap()) {
            let expected = self.model.view(id);
            let seen = job.map(|job| model::view(&job));
            assert_eq!(seen.as_ref(), Some(&expected), "{id} after {call:?}");
        }
        for id in self.model.gone() {
            assert!(self.ground.store.get(id).await.unwrap().is_none(), "{id} is gone");
        }
    }
}

fn holds_for(partitions: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 100, max_shrink_iters: 400, failure_persistence: None, ..Config::default() };
    let redis = std::cell::RefCell::new(Some(runtime.block_on(RedisServer::start_with(&[("appendfsync", "no")], &[]))));
    let mut runner = TestRunner::new(config);
    let run = runner.run(&prop::collection::vec(call(), 1..60), |calls| {
        runtime.block_on(async {
            let server = redis.borrow_mut().take().expect("one case at a time");
            // The server is this test's alone; each case begins on an empty one.
            server.command::<()>(&["FLUSHALL"]).await;
            let ground = Ground::on(server, partitions).await;
            let model = Model::new(ground.now(), LEASE as i64);
            let mut pair = Pair { ground, model, keys: BTreeMap::new(), last: None, issued: HashSet::new() };
            let played = std::panic::AssertUnwindSafe(async {
                for call in &calls {
                    pair.make(call).await;
                }
                pair.end().await;
            });
            let played = futures_util::FutureExt::catch_unwind(played).await;
            *redis.borrow_mut() = Some(pair.ground.redis);
            played.map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                TestCaseError::fail(
                    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_default(),
                )
            })
        })
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

#[test]
fn the_store_does_what_the_model_says_on_one_partition() {
    holds_for(1);
}

#[test]
fn the_store_does_what_the_model_says_on_four_partitions() {
    holds_for(4);
}
