//! Submit: new jobs, each at most once. A batch is submitted first and its items follow (`items`).
use redis::Value;

use super::Store;
use super::past::Past;
use super::wire::reply::{array, number, text};
use super::wire::{Args, keys, scripts, split};
use crate::job::Due;
use crate::{Error, JobId, Json, NewJob, Refusal, Result, State, Timestamp, limits};

/// How often an id is drawn again because its partition is away.
const DRAWS: usize = 20;

/// A job with its id and, for a batch, the items to follow.
pub(super) struct Minted {
    pub id: JobId,
    pub partition: u16,
    pub job: NewJob,
    /// Its past in another store.
    pub past: Option<Past>,
}

impl Minted {
    /// The entry in the script's arguments.
    fn bytes(&self) -> usize {
        self.job.payload.as_str().len() + self.past.as_ref().map_or(0, Past::bytes)
    }
}

/// The result of a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The job: the new one, or the one already submitted with its Idempotency-Key.
    pub id: JobId,
    /// Whether it had been submitted before, with this key and this body.
    pub replayed: bool,
    /// The data of the new job; absent for an existing job, which must be read.
    pub accepted: Option<Accepted>,
}

/// The data that Redis stored for a new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its first state.
    pub state: State,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it is due, if not at once.
    pub scheduled_at: Option<Timestamp>,
}

/// Whether the uploaded files belong to no job, and cannot come to belong to one.
fn is_needless(submitted: &Result<Submitted>) -> bool {
    match submitted {
        Ok(submitted) => submitted.replayed,
        Err(Error::Refused(Refusal::KeyConflict(_) | Refusal::KeyGone(_) | Refusal::TooManyNames { .. })) => true,
        Err(e) => matches!(e, Error::Unavailable(_) | Error::Full(_)),
    }
}

impl Store {
    /// Submits one job, together with whatever else is being submitted. What was uploaded for a job that it cannot come
    /// to be is removed; when in doubt the walk decides.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason; [`Error::Full`] when Redis is out of memory. On [`Error::OutcomeUnknown`] it
    /// may be there: only its Idempotency-Key can tell. On [`Error::TooFewReplicas`] it is there, and a failover may
    /// lose it.
    pub async fn submit(&self, job: NewJob) -> Result<Submitted> {
        let minted = self.mint(job);
        let submitted = self.submit_minted(&minted).await;
        if let (Some(files), Some(_)) = (self.files(), minted.job.uploaded.as_ref().filter(|_| is_needless(&submitted)))
        {
            files.remove(vec![minted.id.clone()]).await;
        }
        let submitted = submitted?;
        self.fill_batch(&submitted, &minted.job).await.map_err(Error::after_a_change)?;
        Ok(submitted)
    }

    async fn submit_minted(&self, minted: &Minted) -> Result<Submitted> {
        let replicas = minted.job.durability.replicas();
        // In calls of their own, so that no other submit waits for a replica.
        let groups = if replicas > 0 { &self.inner.waiting_submits } else { &self.inner.submits };
        let groups = groups.get_or_init(|| self.groups(&scripts::SUBMIT));
        let group = &groups[usize::from(minted.partition)];
        let reply = group.call(submit_head(), submit_entry(minted), replicas).await?;
        submit_answer(minted, &reply).map_err(Error::Refused)
    }

    /// Submits up to [`limits::BATCH_MAX`] jobs a script call; each is answered separately, in order.
    ///
    /// # Errors
    /// As [`Store::submit`]; a job's refusal is returned in its place.
    pub async fn submit_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Submitted, Refusal>>> {
        let minted: Vec<Minted> = jobs.into_iter().map(|job| self.mint(job)).collect();
        let answers = self.submit_all(&minted).await?;
        for (minted, answer) in minted.iter().zip(&answers) {
            if let Ok(submitted) = answer {
                self.fill_batch(submitted, &minted.job).await.map_err(Error::after_a_change)?;
            }
        }
        Ok(answers)
    }

    /// Writes jobs that have their ids, without the items of batches; each is answered separately, in order.
    pub(super) async fn submit_all(&self, minted: &[Minted]) -> Result<Vec<Result<Submitted, Refusal>>> {
        let mut answers: Vec<Option<Result<Submitted, Refusal>>> = minted.iter().map(|_| None).collect();
        for (partition, share) in self.by_partition(minted, |m| &m.id) {
            for chunk in split(&share, |(_, m)| m.bytes()) {
                let entries = chunk.iter().map(|(_, minted)| submit_entry(minted)).collect();
                let replicas = chunk.iter().map(|(_, m)| m.job.durability.replicas()).max().unwrap_or(0);
                let wire = &self.inner.wire;
                let replies = wire.run_many(&scripts::SUBMIT, partition, submit_head(), entries, replicas).await;
                let begun = answers.iter().any(Option::is_some);
                let replies = replies.map_err(|e| if begun { e.after_a_change() } else { e })?;
                for ((at, minted), reply) in chunk.iter().zip(replies) {
                    answers[*at] = Some(submit_answer(minted, &reply));
                }
            }
        }
        Ok(answers.into_iter().map(|a| a.expect("each job is in one share")).collect())
    }

