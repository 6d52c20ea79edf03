//! Keys broken by hand: each is found, mended, and the jobs it was about go on; what cannot be read stops nobody else.
use leasehold::store::{Finding, Repair, Settled};
use leasehold::{JobId, State};

use crate::clocked_store::*;

/// Rounds that mending may take: what is set aside in one shows in the next what it leaves behind.
const ROUNDS_MAX: usize = 4;

impl Ground {
    fn key(&self, id: &JobId, suffix: &str) -> String {
        format!("lh:{{{}}}:{suffix}", self.store.partition_of(id))
    }

    async fn break_with(&self, command: &[&str]) {
        self.redis.command::<redis::Value>(command).await;
    }

    /// Mends until nothing is found; returns all that was.
    async fn mend(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let findings = self.store.check().await.unwrap();
            if findings.is_empty() {
                break;
            }
            for finding in &findings {
                assert!(finding.repair.is_some(), "{finding:?}");
                self.store.repair(finding).await.unwrap();
            }
            found.extend(findings);
        }
        assert_eq!(self.store.check().await.unwrap(), []);
        assert!(!found.is_empty(), "nothing was found");
        found
    }

    async fn runs_to_its_end(&self, id: &JobId) {
        let held = self.claim("later", 99).await.into_iter().map(|job| job.held).find(|held| held.id == *id);
        let held = held.expect("it can be claimed");
        assert_eq!(self.settle("later", complete(&held)).await, Settled::To(State::Completed));
    }
}

fn about<'a>(found: &'a [Finding], id: &'a JobId) -> Vec<&'a str> {
    found.iter().filter(|f| f.subject == id.as_str()).map(|f| f.problem.as_str()).collect()
}

