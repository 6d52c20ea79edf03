//! Writes what a reader finds: jobs in chunks, a batch as its parent and then its items in chunks. What is here already
//! is skipped, so that an interrupted import continues.
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use leasehold::files::{FileEntry, FileError, Place as FilePlace, name};
use leasehold::job::NewBatch;
use leasehold::store::{Ending, IMPORTED_TOKEN, ImportedItem, ImportedJob, Known, Past};
use leasehold::{Draft, Error, JobId, Kind, Kinds, Store, Timestamp, limits};

use super::found::{Found, OldItem, OldJob, Place, Told};
use super::input;
use super::report::Report;
use crate::failure::Failure;

/// Where what is found goes.
pub(super) struct Importer {
    store: Store,
    kinds: Kinds,
    kind: Kind,
    dry_run: bool,
    upload_bytes: u64,
    report: Report,
    /// Hashes of the ids that were met.
    met: HashSet<u64>,
    hasher: RandomState,
    jobs: Vec<OldJob>,
    bytes: usize,
    batch: Option<Open>,
}

/// A batch whose items are coming.
struct Open {
    place: Place,
    id: JobId,
    /// It was not here.
    new: bool,
    /// Items it had here.
    total: u64,
    sealed: bool,
    /// The number of the next item.
    next: u64,
    items: Vec<ImportedItem>,
    bytes: usize,
    notes: Vec<Told>,
    ended_at: Timestamp,
    /// It has been reported, and its items are passed over.
    refused: bool,
}

impl Importer {
    pub(super) fn new(
        store: Store,
        kinds: Kinds,
        kind: Kind,
        dry_run: bool,
        upload_bytes: u64,
        report: Report,
    ) -> Self {
        let (met, hasher) = (HashSet::new(), RandomState::new());
        Self { store, kinds, kind, dry_run, upload_bytes, report, met, hasher, jobs: Vec::new(), bytes: 0, batch: None }
    }

    /// Ends the report; how much was skipped.
    pub(super) fn finish(&mut self) -> Result<u64, Failure> {
        self.report.finish()?;
        Ok(self.report.skipped)
    }

    /// Takes what the reader found.
    pub(super) async fn take(&mut self, found: Found) -> Result<(), Failure> {
        match found {
            Found::Total(records) => self.report.total(records),
            Found::Skipped(told) => self.report.skip(&told)?,
            Found::Job(job) => {
                self.report.step();
                if self.is_first(&job)? {
                    self.bytes += weight(&job);
                    self.jobs.push(*job);
                    if self.jobs.len() == limits::BATCH_MAX || self.bytes >= limits::BATCH_BYTES_MAX {
                        self.flush().await?;
                    }
                }
            }
            Found::Batch(job) => {
                self.report.step();
                self.begin(*job).await?;
            }
            Found::Item(item) => self.item(*item).await?,
            Found::End(ending, note) => self.end(ending, note).await?,
        }
        Ok(())
    }

    /// Whether no record before had this id.
    fn is_first(&mut self, job: &OldJob) -> Result<bool, Failure> {
        let first = self.met.insert(self.hasher.hash_one(&job.id));
        if !first {
            let reason = format!("another record of this store has the id {} too, and was taken", job.id);
            self.report.skip(&job.place.clone().told(reason))?;
        }
        Ok(first)
    }

