//! The demo's end: the table of results, and "nothing lost" as facts that were checked.
use std::collections::{BTreeMap, BTreeSet, HashSet};

use comfy_table::Cell;
use leasehold::{Job, JobId, State, Store, WorkerId};
use serde::Deserialize;

use super::client::{Accepted, Observer};
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
    claim: String,
    against: Vec<String>,
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

/// Holds the jobs against what was promised.
pub(super) fn facts(
    documents: &[Document],
    accepted: &[Accepted],
    again: &[Accepted],
    jobs: &[Job],
    observer: &Observer,
    victim: &Victim,
) -> Vec<Fact> {
    let by_id: BTreeMap<&JobId, &Job> = jobs.iter().map(|job| (&job.id, job)).collect();
    let of = |file: &str| accepted.iter().find(|a| a.file == file).and_then(|a| by_id.get(&a.id).copied());
    let total = documents.len();
    vec![
        Fact {
            claim: format!("all {total} accepted jobs are there, and have ended"),
            against: accepted.iter().filter_map(|a| not_ended(a, by_id.get(&a.id).copied())).collect(),
        },
        Fact {
            claim: "each ended once, with what its document deserves: its SHA-256, or a clear error".into(),
            against: documents
                .iter()
                .filter_map(|d| undeserved(d, of(&d.file)?))
                .chain(moved(jobs, observer))
                .collect(),
        },
        Fact {
            claim: format!("{total} submits sent again with the same Idempotency-Keys made no second job"),
            against: doubled(accepted, again, jobs),
        },
        Fact { claim: "no two jobs were settled with the same token".into(), against: same_tokens(jobs) },
        Fact {
            claim: format!("what {} held when it died was taken over, and counts one crash", victim.name),
            against: victim.held.iter().filter_map(|held| not_taken_over(held, &by_id, victim)).collect(),
        },
    ]
}

fn not_ended(accepted: &Accepted, job: Option<&Job>) -> Option<String> {
    match job {
        None => Some(format!("{}: its job {} is gone", accepted.file, accepted.id)),
        Some(job) if !job.state.is_final() => Some(format!("{}: its job {} is {}", accepted.file, job.id, job.state)),
        Some(_) => None,
    }
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

fn doubled(accepted: &[Accepted], again: &[Accepted], jobs: &[Job]) -> Vec<String> {
    let first: BTreeSet<(&str, &JobId)> = accepted.iter().map(|a| (a.file.as_str(), &a.id)).collect();
    let ids: HashSet<&JobId> = accepted.iter().map(|a| &a.id).collect();
    let other = again.iter().filter(|a| !first.contains(&(a.file.as_str(), &a.id)));
    let other = other.map(|a| format!("{}: the second submit made {}", a.file, a.id));
    let unknown =
        jobs.iter().filter(|job| !ids.contains(&job.id)).map(|job| format!("job {} was never acknowledged", job.id));
    other.chain(unknown).collect()
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
    Ok(Fact { claim: "a walk over every key in Redis finds nothing out of place".into(), against: found })
}

/// Prints the results, a line a document.
pub(super) fn table(documents: &[Document], jobs: &[Job], stage: &Stage) -> std::io::Result<()> {
    let heads = ["DOCUMENT", "STATE", "PAGES", "WORDS", "CHARS", "SHA-256", "ATTEMPTS", "CRASHES", "WORKER"];
    let mut table = Table::new(&heads).elastic(0);
    let mut documents: Vec<&Document> = documents.iter().collect();
    documents.sort_by(|a, b| a.file.cmp(&b.file));
    let mut errors = Vec::new();
    for document in documents {
        let Some(job) = jobs.iter().find(|job| file(job) == Some(&document.file)) else { continue };
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
    errors.iter().try_for_each(|error| print::line(format_args!("failed as it should: {error}")))
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
