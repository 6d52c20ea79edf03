//! Short ids: the first or the last characters of an id stand for it where they are those of one job only.
use std::collections::BTreeMap;

use leasehold::{Job, JobId};

use super::{Backend, Listing};
use crate::failure::Failure;
use crate::print;

/// Characters of a UUID, as new jobs have them: an id that long is never short for another.
const FULL: usize = 36;
/// The fewest characters that stand for an id.
const SHORT_MIN: usize = 4;
/// Jobs among which a short id is looked for: the newest ones.
const SEARCHED: usize = 1_000;
/// Pages in which they are read; a page of large jobs is shorter.
const PAGE: usize = 500;
const PAGES_MAX: usize = 8;
/// Candidates that an error lists.
const SHOWN: usize = 5;

impl Backend {
    /// The job that this id names, or is short for; the id as it is where there is none. A full id costs no call.
    pub(crate) async fn resolve(&self, id: &JobId) -> Result<JobId, Failure> {
        Ok(self.resolve_all(std::slice::from_ref(id)).await?.remove(0))
    }

    /// [`Backend::resolve`] for many, which are looked for in one listing.
    pub(crate) async fn resolve_all(&self, ids: &[JobId]) -> Result<Vec<JobId>, Failure> {
        let mut short = Vec::new();
        for id in ids {
            // An id of an imported job may be as short as any.
            let text = id.as_str();
            if text.len() < FULL && text.len() >= SHORT_MIN && self.find(id).await?.is_none() {
                short.push(text);
            }
        }
        if short.is_empty() {
            return Ok(ids.to_vec());
        }
        let mut matches: BTreeMap<&str, Vec<Job>> = BTreeMap::new();
        let mut listing = Listing { limit: PAGE, ..Listing::default() };
        let mut searched = 0;
        for _ in 0..PAGES_MAX {
            let page = self.list(&listing).await?;
            searched += page.jobs.len();
            for job in page.jobs {
                for id in short.iter().filter(|id| stands_for(id, &job.id)) {
                    matches.entry(id).or_default().push(job.clone());
                }
            }
            listing.cursor = page.next_cursor;
            if searched >= SEARCHED || listing.cursor.is_none() {
                break;
            }
        }
        let resolved = |id: &JobId| match matches.get(id.as_str()).map_or(&[][..], Vec::as_slice) {
            [] => Ok(id.clone()),
            [job] => Ok(job.id.clone()),
            several => Err(ambiguous(id, several)),
        };
        ids.iter().map(resolved).collect()
    }
}

/// Whether a short id is the beginning or the end of this one.
fn stands_for(short: &str, id: &JobId) -> bool {
    id.as_str().starts_with(short) || id.as_str().ends_with(short)
}

fn ambiguous(id: &JobId, jobs: &[Job]) -> Failure {
    let mut text = format!("{id} is short for {} jobs; write more of the id:", jobs.len());
    for job in jobs.iter().take(SHOWN) {
        text += &format!("\n  {}  {}, {}, {}", job.id, job.kind, job.state, print::age(job.created_at));
    }
    if jobs.len() > SHOWN {
        text += &format!("\n  … and {} more", jobs.len() - SHOWN);
    }
    Failure::Failed(text)
}
