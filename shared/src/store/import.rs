//! Import: jobs of another store, with their ids and states. A known id changes nothing, so an interrupted import can
//! be repeated.
use super::Store;
use super::past::{Ending, Past};
use super::submit::{Minted, Submitted};
use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, keys, split};
use crate::files::FileEntry;
use crate::job::Uploaded;
use crate::{JobId, Json, Kind, NewJob, Refusal, Result, Timestamp};

/// A job of another store.
#[derive(Debug, Clone)]
pub struct ImportedJob {
    /// Its id in the other store.
    pub id: JobId,
    /// The job to write. A batch is given open and without items: these follow by [`Store::import_items`].
    pub job: NewJob,
    /// Its past in the other store.
    pub past: Past,
    /// Files already written to the file store at `Place::In`.
    pub input: Vec<FileEntry>,
}

/// An item of a batch of another store.
#[derive(Debug, Clone)]
pub struct ImportedItem {
    /// The input of its handler.
    pub payload: Json,
    /// Its past in the other store.
    pub past: Past,
}

/// An existing job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its kind.
    pub kind: Kind,
    /// The batch it is an item of.
    pub parent: Option<JobId>,
    /// For a batch: how many items it has.
    pub total: Option<u64>,
    /// Whether it is a sealed batch.
    pub sealed: bool,
}

impl Store {
    /// Imports jobs. Returns for each, in order, whether it is new. A known id, of whatever job, changes
    /// nothing.
    ///
    /// # Errors
    /// Those of any call; a job's refusal (too many kinds or queues) is returned in its place.
    pub async fn import(&self, jobs: Vec<ImportedJob>) -> Result<Vec<Result<bool, Refusal>>> {
        let places = self.places(jobs.iter().map(|job| &job.id)).await?;
        let minted: Vec<Minted> = jobs.into_iter().zip(places).map(|(job, place)| minted(job, place)).collect();
        let answers = self.submit_all(&minted).await?;
        let is_new = |submitted: Submitted| submitted.accepted.is_some();
        Ok(answers.into_iter().map(|answer| answer.expect("it has no key").map(is_new)).collect())
    }

    /// Brings in items of a batch from number `first` on, each as it stood. Those already in are passed over. Returns
    /// how many the batch has.
    ///
    /// # Errors
    /// As `Store::add_items`; [`Refusal::Taken`] when another job has the id of an item.
    pub async fn import_items(&self, parent: &JobId, first: u64, items: &[ImportedItem]) -> Result<u64> {
        let (partition, mut total, mut number) = (self.place(parent).await?, first, first);
        for part in split(items, |item| item.payload.as_str().len() + item.past.bytes()) {
            let args = Args::default().text(parent.as_str()).number(number).number(0).texts(["", ""]);
            let args = part.iter().zip(number..).fold(args.count(part.len()), |args, (item, number)| {
                let mut fields = item.past.fields();
                fields.push(("created_at", item.past.created_at.0.to_string()));
                fields.push(("payload", item.payload.as_str().to_owned()));
                let ended = item.past.ended();
                let args = args.texts([self.item_id(parent, partition, number).as_str(), &ended]).count(fields.len());
                fields.into_iter().fold(args, |args, (name, value)| args.text(name).text(value))
            });
            total = self.run_items(parent, partition, &args, 0).await?;
            number += part.len() as u64;
        }
        Ok(total)
    }

    /// Seals an imported batch of `total` items. With an ending, and the time of it if that is known, it ends so at
    /// once if all its items have ended; without, as any batch does.
    ///
    /// # Errors
    /// As `Store::add_items`.
    pub async fn seal_import(
        &self,
        parent: &JobId,
        total: u64,
        ending: Option<&Ending>,
        ended_at: Option<Timestamp>,
    ) -> Result<()> {
        let ended = ending.map(|ending| ending.with_time(ended_at)).unwrap_or_default();
        let fields = ending.map(Ending::fields).unwrap_or_default();
        let error = fields.iter().find(|(name, _)| *name == "error").map_or("", |(_, error)| error);
        let args = Args::default().text(parent.as_str()).number(total).number(1);
        let args = args.texts([ended.as_str(), error]).number(0);
        self.run_items(parent, self.place(parent).await?, &args, 0).await.map(drop)
    }

    /// The existing jobs among these ids.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn known(&self, ids: &[&JobId]) -> Result<Vec<Option<Known>>> {
        let mut commands = Vec::new();
        let places = self.places(ids.iter().copied()).await?;
        for (id, partition) in ids.iter().zip(places) {
            let fields = &["kind", "parent", "items_total", "sealed"];
            let command = redis::cmd("HMGET").arg(keys::job(partition, id)).arg(fields).to_owned();
            commands.push((Home::Partition(partition), command));
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let known = |reply: &redis::Value| {
            let [kind, parent, total, sealed] = array(reply) else { return None };
            Some(Known {
                kind: Kind::parse(&text(kind)).ok()?,
                parent: JobId::parse(&text(parent)).ok(),
                total: number(total).and_then(|n| u64::try_from(n).ok()),
                sealed: *sealed != redis::Value::Nil,
            })
        };
        Ok(self.inner.wire.pipe_each_leniently(&commands).await?.iter().map(known).collect())
    }
}

fn minted(imported: ImportedJob, partition: u16) -> Minted {
    let ImportedJob { id, mut job, past, input } = imported;
    job.uploaded = Some(Uploaded { id: id.clone(), files: input });
    Minted { id, partition, placed_by: 0, job, past: Some(past) }
}
