//! The demo's end: the table of results, and "nothing lost" as facts that were checked.
use std::collections::{BTreeMap, HashSet};

use comfy_table::Cell;
use leasehold::{Job, JobId, State, Store, WorkerId};
use serde::Deserialize;

use super::client::{Accepted, Client, Observer};
use super::documents::{Document, file};
use super::narrator::paint;
use super::stage::Stage;
use crate::failure::Failure;
use crate::print::{self, Table, plain, state_cell};

/// Characters of a SHA-256 in the table.
const SHA_SHOWN: usize = 8;

/// The worker that was killed, and what it held.
pub(super) struct Victim {
    pub name: String,
    pub worker: WorkerId,
    pub held: Vec<Job>,
}

/// Something that must be true, and what speaks against it.
pub(super) struct Fact {
    pub claim: String,
    pub against: Vec<String>,
}

/// What the kind `process-files` reports.
#[derive(Deserialize)]
struct Counted {
    pages: u64,
    words: u64,
    characters: u64,
    sha256: String,
}

fn counted(job: &Job) -> Option<Counted> {
    job.result.as_ref().and_then(|result| result.to().ok())
}

/// Holds the items against what was promised.
pub(super) fn facts(documents: &[Document], jobs: &[Job], observer: &Observer, victim: &Victim) -> Vec<Fact> {
    let by_id: BTreeMap<&JobId, &Job> = jobs.iter().map(|job| (&job.id, job)).collect();
    let by_file: BTreeMap<String, &Job> = jobs.iter().filter_map(|job| Some((file(job)?, job))).collect();
    let undeserved = |document: &Document| match by_file.get(&document.file) {
        Some(job) => undeserved(document, job),
        None => Some(format!("{}: no item has it", document.file)),
    };
    vec![
        Fact {
            claim: "each file was processed once: the result has its SHA-256, or a clear error".into(),
            against: documents.iter().filter_map(undeserved).chain(moved(jobs, observer)).collect(),
        },
        Fact { claim: "no two items were settled with the same token".into(), against: same_tokens(jobs) },
        Fact {
            claim: format!(
                "the jobs that {} held when it died ran again on the other worker, with one crash counted",
                victim.name
            ),
            against: victim.held.iter().filter_map(|held| not_taken_over(held, &by_id, victim)).collect(),
        },
    ]
}

/// That the acknowledged batches have all their files, have ended, and count them as they are.
pub(super) async fn counted_batches(client: &Client, batches: &[Accepted], jobs: &[Job]) -> Result<Fact, Failure> {
    let mut against = Vec::new();
    let mut total = 0;
    for batch in batches {
        total += batch.files.len();
        let results = client.results(&batch.id).await?;
        let of_batch = || jobs.iter().filter(|job| job.parent.as_ref() == Some(&batch.id));
        let ended = |state| of_batch().filter(|job| job.state == state).count();
        let real = (batch.files.len(), ended(State::Completed), ended(State::Failed));
        let told = (results.total_files, results.successful_files, results.failed_files);
        if results.status != "Completed" || told != real || of_batch().count() != batch.files.len() {
            against.push(format!("the {} is {} and counts {told:?}, not {real:?}", batch.name, results.status));
        }
    }
    let claim = format!("both acknowledged batches are complete, with all {total} files counted by their outcome");
    Ok(Fact { claim, against })
}

/// That the same submits, sent again, made nothing new.
pub(super) fn doubled(accepted: &[Accepted], again: &[Accepted], batches: &[Job]) -> Fact {
    let changed = accepted.iter().zip(again).filter(|(first, second)| first.id != second.id);
    let changed = changed.map(|(first, second)| format!("{}: the second submit made {}", first.name, second.id));
    let unknown = batches.iter().filter(|batch| accepted.iter().all(|a| a.id != batch.id));
    let unknown = unknown.map(|batch| format!("batch {} was never acknowledged", batch.id));
    let claim = format!("{} submits repeated with the same Idempotency-Keys created no second job", accepted.len());
    Fact { claim, against: changed.chain(unknown).collect() }
}

