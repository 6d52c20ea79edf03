//! Rows in which Redis is full, busy, loading, short of clients, or flushed.
use serde_json::Value;

use super::*;

#[tokio::test]
async fn row_25_redis_is_out_of_memory() {
    let injected = "`CONFIG SET maxmemory` below what is used, for 4 s";
    let row = Row { number: 25, fault: "out of memory, `noeviction`", injected, load_s: 6, ..Row::default() };
    let faults = async |fleet: &Fleet, begun| {
        let full = times(fleet, begun, 1, |_| (Way::Full, Target::Redis, 4_000));
        let (struck, ()) = tokio::join!(full, says(&fleet.apis[0], 503, "redis_full"));
        struck
    };
    row.try_on_redis(faults).await;
}

#[tokio::test]
async fn row_28_the_aof_is_rewritten_under_load() {
    let injected = "`BGREWRITEAOF` in a loop for 4 s";
    let row = Row { number: 28, fault: "rewrite of the AOF", injected, load_s: 5, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 1, |_| (Way::Rewrite, Target::Redis, 4_000)).await).await;
}

#[tokio::test]
async fn row_27_redis_is_killed_while_it_rewrites_its_aof() {
    let injected = "3 × `BGREWRITEAOF`, then SIGKILL at once";
    let row = Row { number: 27, fault: "Redis killed in a rewrite", injected, load_s: 5, ..Row::default() };
    let faults = async |fleet: &Fleet, begun: Instant| {
        let mut struck = Vec::new();
        for _ in 0..3 {
            let () = fleet.system.redis().command(&["BGREWRITEAOF"]).await;
            struck.extend(times(fleet, begun, 1, |_| (Way::Kill, Target::Redis, 200)).await);
            sleep(Duration::from_millis(700)).await;
        }
        struck
    };
    row.try_on_redis(faults).await;
}

#[tokio::test]
async fn row_35_the_script_cache_is_flushed() {
    let injected = "`SCRIPT FLUSH` ten times a second for 4 s";
    let row = Row { number: 35, fault: "script cache flushed", injected, load_s: 5, ..Row::default() };
    let flush =
        async |fleet: &Fleet, begun| times(fleet, begun, 1, |_| (Way::FlushScripts, Target::Redis, 4_000)).await;
    let evidence = row.try_on_redis(flush).await;
    assert_eq!(evidence.refused(), 0, "it is nobody's error");
}

#[tokio::test]
async fn row_36_a_long_script_blocks_redis() {
    let injected = "a script that does not end, killed after 4 s; `busy-reply-threshold 200`";
    let row = Row { number: 36, fault: "long script (BUSY)", injected, load_s: 6, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 1, |_| (Way::Busy, Target::Redis, 4_000)).await).await;
}

#[tokio::test]
async fn row_37_redis_loads_for_long() {
    let injected = "SIGKILL, then an AOF that takes seconds to load (`key-load-delay`)";
    let row = Row { number: 37, fault: "LOADING", injected, load_s: 6, recovery_s: 12, ..Row::default() };
    let faults = async |fleet: &Fleet, begun: Instant| {
        let fill = "for i = 1, 30000 do redis.call('SET', 'key' .. i, i) end";
        let () = fleet.system.redis().command(&["EVAL", fill, "0"]).await;
        let kill = times(fleet, begun, 1, |_| (Way::Kill, Target::Redis, 0));
        let (struck, ()) = tokio::join!(kill, says(&fleet.apis[0], 503, "redis_unavailable"));
        struck
    };
    row.try_with(&[("key-load-delay", "150")], None, faults).await;
}

#[tokio::test]
async fn row_41_ids_are_pushed_a_second_time() {
    let injected = "`LPUSH` of ids that run, wait and have ended, for 4 s";
    let row = Row { number: 41, fault: "duplicate ids in a queue", injected, load_s: 5, ..Row::default() };
    let faults = async |fleet: &Fleet, begun: Instant| {
        let end = Instant::now() + Duration::from_secs(4);
        let mut pushed = 0;
        while Instant::now() < end {
            let listed = fleet.apis[0].get("/api/v1/jobs?limit=20").await.json;
            let ids = listed["jobs"].as_array().into_iter().flatten().filter_map(|job| job["id"].as_str());
            for id in ids {
                let _: Value = fleet.system.redis().command::<i64>(&["LPUSH", "lh:{0}:queue:default", id]).await.into();
                pushed += 1;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert!(pushed > 20 && begun.elapsed() > Duration::from_secs(4), "{pushed} ids were pushed");
        Vec::new()
    };
    row.try_on_redis(faults).await;
}

#[tokio::test]
async fn row_44_clients_are_killed() {
    let injected = "`CLIENT KILL TYPE normal` ten times a second for 3 s";
    let row = Row { number: 44, fault: "connections killed by Redis", injected, load_s: 5, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 1, |_| (Way::KillClients, Target::Redis, 3_000)).await)
        .await;
}

#[tokio::test]
async fn row_45_maxclients_is_reached() {
    let injected = "`CONFIG SET maxclients 2`, and all connections killed, for 12 s";
    let row = Row { number: 45, fault: "`maxclients` reached", injected, load_s: 6, ..Row::default() };
    let faults = async |fleet: &Fleet, begun| {
        let full = times(fleet, begun, 1, |_| (Way::MaxClients, Target::Redis, 12_000));
        let (struck, ()) = tokio::join!(full, says(&fleet.apis[0], 503, "redis_unavailable"));
        struck
    };
    row.try_on_redis(faults).await;
}
