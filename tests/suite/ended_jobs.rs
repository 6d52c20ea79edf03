//! Where ended jobs are listed: by kind, state and end, items of batches and imported jobs apart.
use std::collections::BTreeMap;
use std::path::PathBuf;

use leasehold::store::{Ending, ImportedJob, ListQuery, Migrated, Past};
use leasehold::{JobId, Kind, Kinds, NewJob, State, Timestamp};

use crate::clocked_store::*;

const DAY: i64 = 86_400_000;
const FINAL: [State; 3] = [State::Completed, State::Failed, State::Cancelled];

impl Ground {
    fn at(&self, id: &JobId, suffix: &str) -> String {
        format!("lh:{{{}}}:{suffix}", self.store.partition_of(id))
    }

    async fn is_in(&self, id: &JobId, suffix: &str) -> bool {
        self.redis.command::<Option<String>>(&["ZSCORE", &self.at(id, suffix), id.as_str()]).await.is_some()
    }

    async fn configure(&self, text: &str) {
        self.store.register_kinds(&Kinds::parse(text, PathBuf::from("/")).unwrap()).await.unwrap();
    }

    async fn cancelled(&self, name: &str, count: usize) -> Vec<JobId> {
        let jobs = vec![NewJob { kind: kind(name), ..job() }; count];
        let ids: Vec<_> = self.store.submit_many(jobs).await.unwrap().into_iter().map(|a| a.unwrap().id).collect();
        for answer in self.store.cancel(&ids).await.unwrap() {
            answer.unwrap();
        }
        ids
    }

    /// Imports a job that had ended `ago` ms ago.
    async fn imported(&self, id: &str, name: &str, ending: Ending, ago: i64) -> JobId {
        let id = JobId::parse(id).unwrap();
        let ended_at = Timestamp(self.now() - ago);
        let past = Past {
            created_at: Timestamp(1),
            record: None,
            ending: Some(ending),
            ended_at: Some(ended_at),
            output: Vec::new(),
        };
        let import = ImportedJob { id: id.clone(), job: NewJob { kind: kind(name), ..job() }, past, input: Vec::new() };
        self.store.import(vec![import]).await.unwrap().remove(0).unwrap();
        id
    }

    async fn gone(&self, id: &JobId) -> bool {
        self.store.get(id).await.unwrap().is_none()
    }

    /// The ids of a listing, over pages of three.
    pub async fn listed(&self, state: Option<State>, kind: Option<Kind>) -> Vec<JobId> {
        let (mut ids, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let query = ListQuery { state, kind: kind.clone(), limit: 3, ..ListQuery::default() };
            let query = if let Some(text) = &cursor { query.with_cursor(text).unwrap() } else { query };
            let page = self.store.list(&query).await.unwrap();
            assert!(page.jobs.len() == 3 || page.next_cursor.is_none(), "a full page, or the last");
            ids.extend(page.jobs.into_iter().map(|job| job.id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return ids;
            }
        }
    }

    /// Jobs of three kinds that have ended in every way: alone, as items, and before their import.
    async fn ended_in_every_way(&self) -> Vec<JobId> {
        let mut ids = Vec::new();
        for (n, name) in ["work", "few", "many", "work", "few"].into_iter().enumerate() {
            for state in FINAL {
                let id = self.submit(NewJob { kind: kind(name), ..job() }).await;
                if state == State::Cancelled {
                    self.store.cancel(std::slice::from_ref(&id)).await.unwrap()[0].clone().unwrap();
                } else {
                    let held = self.claim_kinds("w1", 1, &[(name, 0)]).await.pop().expect("it waits alone").held;
                    self.settle("w1", if state == State::Completed { complete(&held) } else { fail(&held, None) })
                        .await;
                }
                ids.push(id);
            }
            // Several ends have the same time.
            self.advance(if n % 2 == 0 { 1_000 } else { 0 });
        }
        for name in ["work", "few"] {
            let parent = self.submit(NewJob { kind: kind(name), ..batch(5) }).await;
            for (n, claimed) in self.claim_kinds("w1", 3, &[(name, 0)]).await.into_iter().enumerate() {
                let settle = if n == 0 { fail(&claimed.held, None) } else { complete(&claimed.held) };
                self.settle("w1", settle).await;
            }
            self.store.cancel(std::slice::from_ref(&parent)).await.unwrap()[0].clone().unwrap();
            let partition = self.store.partition_of(&parent);
            ids.extend((0..5).map(|n| self.store.item_id(&parent, partition, n)));
            ids.push(parent);
        }
        let result = || Ending::Completed { result: json("1"), skipped: None };
        let failed = Ending::Failed { message: "no".into(), at: Timestamp(1) };
        for (id, name, ending, ago) in [
            ("old-1", "work", result(), 1_500),
            ("old-2", "work", result(), 4_000 * DAY),
            ("old-3", "many", failed, 400 * DAY),
            ("old-4", "few", Ending::Cancelled, 500),
        ] {
            ids.push(self.imported(id, name, ending, ago).await);
        }
        ids
    }
}

/// Every key of ended jobs, with its members and their scores.
async fn indexes(g: &Ground) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for place in ["finished:*", "imported:*", "items:*", "expiry", "completed", "failed", "cancelled"] {
        for key in g.redis.command::<Vec<String>>(&["KEYS", &format!("lh:*:{place}")]).await {
            let members = g.redis.command(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).await;
            found.insert(key, members);
        }
    }
    found
}

