//! `leasehold demo`: the main job on real documents, through the death of a worker and of Redis.
//!
//! Always private: it reads no configuration, no LEASEHOLD_ variable, and leaves nothing behind. What it says at its end
//! it has checked.
mod client;
mod documents;
mod narrator;
mod stage;
mod verdict;

use std::time::Duration;

use leasehold::{Job, State};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::print;
use crate::stop::Signals;
use client::{Accepted, Client, Observer};
use documents::Document;
use narrator::Narrator;
use stage::Stage;

/// How long the jobs may take once Redis is back.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long a worker may take to be caught in the middle of a job.
const CATCH_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks at the jobs.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// How long Redis stays away.
const OUTAGE: Duration = Duration::from_millis(1_200);

/// Runs the demo.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let folder = tempfile::Builder::new().prefix("leasehold-demo-").tempdir()?;
    let documents = documents::all()?;
    let mut narrator = Narrator::begin(documents.len());
    let told = tokio::select! {
        told = tell(folder.path(), &documents, &mut narrator) => told,
        () = signals.received() => Err(Failure::Failed("the demo was stopped; nothing is left of it".into())),
    };
    narrator.end();
    // What still runs was killed when the telling was dropped.
    folder.close()?;
    told?;
    Ok(where_next()?)
}

async fn tell(folder: &std::path::Path, documents: &[Document], narrator: &mut Narrator) -> Result<(), Failure> {
    let mut stage = Stage::set(folder, narrator).await?;
    let told = act(&mut stage, documents, narrator).await;
    let (jobs, mut facts) = match told {
        Ok(seen) => seen,
        Err(failure) => return Err(stage.with_logs(failure)),
    };
    stage.close().await;
    facts.push(verdict::keys(&stage.store).await?);
    stage.stop_redis().await;
    narrator.end();
    verdict::table(documents, &jobs, &stage)?;
    if verdict::print(&facts)? { Ok(()) } else { Err(stage.with_logs(Failure::Said)) }
}

/// The whole run: what became of every job, and what was checked on the way.
async fn act(
    stage: &mut Stage,
    documents: &[Document],
    narrator: &mut Narrator,
) -> Result<(Vec<Job>, Vec<verdict::Fact>), Failure> {
    let client = Client::new(&stage.base)?;
    let mut observer = Observer::new(&client);
    let (now, later) = documents.split_at(documents.len() * 2 / 3);
    narrator.say(format!(
        "submitting {} documents as jobs of kind process-files, over HTTP, each with an Idempotency-Key",
        now.len()
    ));
    let mut accepted = submit(&client, now).join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let victim = catch(stage, &mut observer, narrator, now.len() / 4).await?;
    observe(&mut observer, narrator, Duration::from_millis(300)).await;
    stage.kill_redis().await?;
    let (ended, known) = observer.counts();
    narrator.blow(format!("kill -9 Redis, with {ended} of {known} jobs ended and one in the hands of a dead worker"));
    narrator.say(format!("submitting {} more documents; the API holds them until Redis is back", later.len()));
    let submits = submit(&client, later);
    observe(&mut observer, narrator, OUTAGE).await;
    stage.restart_redis().await?;
    narrator.say("Redis is back, with all it had answered: its append-only file was synced with every write");
    accepted.extend(submits.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?);
    narrator.say(format!("all {} submits are accepted", accepted.len()));
    let end = Instant::now() + END_LIMIT;
    while !observer.all_ended(documents.len()) && Instant::now() < end {
        observe(&mut observer, narrator, LOOK_EVERY).await;
    }
    let (ended, _) = observer.counts();
    narrator.say(format!("{ended} of {} jobs have ended", documents.len()));
    let again = submit(&client, documents).join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let jobs = client.jobs().await?;
    let facts = verdict::facts(documents, &accepted, &again, &jobs, &observer, &victim);
    Ok((jobs, facts))
}

fn submit(client: &Client, documents: &[Document]) -> JoinSet<Result<Accepted, Failure>> {
    let mut submits = JoinSet::new();
    for document in documents {
        let (client, file) = (client.clone(), document.file.clone());
        submits.spawn(async move { client.submit(file).await });
    }
    submits
}

/// Looks at the jobs for a while.
async fn observe(observer: &mut Observer, narrator: &mut Narrator, time: Duration) {
    let end = Instant::now() + time;
    loop {
        observer.look().await;
        narrator.progress(observer.jobs());
        if Instant::now() >= end {
            return;
        }
        sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

/// Kills a worker in the middle of a job: stopped first, so that what Redis then says of it is certain.
async fn catch(
    stage: &mut Stage,
    observer: &mut Observer,
    narrator: &mut Narrator,
    ended_min: usize,
) -> Result<verdict::Victim, Failure> {
    let end = Instant::now() + CATCH_LIMIT;
    while Instant::now() < end {
        observer.look().await;
        narrator.progress(observer.jobs());
        let running = |job: &&Job| job.state == State::Running && job.worker.is_some();
        let busy = observer.jobs().filter(running).max_by_key(|job| documents::size(job));
        let Some((job, worker)) = busy.and_then(|job| Some((job.clone(), job.worker.clone()?))) else { continue };
        if observer.counts().0 < ended_min {
            continue;
        }
        stage.pause(&worker);
        // A settle that was under way has arrived after this.
        sleep(Duration::from_millis(30)).await;
        observer.look().await;
        let held: Vec<Job> = observer.jobs().filter(running).filter(|j| j.worker == job.worker).cloned().collect();
        if held.is_empty() {
            stage.resume(&worker);
            continue;
        }
        let name = stage.kill_worker(&worker).await?;
        let files: Vec<&str> = held.iter().filter_map(documents::file).collect();
        narrator.blow(format!("kill -9 {name}, in the middle of {}", files.join(" and ")));
        return Ok(verdict::Victim { name, worker, held });
    }
    Err(Failure::Failed("no worker was caught in the middle of a job, so nothing could be shown".into()))
}

fn where_next() -> std::io::Result<()> {
    print::line(
        "\nWhere to look next
  make up             the same system, and it stays up: submit jobs of your own
  README.md           how to submit work and write handlers, in Rust or in any language
  ARCHITECTURE.md     why nothing is lost: leases, tokens, and who may write what
  make test           the same deaths and worse, by the hundred",
    )
}