on_ground! {
    async fn a_running_job_that_lost_a_place_gets_it_back_and_its_holder_settles(g: &Ground) {
        let id = g.submit(job()).await;
        g.renew("w1", &[]).await;
        let held = g.claim_one("w1").await.held;
        for command in [
            ["ZREM", &g.key(&id, "leases"), id.as_str()].to_vec(),
            ["SET", &g.key(&id, "leases"), "garbage"].to_vec(),
            ["LPUSH", &g.key(&id, "claimed:w1"), id.as_str()].to_vec(),
            ["SET", &g.key(&id, "claimed:w1"), "garbage"].to_vec(),
            ["ZADD", &g.key(&id, "scheduled"), "5", id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "expiry"), "5", id.as_str()].to_vec(),
            ["SADD", &g.key(&id, "permits:work"), id.as_str()].to_vec(),
            ["DEL", &g.key(&id, "kinds")].to_vec(),
        ] {
            g.break_with(&command).await;
            g.mend().await;
            assert_eq!(g.state(&id).await, State::Running, "{command:?}");
        }
        assert_eq!(g.settle("w1", complete(&held)).await, Settled::To(State::Completed));
    }

    async fn a_running_job_whose_record_of_running_is_lost_runs_again(g: &Ground) {
        let id = g.submit(job()).await;
        for command in [
            ["HDEL", &g.key(&id, "running"), id.as_str()].to_vec(),
            ["HSET", &g.key(&id, "running"), id.as_str(), "garbage"].to_vec(),
            ["SET", &g.key(&id, "running"), "garbage"].to_vec(),
        ] {
            let held = g.claim_one("w1").await.held;
            g.break_with(&command).await;
            g.mend().await;
            assert_eq!(g.state(&id).await, State::Queued, "{command:?}");
            assert_eq!(g.settle("w1", complete(&held)).await, Settled::Stale);
        }
        g.runs_to_its_end(&id).await;
    }

    async fn a_queued_job_that_no_list_has_is_queued_again(g: &Ground) {
        let id = g.submit(job()).await;
        for command in [
            ["DEL", &g.key(&id, "queue:default")].to_vec(),
            ["SET", &g.key(&id, "queue:default"), "garbage"].to_vec(),
            ["ZADD", &g.key(&id, "finished:work:completed"), "5", id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "items:other:failed"), "5", id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "imported:work:cancelled"), "5", id.as_str()].to_vec(),
            ["SADD", &g.key(&id, "cancelling"), id.as_str()].to_vec(),
            ["ZREM", &g.key(&id, "kind:work"), id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "kind:other"), "5", id.as_str()].to_vec(),
            ["RPOPLPUSH", &g.key(&id, "queue:default"), &g.key(&id, "claimed:ghost")].to_vec(),
        ] {
            g.break_with(&command).await;
            g.mend().await;
            assert_eq!(g.state(&id).await, State::Queued, "{command:?}");
        }
        g.break_with(&["LPUSH", &g.key(&id, "queue:default"), id.as_str(), id.as_str(), "nobody"]).await;
        assert_eq!(g.store.check().await.unwrap(), [], "an id may stand in a list more than once, or for no job");
        assert_eq!(g.claim("later", 99).await.len(), 1);
    }

    async fn a_final_job_is_listed_and_pruned_again(g: &Ground) {
        let id = g.submit(job()).await;
        g.runs_to_its_end(&id).await;
        for command in [
            ["ZREM", &g.key(&id, "finished:work:completed"), id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "finished:work:failed"), "5", id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "finished:other:completed"), "5", id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "items:work:completed"), "5", id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "imported:work:completed"), "5", id.as_str()].to_vec(),
            ["ZADD", &g.key(&id, "expiry"), "5", id.as_str()].to_vec(),
            ["SET", &g.key(&id, "finished:work:completed"), "garbage"].to_vec(),
            ["HSET", &g.key(&id, "running"), id.as_str(), "1 w9 5"].to_vec(),
        ] {
            g.break_with(&command).await;
            g.mend().await;
            assert_eq!(g.state(&id).await, State::Completed, "{command:?}");
        }
        g.elapse(8 * 86_400_000).await;
        g.sweep().await;
        assert!(g.store.get(&id).await.unwrap().is_none(), "its retention has passed");
    }

    async fn what_stands_for_a_removed_record_goes_with_it(g: &Ground) {
        for step in 0..3 {
            let id = g.submit(job()).await;
            let held = if step > 0 { Some(g.claim_one("w1").await.held) } else { None };
            if step > 1 {
                g.settle("w1", fail(held.as_ref().unwrap(), None)).await;
            }
            g.break_with(&["DEL", &g.key(&id, &format!("job:{id}"))]).await;
            g.mend().await;
            assert_eq!(g.claim("later", 99).await.len(), 0);
        }
    }

    async fn a_record_that_cannot_be_read_is_set_aside_and_its_neighbour_runs(g: &Ground) {
        for (field, value) in [
            ("kind", None),
            ("queue", None),
            ("payload", None),
            ("created_at", None),
            ("kind", Some("No Kind")),
            ("queue", Some("No Queue")),
            ("priority", Some("urgent")),
            ("state", Some("asleep")),
            ("crashes", Some("many")),
            ("attempts", Some("-1")),
        ] {
            let (broken, whole) = (g.submit(job()).await, g.submit(job()).await);
            let key = g.key(&broken, &format!("job:{broken}"));
            match value {
                Some(value) => g.break_with(&["HSET", &key, field, value]).await,
                None => g.break_with(&["HDEL", &key, field]).await,
            }
            let found = g.mend().await;
            assert!(found.iter().any(|f| f.subject == key && f.problem.contains("unreadable job record")), "{field}: {found:?}");
            assert!(found.iter().any(|f| matches!(&f.repair, Some(Repair::Accept(k)) if *k == key)), "{field}: {found:?}");
            assert!(g.store.get(&broken).await.unwrap().is_none());
            g.runs_to_its_end(&whole).await;
        }
    }

    async fn a_claim_passes_over_records_that_nobody_mended(g: &Ground) {
        for (field, value) in [("crashes", "many"), ("queue", "No Queue"), ("state", "asleep"), ("attempts", "x")] {
            let (broken, whole) = (g.submit(job()).await, g.submit(job()).await);
            g.break_with(&["HSET", &g.key(&broken, &format!("job:{broken}")), field, value]).await;
            g.runs_to_its_end(&whole).await;
            g.mend().await;
        }
        let id = g.submit(job()).await;
        g.break_with(&["SET", &g.key(&id, &format!("job:{id}")), "garbage"]).await;
        assert_eq!(g.claim("later", 99).await.len(), 0);
        g.mend().await;
    }

    async fn a_lost_or_damaged_counter_gives_no_token_twice(g: &Ground) {
        let id = g.submit(job()).await;
        let mut last = 0;
        for command in [
            ["DEL", &g.key(&id, "tokens")].to_vec(),
            ["SET", &g.key(&id, "tokens"), "0"].to_vec(),
            ["SET", &g.key(&id, "tokens"), "garbage"].to_vec(),
            ["LPUSH", &g.key(&id, "tokens"), "garbage"].to_vec(),
        ] {
            for _ in 0..3 {
                let held = g.claim_one("w1").await.held;
                assert!(held.token > last);
                last = held.token;
                g.settle("w1", release(&held)).await;
            }
            if command[0] == "LPUSH" {
                g.break_with(&["DEL", &g.key(&id, "tokens")]).await;
            }
            g.break_with(&command).await;
            if command.last() != Some(&"garbage") {
                g.mend().await;
                g.break_with(&command).await;
            }
        }
        assert!(g.claim_one("w1").await.held.token > last);
        g.mend().await;
    }

    async fn a_damaged_clock_stops_neither_leases_nor_sweeps(g: &Ground) {
        let id = g.submit(job()).await;
        g.renew("w1", &[]).await;
        let held = g.claim_one("w1").await.held;
        for field in ["stamp", "lease_max_ms", "grace_from", "grace_until"] {
            for partition in 0..g.store.partitions() {
                g.break_with(&["HSET", &format!("lh:{{{partition}}}:clock"), field, "garbage"]).await;
            }
            g.renew("w1", std::slice::from_ref(&held)).await;
            g.sweep().await;
        }
        assert_eq!(g.state(&id).await, State::Running);
    }

    async fn parked_jobs_are_found_when_their_index_is_lost(g: &Ground) {
        let id = g.submit(job()).await;
        assert_eq!(g.claim_kinds("w1", 9, &[("other", 0)]).await.len(), 0, "it is parked");
        assert_eq!(g.length(g.store.partition_of(&id), "parked:default:work").await, 1);
        g.break_with(&["DEL", &g.key(&id, "parked:default")]).await;
        let found = g.mend().await;
        assert_eq!(about(&found, &id), ["the job is queued but is not in any list"]);
        g.runs_to_its_end(&id).await;
    }

    async fn a_leaked_permit_is_given_back(g: &Ground) {
        let id = g.submit(job()).await;
        g.break_with(&["SADD", &g.key(&id, "permits:work"), "nobody"]).await;
        assert_eq!(g.claim_kinds("w1", 9, &[("work", 1)]).await.len(), 0, "the permit is taken");
        g.mend().await;
        assert_eq!(g.claim_kinds("w1", 9, &[("work", 1)]).await.len(), 1);
    }

    async fn a_batch_counts_what_its_items_are(g: &Ground) {
        let parent = g.submit(batch(3)).await;
        let held = g.claim("w1", 9).await.into_iter().map(|job| job.held).collect::<Vec<_>>();
        assert_eq!(held.len(), 3);
        g.settle("w1", complete(&held[0])).await;
        let key = g.key(&parent, &format!("job:{parent}"));
        g.break_with(&["HSET", &key, "items_failed", "7"]).await;
        g.mend().await;
        let counts = g.get(&parent).await.items.unwrap();
        assert_eq!((counts.succeeded, counts.failed, counts.total), (1, 0, 3));
        g.break_with(&["HSET", &key, "items_succeeded", "garbage"]).await;
        g.settle("w1", complete(&held[1])).await;
        g.mend().await;
        assert_eq!(g.get(&parent).await.items.unwrap().succeeded, 2);
        g.break_with(&["DEL", &g.key(&parent, &format!("job:{}", held[2].id))]).await;
        g.mend().await;
        let ended = g.get(&parent).await;
        assert_eq!((ended.state, ended.items.unwrap().failed), (State::Completed, 1), "an item that is gone has failed");
    }

    async fn items_of_a_removed_batch_end_and_are_pruned(g: &Ground) {
        let parent = g.submit(batch(2)).await;
        let held = g.claim("w1", 1).await.pop().unwrap().held;
        g.break_with(&["DEL", &g.key(&parent, &format!("job:{parent}"))]).await;
        g.mend().await;
        g.settle("w1", complete(&held)).await;
        assert_eq!(g.get(&held.id).await.parent, None);
        g.runs_to_its_end(&g.store.item_id(&parent, g.store.partition_of(&parent), 1)).await;
        g.elapse(8 * 86_400_000).await;
        g.sweep().await;
        assert!(g.store.get(&held.id).await.unwrap().is_none());
    }

    async fn reads_go_on_over_keys_of_another_type(g: &Ground) {
        let id = g.submit(job()).await;
        g.renew("w1", &[]).await;
        for suffix in ["leases", "running", "retrying", "scheduled", "cancelling", "paused", "queue:default:high",
            "parked:default", "kind:work", "kinds", "worker:w1", "workers"] {
            g.break_with(&["DEL", &g.key(&id, suffix)]).await;
            g.break_with(&["SET", &g.key(&id, suffix), "garbage"]).await;
            assert_eq!(g.state(&id).await, State::Queued, "{suffix}");
            g.store.list(&leasehold::store::ListQuery { limit: 9, ..Default::default() }).await.unwrap();
            g.store.queues(None).await.unwrap();
            g.store.workers().await.unwrap();
            g.mend().await;
        }
        g.runs_to_its_end(&id).await;
    }
}
