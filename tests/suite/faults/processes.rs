//! Rows in which a process is killed, stopped or told to end.
use super::*;

#[tokio::test]
async fn row_01_an_api_is_killed_during_submits() {
    let setup = Setup { apis: 2, workers: 1, ..Setup::default() };
    let row =
        Row { number: 1, fault: "kill -9 of an API during submits", injected: "4 × SIGKILL", setup, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 4, |n| (Way::Kill, Target::Api(n % 2), 0)).await).await;
}

#[tokio::test]
async fn row_02_a_worker_is_killed_in_its_handlers() {
    let row =
        Row { number: 2, fault: "kill -9 of a worker in its handlers", injected: "4 × SIGKILL", ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 4, |n| (Way::Kill, Target::Worker(n % 2), 0)).await)
        .await;
}

#[tokio::test]
async fn row_04_all_workers_are_killed() {
    let row =
        Row { number: 4, fault: "kill -9 of all workers", injected: "2 × SIGKILL, away for 1 s", ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 2, |_| (Way::Kill, Target::Workers, 1_000)).await).await;
}

#[tokio::test]
async fn row_09_a_worker_is_stopped_for_longer_than_its_lease() {
    let injected = "SIGSTOP for 5 s, lease 2 s";
    let row = Row { number: 9, fault: "SIGSTOP of a worker", injected, load_s: 6, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 1, |_| (Way::Stop, Target::Worker(0), 5_000)).await)
        .await;
}

#[tokio::test]
async fn row_11_an_api_is_stopped() {
    let setup = Setup { apis: 2, workers: 1, ..Setup::default() };
    let row = Row { number: 11, fault: "SIGSTOP of an API", injected: "SIGSTOP for 3 s", setup, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 1, |_| (Way::Stop, Target::Api(0), 3_000)).await).await;
}

#[tokio::test]
async fn row_05_redis_is_killed_with_always() {
    let row =
        Row { number: 5, fault: "kill -9 of Redis, `always`", injected: "3 × SIGKILL", load_s: 5, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 3, |_| (Way::Kill, Target::Redis, 200)).await).await;
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_05_redis_is_killed_twenty_times_with_always() {
    let injected = "20 × SIGKILL under load";
    let row = Row { number: 5, fault: "kill -9 of Redis, `always`", injected, load_s: 40, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 20, |_| (Way::Kill, Target::Redis, 200)).await).await;
}

#[tokio::test]
async fn row_07_redis_is_told_to_end_with_always() {
    let row = Row { number: 7, fault: "SIGTERM of Redis, `always`", injected: "2 × SIGTERM", ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 2, |_| (Way::Terminate, Target::Redis, 200)).await).await;
}

#[tokio::test]
async fn row_07_redis_is_told_to_end_with_everysec() {
    let row = Row { number: 7, fault: "SIGTERM of Redis, `everysec`", injected: "2 × SIGTERM", ..Row::default() };
    let faults = async |fleet: &Fleet, begun| times(fleet, begun, 2, |_| (Way::Terminate, Target::Redis, 200)).await;
    row.try_with(&[("appendfsync", "everysec")], None, faults).await;
}

#[tokio::test]
async fn row_08_redis_is_away_for_three_leases() {
    let injected = "SIGKILL, away for 6 s, lease 2 s";
    let row = Row { number: 8, fault: "Redis away for three leases", injected, load_s: 6, ..Row::default() };
    let faults = async |fleet: &Fleet, begun| {
        let down = times(fleet, begun, 1, |_| (Way::Kill, Target::Redis, 6_000));
        let (struck, ()) = tokio::join!(down, says(&fleet.apis[0], 503, "redis_unavailable"));
        struck
    };
    row.try_on_redis(faults).await;
}

/// Redis stops for so long; the probe says so, and no handler is run twice for it.
async fn redis_stops_for(seconds: u64, injected: &'static str) {
    let row = Row { number: 10, fault: "SIGSTOP of Redis", injected, load_s: seconds, ..Row::default() };
    let faults = async |fleet: &Fleet, begun| {
        let stop = times(fleet, begun, 1, |_| (Way::Stop, Target::Redis, 1_000 * seconds));
        let (struck, ()) = tokio::join!(stop, says(&fleet.apis[0], 503, "redis_unavailable"));
        struck
    };
    row.try_on_redis(faults).await;
}

#[tokio::test]
async fn row_10_redis_is_stopped_for_twelve_seconds() {
    redis_stops_for(12, "SIGSTOP for 12 s").await;
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_10_redis_is_stopped_for_a_minute() {
    redis_stops_for(60, "SIGSTOP for 60 s").await;
}