fn undeserved(document: &Document, job: &Job) -> Option<String> {
    let right = match (&document.sha256, job.state) {
        (Some(sha256), State::Completed) => counted(job).is_some_and(|counted| counted.sha256 == *sha256),
        (None, State::Failed) => job.error.as_ref().is_some_and(|error| error.message.contains(&document.file)),
        _ => false,
    };
    let error = job.error.as_ref().map(|error| format!(" ({})", plain(&error.message))).unwrap_or_default();
    (!right).then(|| format!("{}: {}{error}", document.file, job.state))
}

fn moved(jobs: &[Job], observer: &Observer) -> Vec<String> {
    let changed = |job: &&Job| observer.end(&job.id).is_some_and(|end| end != *job);
    let since = jobs.iter().filter(changed).map(|job| format!("{} changed after its end", job.id));
    observer.changed.iter().cloned().chain(since).collect()
}

fn same_tokens(jobs: &[Job]) -> Vec<String> {
    let mut seen = HashSet::new();
    let wrong = |job: &&Job| job.token.is_none_or(|token| !seen.insert(token));
    jobs.iter().filter(wrong).map(|job| format!("job {} has token {:?}", job.id, job.token)).collect()
}

fn not_taken_over(held: &Job, by_id: &BTreeMap<&JobId, &Job>, victim: &Victim) -> Option<String> {
    let job = by_id.get(&held.id)?;
    let taken_over = job.crashes == 1 && job.worker.as_ref() != Some(&victim.worker) && job.token > held.token;
    let worker = job.worker.as_ref().map_or("nobody", WorkerId::as_str);
    (!taken_over).then(|| format!("{}: {} crashes, settled by {worker}", held.id, job.crashes))
}

/// The check that `leasehold doctor` does, on a system at rest.
pub(super) async fn keys(store: &Store) -> Result<Fact, Failure> {
    let found = store.check().await?.into_iter().map(|f| format!("{}: {}", f.subject, f.problem)).collect();
    Ok(Fact { claim: "a check of every key in Redis finds nothing wrong".into(), against: found })
}

/// Prints the results, a line a document.
pub(super) fn table(documents: &[Document], jobs: &[Job], stage: &Stage) -> std::io::Result<()> {
    let heads = ["DOCUMENT", "STATE", "PAGES", "WORDS", "CHARS", "SHA-256", "ATTEMPTS", "CRASHES", "WORKER"];
    let mut table = Table::new(&heads).elastic(0);
    let mut documents: Vec<&Document> = documents.iter().collect();
    documents.sort_by(|a, b| a.file.cmp(&b.file));
    let mut errors = Vec::new();
    for document in documents {
        let Some(job) = jobs.iter().find(|job| file(job).as_ref() == Some(&document.file)) else { continue };
        let counted = counted(job);
        let number =
            |of: fn(&Counted) -> u64| Cell::new(counted.as_ref().map_or_else(String::new, |c| of(c).to_string()));
        table.row(vec![
            Cell::new(&document.file),
            state_cell(job.state),
            number(|c| c.pages),
            number(|c| c.words),
            number(|c| c.characters),
            Cell::new(counted.as_ref().and_then(|c| c.sha256.get(..SHA_SHOWN)).unwrap_or_default()),
            Cell::new(format!("{}/{}", job.attempt, job.max_attempts)),
            Cell::new(job.crashes),
            Cell::new(job.worker.as_ref().map_or("", |worker| stage.name(worker))),
        ]);
        errors.extend(job.error.as_ref().map(|error| plain(&error.message)));
    }
    table.numbers(&[2, 3, 4, 6, 7]);
    print::line("")?;
    table.print()?;
    errors.iter().try_for_each(|error| print::line(format_args!("failed as expected: {error}")))
}

/// Prints the facts; whether all hold.
pub(super) fn print(facts: &[Fact]) -> std::io::Result<bool> {
    let holds = facts.iter().all(|fact| fact.against.is_empty());
    let head = if holds { paint("Nothing lost", "1;32") } else { paint("Something is wrong", "1;31") };
    print::line(format_args!("\n{head}"))?;
    for fact in facts {
        let mark = if fact.against.is_empty() { paint("✓", "32") } else { paint("✗", "31") };
        print::line(format_args!("  {mark} {}", fact.claim))?;
        fact.against.iter().try_for_each(|against| print::line(format_args!("      {}", plain(against))))?;
    }
    Ok(holds)
}