    /// A batch whose submit was interrupted before its last part is completed by repeating the submit.
    async fn fill_batch(&self, submitted: &Submitted, job: &NewJob) -> Result<()> {
        let Some(batch) = &job.batch else { return Ok(()) };
        if batch.open && batch.items.is_empty() {
            return Ok(());
        }
        let replicas = job.durability.replicas();
        match self.add_items_on(&submitted.id, 0, &batch.items, !batch.open, replicas).await {
            // An open batch that was since extended or sealed, or a finished batch that was since removed.
            Err(Error::Refused(Refusal::Sealed(_) | Refusal::Gap(_) | Refusal::NotFound(_))) if submitted.replayed => {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Mints an id for a job to be submitted, in its required partition, so that its files can be written under the id.
    pub fn mint_id(&self, job: &NewJob) -> JobId {
        let home = if job.limited { Some(job.kind.as_str()) } else { job.idempotency.as_ref().map(|i| i.key.as_str()) };
        let home = home.map(|text| keys::partition_of(text, self.partitions()));
        let mut id = keys::mint(home, self.partitions());
        // In a cluster a job that may be anywhere keeps clear of a node that does not answer.
        for _ in 0..DRAWS {
            if home.is_some() || !self.inner.wire.connections().is_away(self.partition_of(&id)) {
                break;
            }
            id = keys::mint(None, self.partitions());
        }
        id
    }

    fn mint(&self, job: NewJob) -> Minted {
        let id = job.uploaded.as_ref().map_or_else(|| self.mint_id(&job), |uploaded| uploaded.id.clone());
        let partition = self.partition_of(&id);
        Minted { id, partition, job, past: None }
    }
}

/// The arguments common to all jobs of a call: the limit on names, and how long an Idempotency-Key is kept.
fn submit_head() -> Args {
    Args::default().count(limits::NAMES_MAX).number(limits::IDEMPOTENCY_MS)
}

fn submit_entry(minted: &Minted) -> Args {
    let job = &minted.job;
    let due = match job.due {
        Due::Now => String::new(),
        Due::In(ms) => format!("+{ms}"),
        Due::At(time) => time.0.to_string(),
    };
    let mut fields = vec![("payload", job.payload.as_str().to_owned()), ("max_attempts", job.max_attempts.to_string())];
    if let Some(ms) = job.timeout_ms {
        fields.push(("timeout_ms", ms.to_string()));
    }
    if let Some(batch) = &job.batch {
        fields.push(("items_total", "0".into()));
        fields.extend(batch.then.as_ref().map(|kind| ("then", kind.to_string())));
    }
    if let Some(uploaded) = job.uploaded.as_ref().filter(|uploaded| !uploaded.files.is_empty()) {
        fields.push(("files", Json::of(&uploaded.files).expect("a list of files is plain JSON").as_str().to_owned()));
    }
    let (mut begins, mut created_at) = (if job.batch.is_some() { "parent" } else { "" }, String::new());
    let ended;
    if let Some(past) = &minted.past {
        fields.extend(past.fields());
        created_at = past.created_at.0.to_string();
        ended = past.ended();
        if !ended.is_empty() {
            begins = &ended;
        }
    }
    let key = job.idempotency.as_ref();
    let args = Args::default()
        .texts([minted.id.as_str(), job.kind.as_str(), job.queue.as_str(), job.priority.as_str(), &due])
        .texts([begins, &created_at])
        .texts([key.map_or("", |k| k.key.as_str()), key.map_or("", |k| k.digest.as_str())])
        .count(fields.len());
    fields.into_iter().fold(args, |args, (name, value)| args.text(name).text(value))
}

fn submit_answer(minted: &Minted, reply: &Value) -> Result<Submitted, Refusal> {
    let reply = array(reply);
    let word = |at: usize| reply.get(at).map(text).unwrap_or_default();
    let known = || JobId::parse(&word(1)).unwrap_or_else(|_| minted.id.clone());
    match word(0).as_str() {
        "replayed" => Ok(Submitted { replayed: known() != minted.id, id: known(), accepted: None }),
        "conflict" => Err(Refusal::KeyConflict(known())),
        "gone" => Err(Refusal::KeyGone(known())),
        "names" => Err(Refusal::TooManyNames { what: word(1), max: limits::NAMES_MAX }),
        // `exists` is this submit, repeated after a lost reply.
        word => {
            let time = |at: usize| reply.get(at).and_then(number).map(Timestamp);
            let accepted = State::parse(word).zip(time(2));
            debug_assert!(word == "exists" || accepted.is_some());
            let accepted = accepted.map(|(state, created_at)| Accepted { state, created_at, scheduled_at: time(3) });
            Ok(Submitted { id: minted.id.clone(), replayed: false, accepted })
        }
    }
}
