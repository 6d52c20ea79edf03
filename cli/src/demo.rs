//! `leasehold demo`: two of the five systems at work, file batches on real documents and a text in job status, through
//! the death of a worker and of Redis.
//!
//! Always private: it reads no configuration, no LEASEHOLD_ variable, and leaves nothing behind. What it says at its
//! end it has checked.
mod client;
mod documents;
mod narrator;
mod stage;
mod text;
mod verdict;

use std::time::Duration;

use leasehold::Job;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::arguments::NotVia;
use crate::failure::Failure;
use crate::print;
use crate::stop::Signals;
use client::{Client, Observer, Status};
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
    arguments.not_via.check("the demo starts a private system and kills parts of it")?;
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
    let mut seen = match told {
        Ok(seen) => seen,
        Err(failure) => return Err(stage.with_logs(failure)),
    };
    stage.close().await;
    seen.facts.push(verdict::keys(&stage.store).await?);
    stage.stop_redis().await;
    narrator.end();
    verdict::table(documents, &seen.jobs, &stage)?;
    text::print(&seen.text)?;
    if verdict::print(&seen.facts)? { Ok(()) } else { Err(stage.with_logs(Failure::Said)) }
}

/// What became of everything, and what was checked on the way.
struct Seen {
    jobs: Vec<Job>,
    text: Status,
    facts: Vec<verdict::Fact>,
}

async fn act(stage: &mut Stage, documents: &[Document], narrator: &mut Narrator) -> Result<Seen, Failure> {
    let client = Client::new(&stage.base)?;
    let mut observer = Observer::new(&client);
    let (now, later) = documents.split_at(documents.len() * 2 / 3);
    narrator.say(format!("POST /jobs: a batch of {} documents; POST /api/suggestions: a text", now.len()));
    let text = client.submit_text("text", text::NOTE).await?;
    let mut accepted = vec![client.submit_files("first batch", names(now)).await?];
    observer.watch(&accepted[0].id);
    let mut victim = catch(stage, &mut observer, narrator, now.len()).await?;
    if victim.is_none() {
        // All were done before a worker was caught at one.
        accepted.push(client.submit_files("second batch", names(later)).await?);
        observer.watch(&accepted[1].id);
        victim = catch(stage, &mut observer, narrator, documents.len()).await?;
    }
    let missed = || Failure::Failed("no worker was caught in the middle of a job, so nothing could be shown".into());
    let victim = victim.ok_or_else(missed)?;
    observe(&mut observer, narrator, BETWEEN_BLOWS).await;
    stage.kill_redis().await?;
    let ((ended, known), held) = (observer.counts(), victim.held.len());
    narrator.blow(format!("kill -9 Redis: {ended} of {known} files are done, the dead worker still has {held}"));
    let mut second = JoinSet::new();
    if accepted.len() == 1 {
        narrator.say(format!("POST /jobs: {} more documents; the API holds on until Redis is back", later.len()));
        let (client, files) = (client.clone(), names(later));
        second.spawn(async move { client.submit_files("second batch", files).await });
    }
    observe(&mut observer, narrator, OUTAGE).await;
    stage.restart_redis().await?;
    narrator.say("Redis is back with all that it had acknowledged, read from its append-only file");
    for batch in second.join_all().await {
        accepted.push(batch?);
        observer.watch(&accepted[1].id);
        narrator.say("the second batch is accepted");
    }
    wait_for_end(&mut observer, narrator, &victim, documents.len()).await;
    accepted.push(text);
    let again = [
        client.submit_files("first batch", names(now)).await?,
        client.submit_files("second batch", names(later)).await?,
        client.submit_text("text", text::NOTE).await?,
    ];
    let (jobs, text) = (observer.items().await?, client.status(&accepted[2].id).await?);
    let mut facts = verdict::facts(documents, &jobs, &observer, &victim);
    facts.insert(0, verdict::counted_batches(&client, &accepted[..2], &jobs).await?);
    facts.push(verdict::doubled(&accepted, &again, &client.batches().await?));
    facts.push(text::fact(&text));
    Ok(Seen { jobs, text, facts })
}

fn names(documents: &[Document]) -> Vec<String> {
    documents.iter().map(|document| document.file.clone()).collect()
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
    narrator.say(format!("{} of {total} files are done", observer.counts().0));
}

/// Kills a worker in the middle of a job, once a third of the `submitted` ones have ended; `None` when all have before
/// it was caught. The worker is stopped first, so that what Redis then says of it is certain.
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
        let files: Vec<String> = held.iter().filter_map(documents::file).collect();
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
