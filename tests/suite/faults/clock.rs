//! Rows in which a clock jumps.
use super::*;

/// Redis's wall clock jumps by so much under load, and stays there.
async fn redis_jumps_by(seconds: i64, injected: &'static str, recovery_s: u64) {
    let shim = Shim::build();
    let row = Row { number: 33, fault: "jump of Redis's clock", injected, load_s: 5, recovery_s, ..Row::default() };
    let faults = async |_: &Fleet, _| {
        shim.clock(1_000 * seconds);
        sleep(Duration::from_secs(3)).await;
        // Nothing is excused: no lease is lost by a jump.
        Vec::new()
    };
    row.try_with(&[], Some(&shim), faults).await;
}

#[tokio::test]
async fn row_33_the_clock_of_redis_jumps_a_minute_ahead() {
    redis_jumps_by(60, "+60 s by a preloaded library", 10).await;
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_33_the_clock_of_redis_jumps_an_hour_ahead() {
    redis_jumps_by(3_600, "+1 h", 10).await;
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_33_the_clock_of_redis_jumps_a_minute_back() {
    // What was scheduled before is due by the clock that was set back.
    redis_jumps_by(-60, "−60 s", 75).await;
}

#[tokio::test]
async fn row_34_the_clock_of_the_workers_jumps() {
    let shim = Shim::build();
    let worker_environment = shim.environment().into();
    let setup = Setup { apis: 1, workers: 2, worker_environment, ..Setup::default() };
    let injected = "+1 h, then −1 h, by a preloaded library";
    let row = Row { number: 34, fault: "jump of the workers' clock", injected, load_s: 6, setup, ..Row::default() };
    let faults = async |_: &Fleet, _| {
        for hours in [1, -1, 0] {
            shim.clock(hours * 3_600_000);
            sleep(Duration::from_secs(2)).await;
        }
        Vec::new()
    };
    row.try_on_redis(faults).await;
}