    /// Writes the jobs that have gathered.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        let jobs = std::mem::take(&mut self.jobs);
        self.bytes = 0;
        let ids: Vec<&JobId> = jobs.iter().map(|job| &job.id).collect();
        let known = self.store.known(&ids).await?;
        let (mut told, mut new) = (Vec::new(), Vec::new());
        for (job, known) in jobs.into_iter().zip(known) {
            if let Some(known) = known {
                self.is_there(&job, &known, false)?;
                continue;
            }
            match if self.dry_run { Ok((Vec::new(), Vec::new())) } else { self.attach(&job).await? } {
                Ok((input, output)) => {
                    told.push((
                        job.id.clone(),
                        job.note.clone().map(|note| job.place.clone().told(note)),
                        job.place.clone(),
                    ));
                    new.push(self.imported(job, input, output));
                }
                Err(reason) => self.report.skip(&job.place.told(reason))?,
            }
        }
        let count = new.len();
        let answers = if self.dry_run { vec![Ok(true); count] } else { self.store.import(new).await? };
        for ((id, note, place), answer) in told.into_iter().zip(answers) {
            match answer {
                Ok(true) => {
                    self.report.imported += 1;
                    note.map_or(Ok(()), |note| self.report.note(&note))?;
                }
                Ok(false) => self.report.already_there += 1,
                Err(refusal) => {
                    if let Some(files) = self.store.files() {
                        files.remove(vec![id]).await;
                    }
                    self.report.skip(&place.told(refusal.to_string()))?;
                }
            }
        }
        Ok(())
    }

    /// Counts a job that is here, or reports that its id is another's. Whether it is the same.
    fn is_there(&mut self, job: &OldJob, known: &Known, batch: bool) -> Result<bool, Failure> {
        let conflict = if known.kind != self.kind {
            format!("there is a job {} of another kind, {}", job.id, known.kind)
        } else if let Some(parent) = &known.parent {
            format!("there is a job {} already, an item of batch {parent}", job.id)
        } else if known.total.is_some() != batch {
            format!("there is a job {} already, which is {} batch", job.id, if batch { "no" } else { "a" })
        } else {
            self.report.already_there += u64::from(!batch);
            return Ok(true);
        };
        self.report.skip(&job.place.clone().told(conflict))?;
        Ok(false)
    }

    /// Writes the file that goes with a job to the file store: what came with it, and what it made. Or why the job
    /// cannot come without it.
    async fn attach(&self, job: &OldJob) -> Result<Result<(Vec<FileEntry>, Vec<FileEntry>), String>, Failure> {
        let (Some(attachment), Some(files)) = (&job.attachment, self.store.files()) else {
            return Ok(Ok((Vec::new(), Vec::new())));
        };
        let place = if attachment.made { FilePlace::Out(IMPORTED_TOKEN) } else { FilePlace::In };
        let from = match input::open(&attachment.path) {
            Ok(file) => tokio::fs::File::from_std(file),
            Err(reason) => return Ok(Err(format!("its file {}: {reason}", attachment.path.display()))),
        };
        let written = async {
            let mut writer = files.create(&job.id, place, &attachment.name).await?;
            writer.push_all(from, self.upload_bytes).await?;
            writer.finish(name::content_type_of(&attachment.name)).await
        };
        match written.await {
            Ok(entry) if attachment.made => Ok(Ok((Vec::new(), vec![entry]))),
            Ok(entry) => Ok(Ok((vec![entry], Vec::new()))),
            Err(FileError::Failed(reason)) => Err(Failure::Failed(format!("the file store failed: {reason}"))),
            Err(refused) => Ok(Err(refused.to_string())),
        }
    }

    /// What the job is here.
    fn imported(&self, job: OldJob, input: Vec<FileEntry>, output: Vec<FileEntry>) -> ImportedJob {
        let new = Draft::new(self.kind.clone(), job.payload).into_job(&self.kinds);
        let ended_at = Some(job.ended_at.max(job.created_at));
        let past = Past { created_at: job.created_at, record: Some(job.record), ending: job.ending, ended_at, output };
        ImportedJob { id: job.id, job: new, past, input }
    }

    /// Begins a batch, or continues one.
    async fn begin(&mut self, job: OldJob) -> Result<(), Failure> {
        self.flush().await?;
        let (place, id) = (job.place.clone(), job.id.clone());
        let mut open = Open {
            place,
            id,
            new: false,
            total: 0,
            sealed: false,
            next: 0,
            items: Vec::new(),
            bytes: 0,
            notes: Vec::new(),
            ended_at: job.ended_at.max(job.created_at),
            refused: !self.is_first(&job)?,
        };
        open.notes.extend(job.note.clone().map(|note| job.place.clone().told(note)));
        match self.store.known(&[&job.id]).await?.remove(0) {
            _ if open.refused => {}
            Some(known) => {
                open.refused = !self.is_there(&job, &known, true)?;
                (open.total, open.sealed) = (known.total.unwrap_or(0), known.sealed);
            }
            None => {
                open.new = true;
                if !self.dry_run {
                    let mut parent = self.imported(job, Vec::new(), Vec::new());
                    parent.job.batch = Some(NewBatch { items: Vec::new(), open: true, then: None });
                    parent.past.ending = None;
                    if let Err(refusal) = self.store.import(vec![parent]).await?.remove(0) {
                        self.report.skip(&open.place.clone().told(refusal.to_string()))?;
                        open.refused = true;
                    }
                }
            }
        }
        self.batch = Some(open);
        Ok(())
    }

    async fn item(&mut self, old: OldItem) -> Result<(), Failure> {
        let open = self.batch.as_mut().expect("a reader sends items within a batch");
        open.next += 1;
        if open.refused || open.sealed || open.next <= open.total {
            return Ok(());
        }
        open.notes.extend(old.note);
        open.bytes += old.item.payload.as_str().len() + old.item.past.record.as_ref().map_or(0, |r| r.as_str().len());
        open.items.push(old.item);
        if open.items.len() == limits::BATCH_MAX || open.bytes >= limits::BATCH_BYTES_MAX {
            self.flush_items().await?;
        }
        Ok(())
    }

    /// Writes the items that have gathered.
    async fn flush_items(&mut self) -> Result<(), Failure> {
        let open = self.batch.as_mut().expect("a reader sends items within a batch");
        let (items, notes) = (std::mem::take(&mut open.items), std::mem::take(&mut open.notes));
        open.bytes = 0;
        let first = open.next - items.len() as u64;
        let written = if self.dry_run || items.is_empty() {
            Ok(open.next)
        } else {
            self.store.import_items(&open.id, first, &items).await
        };
        match written {
            Ok(_) => {
                self.report.items += items.len() as u64;
                notes.iter().try_for_each(|note| self.report.note(note))?;
            }
            Err(Error::Refused(refusal)) => {
                open.refused = true;
                self.report.skip(&open.place.clone().told(refusal.to_string()))?;
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Ends a batch: it takes no more items, and ends if they all have.
    async fn end(&mut self, ending: Option<Ending>, note: Option<Told>) -> Result<(), Failure> {
        let open = self.batch.as_mut().expect("a reader ends the batch it began");
        if !open.refused && !open.sealed {
            open.notes.extend(note);
            self.flush_items().await?;
        }
        let open = self.batch.take().expect("it is there");
        let Open { place, id, next, total, .. } = &open;
        if open.refused {
            return Ok(());
        }
        if open.sealed && next > total {
            return Ok(self.report.skip(&place.clone().told(format!(
                "batch {id} is here with {total} items and takes no more, and {next} are in the old store: an import of it was \
                 cut off and given up an hour later, or the old store has grown since; `leasehold jobs rm {id}`, once it has \
                 ended, and import again"
            )))?);
        }
        if open.sealed {
            self.report.already_there += 1;
            return Ok(());
        }
        if !self.dry_run {
            self.store.seal_import(id, *next.max(total), ending.as_ref(), Some(open.ended_at)).await?;
        }
        self.report.imported += 1;
        Ok(())
    }
}

/// What a job takes with it.
fn weight(job: &OldJob) -> usize {
    let result = match &job.ending {
        Some(Ending::Completed { result, .. }) => result.as_str().len(),
        _ => 0,
    };
    job.record.as_str().len() + job.payload.as_str().len() + result
}
