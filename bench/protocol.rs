//! What a program of `make bench-peers` and its driver say to each other: see bench/peers.py.
use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::Notify;

/// How often a worker reports, unless it has executed nothing since.
const REPORT: Duration = Duration::from_millis(50);

/// Wall clock at one moment, continued by the monotonic clock: comparable between the processes of a machine.
static EPOCH: LazyLock<(u64, Instant)> = LazyLock::new(|| {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    (wall.as_micros() as u64, Instant::now())
});
static EXECUTED: AtomicU64 = AtomicU64::new(0);
static FIRST: AtomicU64 = AtomicU64::new(u64::MAX);
static LAST: AtomicU64 = AtomicU64::new(0);
static STARTED: Notify = Notify::const_new();

/// Now, microseconds since 1970.
pub fn now() -> u64 {
    EPOCH.0 + EPOCH.1.elapsed().as_micros() as u64
}

/// What every handler does: it counts itself.
pub fn executed() {
    let now = now();
    if EXECUTED.fetch_add(1, Relaxed) == 0 {
        FIRST.fetch_min(now, Relaxed);
    }
    LAST.fetch_max(now, Relaxed);
    STARTED.notify_one();
}

/// The driver's word for this program, from the environment.
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: bench/peers.py runs this program"))
}

/// One line to the driver.
pub fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the driver reads");
}

/// Waits for the driver's next line; its end counts as one.
async fn hear() {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let _ = read.await.expect("reading does not panic");
}

/// Everything is connected: waits for the driver's go.
pub async fn ready(versions: &str) {
    LazyLock::force(&EPOCH);
    say(&json!({ "ready": versions }));
    hear().await;
}

fn report(ended: bool) {
    let (executed, last) = (EXECUTED.load(Relaxed), LAST.load(Relaxed));
    say(&json!({ "executed": executed, "first": FIRST.load(Relaxed), "last": last, "ended": ended }));
}

/// Reports what the handlers have counted until the driver says stop.
pub async fn report_until_stop() {
    let mut stop = std::pin::pin!(hear());
    let mut reported = 0;
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(REPORT) => {}
        }
        let executed = EXECUTED.load(Relaxed);
        if executed > reported {
            reported = executed;
            report(false);
        }
    }
}

/// The last report, once the worker has ended.
pub fn report_end() {
    report(true);
}

/// Submits one job at a time to an idle worker, and reports the times from submit to the start of the handler, µs.
pub async fn latency<F: Future<Output = ()>>(samples: u64, mut submit: impl FnMut() -> F) {
    let mut micros = Vec::new();
    for at in 0..samples + samples / 10 {
        // Uneven, so that no poll of a peer falls into step.
        tokio::time::sleep(Duration::from_micros(5_000 + at * 7_919 % 10_000)).await;
        let before = EXECUTED.load(Relaxed);
        let begun = now();
        submit().await;
        while EXECUTED.load(Relaxed) == before {
            STARTED.notified().await;
        }
        micros.push(LAST.load(Relaxed).saturating_sub(begun));
    }
    // The first tenth is the warm-up.
    say(&json!({ "us": micros[(samples / 10) as usize..] }));
}
