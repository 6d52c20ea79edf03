//! Cancels and removals of many batches: nothing accumulates, and no cancel waits for what retention removes.
use leasehold::store::{Cancelled, Removed, Swept};
use leasehold::{JobId, State};

use crate::clocked_store::*;

/// Sweeps until nothing is left to do. Returns how many rounds that took.
async fn sweeps(g: &Ground) -> usize {
    for round in 1..100 {
        let swept: Vec<Swept> = g.sweep().await;
        if swept.iter().all(|s| !s.more && s.pruned == 0 && s.cascaded == 0) {
            return round;
        }
    }
    panic!("the sweeps find no end");
}

async fn ended_batches(g: &Ground, count: usize, items: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(g.submit(batch(items)).await);
    }
    for answer in g.store.cancel(&ids).await.unwrap() {
        answer.unwrap();
    }
    sweeps(g).await;
    ids
}

async fn count(g: &Ground, suffix: &str) -> usize {
    let mut count = 0;
    for partition in 0..g.store.partitions() {
        count += g.redis.command::<usize>(&["HLEN", &format!("lh:{{{partition}}}:{suffix}")]).await;
    }
    count
}

on_ground! {
    async fn many_small_batches_are_removed_in_a_few_sweeps(g: &Ground) {
        let ids = ended_batches(g, 600, 3).await;
        g.elapse(31 * 86_400_000).await;
        // One sweep finds that they have expired; then each removes hundreds.
        let rounds = sweeps(g).await;
        assert!(rounds <= 6, "{rounds} sweeps");
        assert!(g.store.get_many(&ids).await.unwrap().iter().all(Option::is_none));
        let left: Vec<String> = g.redis.command(&["KEYS", "lh:*:job:*"]).await;
        assert_eq!((left, count(g, "removals").await), (Vec::new(), 0));
    }

    async fn a_cancel_does_not_wait_for_removals(g: &Ground) {
        ended_batches(g, 900, 1).await;
        g.elapse(31 * 86_400_000).await;
        let large = g.submit(batch(6_000)).await;
        g.sweep().await;
        assert_eq!(count(g, "removals").await, 900);
        g.store.cancel(std::slice::from_ref(&large)).await.unwrap()[0].clone().unwrap();
        assert_eq!(g.get(&large).await.items.unwrap().cancelled, 2_000, "the first steps are taken at once");
        g.sweep().await;
        assert_eq!(g.state(&large).await, State::Cancelled);
        sweeps(g).await;
    }

    async fn a_small_batch_is_cancelled_retried_and_removed_at_once(g: &Ground) {
        let id = [g.submit(batch(20)).await];
        assert_eq!(g.store.cancel(&id).await.unwrap(), [Ok(Cancelled::Done)]);
        assert_eq!(g.state(&id[0]).await, State::Cancelled);
        g.store.retry(&id).await.unwrap()[0].clone().unwrap();
        assert_eq!(g.state(&g.store.item_id(&id[0], g.store.partition_of(&id[0]), 19)).await, State::Queued);
        g.store.cancel(&id).await.unwrap()[0].clone().unwrap();
        assert_eq!(g.store.remove(&id).await.unwrap(), [Ok(Removed::Done)]);
        assert!(g.store.get(&g.store.item_id(&id[0], g.store.partition_of(&id[0]), 19)).await.unwrap().is_none());
    }

    async fn a_removal_of_an_older_version_is_continued(g: &Ground) {
        let id = ended_batches(g, 1, 5).await.remove(0);
        let key = |suffix: &str| format!("lh:{{{}}}:{suffix}", g.store.partition_of(&id));
        let () = g.redis.command(&["HSET", &key("cascades"), id.as_str(), "remove 0"]).await;
        let () = g.redis.command(&["ZREM", &key("finished:work:cancelled"), id.as_str()]).await;
        assert_eq!(g.store.check().await.unwrap(), []);
        sweeps(g).await;
        assert!(g.store.get(&id).await.unwrap().is_none());
    }

    async fn the_doctor_reports_cascades_that_do_not_end(g: &Ground) {
        let id = ended_batches(g, 1, 5).await.remove(0);
        let key = |suffix: &str| format!("lh:{{{}}}:{suffix}", g.store.partition_of(&id));
        let step = format!("remove 0 {}", g.now());
        let () = g.redis.command(&["HSET", &key("removals"), id.as_str(), &step]).await;
        let () = g.redis.command(&["ZREM", &key("finished:work:cancelled"), id.as_str()]).await;
        g.advance(599_000);
        assert_eq!(g.store.check().await.unwrap(), []);
        g.advance(2_000);
        let found = g.store.check().await.unwrap();
        assert!(found.len() == 1 && found[0].subject == key("removals"), "{found:?}");
        assert_eq!(g.store.check().await.unwrap(), found, "the same at the second look");
        sweeps(g).await;
    }
}