/// Puts the ended jobs of a key where 0.1 had them, `limit` of each at most.
async fn put_back(g: &Ground, limit: usize) {
    for (key, members) in indexes(g).await {
        let words: Vec<&str> = key.split(':').collect();
        let [_, partition, place @ ("finished" | "imported" | "items"), name, state] = words[..] else { continue };
        let of = |suffix: &str| format!("lh:{partition}:{suffix}");
        for entry in members.chunks_exact(2).take(limit) {
            let (id, at) = (entry[0].as_str(), entry[1].as_str());
            let () = g.redis.command(&["ZREM", &key, id]).await;
            let () = g.redis.command(&["ZADD", &of(state), at, id]).await;
            if place != "items" {
                let () = g.redis.command(&["ZADD", &of(&format!("finished:{name}")), at, id]).await;
            }
            if place == "finished" {
                let days = if state == "completed" { 7 } else { 30 };
                let expires = (at.parse::<i64>().unwrap() + days * DAY).to_string();
                let () = g.redis.command(&["ZADD", &of("expiry"), &expires, id]).await;
            }
        }
    }
}

on_ground! {
    async fn ended_jobs_are_listed_by_state_and_kind_newest_end_first(g: &Ground) {
        let ids = g.ended_in_every_way().await;
        let jobs: Vec<_> = g.store.get_many(&ids).await.unwrap().into_iter().map(Option::unwrap).collect();
        let totals = g.store.totals().await.unwrap();
        for state in FINAL {
            for name in [None, Some("work"), Some("few"), Some("many"), Some("none")] {
                let of = |job: &&leasehold::Job| job.state == state && name.is_none_or(|n| job.kind.as_str() == n);
                let end = |job: &leasehold::Job| (job.finished_at.unwrap(), job.id.clone());
                let mut wanted: Vec<_> = jobs.iter().filter(of).map(end).collect();
                wanted.sort();
                wanted.reverse();
                let wanted: Vec<JobId> = wanted.into_iter().map(|(_, id)| id).collect();
                assert_eq!(g.listed(Some(state), name.map(kind)).await, wanted, "{state} {name:?}");
                if name.is_none() {
                    assert_eq!(totals[&state], wanted.len() as u64, "{state}");
                }
            }
        }
    }

    async fn retention_is_applied_as_it_is_when_jobs_are_pruned(g: &Ground) {
        let id = g.cancelled("few", 1).await.remove(0);
        g.elapse(10 * DAY).await;
        g.sweep().await;
        assert!(!g.gone(&id).await, "30 days by default");
        g.configure("[kinds.few]\nretention = { cancelled = \"20d\" }").await;
        g.sweep().await;
        assert!(!g.gone(&id).await);
        g.configure("[kinds.few]\nretention = { cancelled = \"9d\" }").await;
        g.sweep().await;
        assert!(g.gone(&id).await, "a shorter retention holds for jobs that have ended before");
    }

    async fn an_imported_job_is_kept_from_its_import_on(g: &Ground) {
        let failed = || Ending::Failed { message: "no".into(), at: Timestamp(1) };
        let stays = g.imported("old-1", "few", failed(), 900 * DAY).await;
        let revived = g.imported("old-2", "few", failed(), 900 * DAY).await;
        g.sweep().await;
        assert!(g.is_in(&stays, "imported:few:failed").await && g.is_in(&stays, "expiry").await);
        g.store.retry(std::slice::from_ref(&revived)).await.unwrap()[0].clone().unwrap();
        assert!(!g.is_in(&revived, "imported:few:failed").await && !g.is_in(&revived, "expiry").await);
        let held = g.claim_kinds("w1", 1, &[("few", 0)]).await.pop().unwrap().held;
        g.settle("w1", complete(&held)).await;
        assert!(g.is_in(&revived, "finished:few:completed").await && !g.is_in(&revived, "expiry").await);
        g.elapse(8 * DAY).await;
        g.sweep().await;
        assert!(g.gone(&revived).await && !g.gone(&stays).await, "it ended like any other: 7 days");
        g.elapse(23 * DAY).await;
        g.sweep().await;
        assert!(g.gone(&stays).await, "30 days after its import");
    }

    async fn imported_jobs_count_among_those_to_keep(g: &Ground) {
        let old = g.imported("old-1", "few", Ending::Cancelled, 900 * DAY).await;
        let newest = g.cancelled("few", 2).await;
        g.configure("[kinds.few]\nretention = { keep = 2 }").await;
        g.sweep().await;
        assert!(g.gone(&old).await, "it ended first");
        assert_eq!(g.listed(Some(State::Cancelled), None).await.len(), newest.len());
    }

    async fn every_kind_has_its_turn_and_a_backlog_is_pruned_on(g: &Ground) {
        for n in 0..70 {
            g.cancelled(&format!("kind-{n}"), 1).await;
        }
        let busy = g.cancelled("busy", 1_000).await;
        g.elapse(31 * DAY).await;
        let mut sweeps = 0;
        while !g.listed(Some(State::Cancelled), None).await.is_empty() {
            g.sweep().await;
            sweeps += 1;
            // The chance that 600 windows of 20 miss one of 71 kinds is nil.
            assert!(sweeps < 600);
        }
        assert!(g.gone(&busy[0]).await);
        let due: Vec<String> = g.redis.command(&["KEYS", "lh:*:due"]).await;
        assert_eq!(due, Vec::<String>::new(), "no kind is noted any more");
    }

    async fn the_doctor_finds_an_imported_job_without_its_expiry(g: &Ground) {
        let id = g.imported("old-1", "few", Ending::Cancelled, 900 * DAY).await;
        for place in ["expiry", "imported:few:cancelled"] {
            let () = g.redis.command(&["ZREM", &g.at(&id, place), id.as_str()]).await;
            let found = g.store.check().await.unwrap();
            assert_eq!(found.len(), 1, "{place}: {found:?}");
            g.store.repair(&found[0]).await.unwrap();
            assert_eq!(g.store.check().await.unwrap(), [], "{place}");
            g.sweep().await;
            assert!(g.is_in(&id, "imported:few:cancelled").await, "it is kept on");
        }
    }

    async fn ended_jobs_of_an_earlier_layout_are_moved(g: &Ground) {
        g.ended_in_every_way().await;
        g.submit(batch(2)).await;
        for name in ["few", "many"] {
            g.cancelled(name, 1_300).await;
        }
        g.sweep().await;
        let wanted = indexes(g).await;
        // The second time, a migration that was broken off has moved some already.
        for limit in [usize::MAX, 400] {
            put_back(g, limit).await;
            let () = g.redis.command(&["ZADD", "lh:{0}:finished:few", "5", "nobody"]).await;
            let () = g.redis.command(&["HDEL", "lh:meta", "layout"]).await;
            let found = g.store.check().await.unwrap();
            assert!(found.len() == 1 && found[0].problem.contains("its layout is 1"), "{found:?}");
            let done = g.store.migrate().await.unwrap();
            assert!(matches!(done, Migrated::Done { moved } if moved > 800), "{done:?}");
            assert_eq!(indexes(g).await, wanted);
            assert_eq!(g.store.check().await.unwrap(), []);
            assert_eq!(g.store.migrate().await.unwrap(), Migrated::Already);
        }
    }
}
