//! Goal 13: a batch of commands beside `xargs`, which runs the same commands on the same machine.
use std::process::Stdio;
use std::time::{Duration, Instant};

use leasehold::job::NewBatch;
use leasehold::{Json, State, Store};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use super::Bench;
use super::drain::consistent;
use super::report::{Bound, Row};
use super::site::{Fsync, Site};
use super::work;
use crate::failure::Failure;

/// Commands at the same time.
const SLOTS: usize = 8;
/// The kind, and the command of each of its jobs.
const KIND: &str = "shell";
const SCRIPT: &str = "exit 0";
/// How often the batch is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a batch may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Goal 13.
pub(super) async fn batch(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let count = bench.ground.size.commands();
    let site = Site::start(&bench.ground, Fsync::Everysec, 1).await?;
    let kinds = site.folder().join("kinds.toml");
    std::fs::write(&kinds, format!("[kinds.{KIND}]\ncommand = [\"sh\", \"-c\", \"{SCRIPT}\"]\n"))?;
    let settings =
        [("LEASEHOLD_KINDS", kinds.display().to_string()), ("LEASEHOLD_WORKER__CONCURRENCY", SLOTS.to_string())];
    let mut worker = site.run("leasehold-worker", &settings)?;
    worker.await_worker(&site.store).await?;
    run_batch(&site.store, SLOTS).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.ground.size.rounds() {
        ours.push(count as f64 / run_batch(&site.store, count).await?);
        theirs.push(count as f64 / run_xargs(count).await?);
    }
    worker.stop().await?;
    consistent(&site.store).await?;
    site.close().await?;
    let row = Row::new(format!("batch of {count} sh -c jobs, {SLOTS} slots"), "/s", ours);
    Ok(vec![row.against(format!("xargs -P{SLOTS}"), theirs).needs(Bound::AtLeast(0.7))])
}

/// Submits a batch and waits for its end; how long that took, s.
async fn run_batch(store: &Store, count: usize) -> Result<f64, Failure> {
    let items = vec![Json::null(); count];
    let mut job = work::job(KIND, "null");
    job.batch = Some(NewBatch { items, open: false, then: None });
    let begun = Instant::now();
    let id = store.submit(job).await?.id;
    loop {
        let job = store.get(&id).await?.ok_or_else(|| Failure::Failed(format!("the batch {id} is gone")))?;
        let seconds = begun.elapsed().as_secs_f64();
        let succeeded = job.items.as_ref().map_or(0, |items| items.succeeded);
        if job.state == State::Completed && succeeded == count as u64 {
            return Ok(seconds);
        }
        if job.state.is_final() || begun.elapsed() > LIMIT {
            return Err(Failure::Failed(format!(
                "{succeeded} of {count} commands succeeded; the batch is {}",
                job.state
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How long `xargs` takes for as many of the same commands, s.
async fn run_xargs(count: usize) -> Result<f64, Failure> {
    let fault = |e: std::io::Error| Failure::Failed(format!("xargs: {e}"));
    let mut command = tokio::process::Command::new("xargs");
    command.args(["-P", &SLOTS.to_string(), "-n", "1", "sh", "-c", SCRIPT]);
    // In a separate process group, as the other programs: Ctrl-C reaches this process only.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
    // SAFETY: between fork and exec it makes one system call.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    let begun = Instant::now();
    let mut child = command.spawn().map_err(fault)?;
    let mut input = child.stdin.take().expect("it is piped");
    let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
    input.write_all(lines.as_bytes()).await.map_err(fault)?;
    drop(input);
    let status = child.wait().await.map_err(fault)?;
    if !status.success() {
        return Err(Failure::Failed(format!("xargs ended with {status}")));
    }
    Ok(begun.elapsed().as_secs_f64())
}
