//! Rows in which the network between the processes and Redis breaks.
use leasehold::store::script_sha;
use leasehold_tests::Then;
use leasehold_tests::proxy::script;

use super::*;

#[tokio::test]
async fn row_12_all_connections_are_reset() {
    let injected = "5 × a reset by a proxy";
    let row = Row { number: 12, fault: "connections to Redis cut", injected, load_s: 6, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 5, |_| (Way::Cut, Target::Redis, 0)).await).await;
}

#[tokio::test]
async fn row_13_all_connections_are_half_open() {
    let injected = "a proxy swallows what open connections carry";
    let row =
        Row { number: 13, fault: "half-open connections, the proxy lives", injected, load_s: 6, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 1, |_| (Way::HalfOpen, Target::Redis, 0)).await).await;
}

#[tokio::test]
async fn row_15_replies_do_not_arrive() {
    let injected = "a proxy drops Redis → worker for 4 s, each in turn";
    let row = Row { number: 15, fault: "one-way loss", injected, load_s: 10, ..Row::default() };
    let faults =
        async |fleet: &Fleet, begun| times(fleet, begun, 2, |n| (Way::NoReplies, Target::Worker(n), 4_000)).await;
    row.try_on_redis(faults).await;
}

#[tokio::test]
async fn row_17_latency_jitter_and_a_narrow_link_lose_no_lease() {
    let injected = "50–500 ms each way, 1 Mbit/s, for 8 s; lease 2 s";
    // Nothing is excused: the fault is no worker's.
    let row = Row { number: 17, fault: "latency and jitter", injected, load_s: 8, ..Row::default() };
    row.try_on_redis(async |fleet, begun| times(fleet, begun, 1, |_| (Way::Slow, Target::Redis, 8_000)).await).await;
}

#[tokio::test]
async fn row_19_frames_are_cut_half_way() {
    let injected = "a proxy passes 3 bytes of a reply or 40 of a request, then cuts";
    let row = Row { number: 19, fault: "partial frame, then a cut", injected, load_s: 6, ..Row::default() };
    let faults = async |fleet: &Fleet, _| {
        let of = |name: &str| script(script_sha(name).expect("a script of that name"));
        let mut rules = Vec::new();
        for link in &fleet.worker_links {
            rules.extend(["claim", "settle", "renew"].map(|name| link.cut_reply_to(of(name), 2, 3, Then::Cut)));
            rules.extend(["claim", "settle"].map(|name| link.cut_request_to(of(name), 5, 40, Then::Cut)));
        }
        for link in &fleet.api_links {
            rules.push(link.cut_reply_to(of("submit"), 2, 3, Then::Cut));
            rules.push(link.cut_request_to(of("submit"), 5, 40, Then::Cut));
        }
        for rule in rules {
            rule.fired().await;
        }
        // Nothing is excused: a claim whose reply was lost has started no handler.
        Vec::new()
    };
    row.try_on_redis(faults).await;
}
