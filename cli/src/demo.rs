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

use leasehold::Job;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::arguments::NotVia;
use crate::failure::Failure;
use crate::print;
use crate::stop::Signals;
use client::{Accepted, Client, Observer};
use documents::Document;
use narrator::Narrator;
use stage::Stage;
use verdict::Victim;

/// How long the jobs may take once Redis is back.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long a worker may take to be caught in the middle of a job.
const CATCH_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks at the jobs.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// How long after the worker Redis is killed.
const BETWEEN_BLOWS: Duration = Duration::from_millis(100);
/// How long Redis stays away.
const OUTAGE: Duration = Duration::from_millis(1_200);

/// Nothing can be chosen.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    not_via: NotVia,
}

/// Runs the demo.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.not_via.check("the demo starts a private system of its own, and kills parts of it")?;
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
    let (now, mut later) = documents.split_at(documents.len() * 2 / 3);
    let count = now.len();
    narrator.say(format!("submitting {count} documents as jobs of kind process-files, each with an Idempotency-Key"));
    let mut submits = Submits::new();
    submit(&mut submits, &client, now);
    let mut victim = catch(stage, &mut observer, narrator, count).await?;
    if victim.is_none() {
        // All were done before a worker was caught at one.
        submit(&mut submits, &client, later);
        victim = catch(stage, &mut observer, narrator, documents.len()).await?;
        later = &[];
    }
    let missed = || Failure::Failed("no worker was caught in the middle of a job, so nothing could be shown".into());
    let victim = victim.ok_or_else(missed)?;
    observe(&mut observer, narrator, BETWEEN_BLOWS).await;
    stage.kill_redis().await?;
    let ((ended, known), held) = (observer.counts(), victim.held.len());
    narrator.blow(format!("kill -9 Redis: {ended} of {known} jobs have ended, the dead worker still has {held}"));
    narrator.say(format!("submitting {} more documents; the API holds on until Redis is back", later.len()));
    submit(&mut submits, &client, later);
    observe(&mut observer, narrator, OUTAGE).await;
    stage.restart_redis().await?;
    narrator.say("Redis is back with all it had said yes to, read from its append-only file");
    let accepted = answers(submits).await?;
    narrator.say(format!("all {} submits are accepted", accepted.len()));
    wait_for_end(&mut observer, narrator, &victim, documents.len()).await;
    let mut again = Submits::new();
    submit(&mut again, &client, documents);
    let again = answers(again).await?;
    let jobs = client.jobs().await?;
    let facts = verdict::facts(documents, &accepted, &again, &jobs, &observer, &victim);
    Ok((jobs, facts))
}

type Submits = JoinSet<Result<Accepted, Failure>>;

/// Submits documents, all at once.
fn submit(submits: &mut Submits, client: &Client, documents: &[Document]) {
    for document in documents {
        let (client, file) = (client.clone(), document.file.clone());
        submits.spawn(async move { client.submit(file).await });
    }
}

async fn answers(submits: Submits) -> Result<Vec<Accepted>, Failure> {
    submits.join_all().await.into_iter().collect()
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

/// Waits until all jobs have ended, or their time is up.
async fn wait_for_end(observer: &mut Observer, narrator: &mut Narrator, victim: &Victim, total: usize) {
    let end = Instant::now() + END_LIMIT;
    let mut told = false;
    while !observer.all_ended(total) && Instant::now() < end {
        observe(observer, narrator, LOOK_EVERY).await;
        if !told && observer.jobs().any(|job| job.crashes > 0) {
            told = true;
            narrator.say(format!("the lease of {} has run out; the other worker takes over what it held", victim.name));
        }
    }
    narrator.say(format!("{} of {total} jobs have ended", observer.counts().0));
}

/// Kills a worker in the middle of a job, once a third of the `submitted` ones have ended; `None` when all have before it
/// was caught. The worker is stopped first, so that what Redis then says of it is certain.
async fn catch(
    stage: &mut Stage,
    observer: &mut Observer,
    narrator: &mut Narrator,
    submitted: usize,
) -> Result<Option<Victim>, Failure> {
    let end = Instant::now() + CATCH_LIMIT;
    while Instant::now() < end && !observer.all_ended(submitted) {
        observer.look().await;
        narrator.progress(observer.jobs());
        if 3 * observer.counts().0 < submitted {
            continue;
        }
        let Some(worker) = observer.busiest() else { continue };
        stage.pause(&worker);
        let mut caught = observer.look().await && !observer.held_by(&worker).is_empty();
        if caught {
            // A settle that was under way has arrived after this.
            sleep(LOOK_EVERY).await;
            caught = observer.look().await && !observer.held_by(&worker).is_empty();
        }
        if !caught {
            stage.resume(&worker);
            continue;
        }
        let held = observer.held_by(&worker);
        let name = stage.kill_worker(&worker).await?;
        let files: Vec<&str> = held.iter().filter_map(documents::file).collect();
        narrator.blow(format!("kill -9 {name}, in the middle of {}", files.join(" and ")));
        return Ok(Some(Victim { name, worker, held }));
    }
    Ok(None)
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
