//! Submit: new jobs, each at most once. A batch is submitted first and its items follow (`items`).
use std::borrow::Cow;

use redis::Value;

use super::past::Past;
use super::sizes::Sizes;
use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, keys, scripts, split};
use super::{Store, by_partition};
use crate::job::Due;
use crate::{Error, JobId, Json, NewJob, Refusal, Result, State, Timestamp, limits};

/// How often an id is drawn again because its partition is away.
const DRAWS: usize = 20;
/// How often a submit is tried while the partitions grow.
const TRIES: usize = 5;

/// A job with its id and, for a batch, the items to follow.
pub(super) struct Minted {
    pub id: JobId,
    pub partition: u16,
    /// The number of partitions by which it was placed. 0: its Idempotency-Key was placed here before they grew, so
    /// that the job is known, or the key has just expired.
    pub placed_by: u16,
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
    /// Its partition.
    pub partition: u16,
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
        let fit = self.refuse_if_unfit();
        let is_unfit = fit.is_err();
        let (submitted, job) = match fit {
            Ok(()) => self.submit_or_catch_up(job).await,
            Err(e) => (Err(e), job),
        };
        if let (Some(files), Some(uploaded)) = (self.files(), &job.uploaded)
            && (is_unfit || is_needless(&submitted))
        {
            files.remove(vec![uploaded.id.clone()]).await;
        }
        let submitted = submitted?;
        self.fill_batch(&submitted, &job).await.map_err(Error::after_a_change)?;
        Ok(submitted)
    }

    /// Submits one job, again when the partitions have grown meanwhile, and gives it back.
    async fn submit_or_catch_up(&self, mut job: NewJob) -> (Result<Submitted>, NewJob) {
        for _ in 0..TRIES {
            let sizes = self.sizes();
            let id = job.uploaded.as_ref().map_or_else(|| self.mint_by(&sizes, &job), |uploaded| uploaded.id.clone());
            let (partition, placed_by) = match self.homes_of(&sizes, std::iter::once((&id, &job))).await {
                Ok(homes) => homes[0],
                Err(e) => return (Err(e), job),
            };
            let minted = Minted { id, partition, placed_by, job, past: None };
            let answer = self.submit_minted(&minted).await;
            job = minted.job;
            match answer {
                Ok(Some(answer)) => return (answer.map_err(Error::Refused), job),
                Ok(None) => {}
                Err(e) => return (Err(e), job),
            }
            if let Err(e) = self.catch_up().await {
                return (Err(e), job);
            }
        }
        (Err(growing()), job)
    }

    /// `None`: the partitions have grown since, and nothing was done.
    async fn submit_minted(&self, minted: &Minted) -> Result<Option<Result<Submitted, Refusal>>> {
        let replicas = minted.job.durability.replicas();
        // In calls of their own, so that no other submit waits for a replica.
        let groups = if replicas > 0 { &self.inner.waiting_submits } else { &self.inner.submits };
        let reply = groups.of(minted.partition).call(head(minted.placed_by), submit_entry(minted), replicas).await?;
        Ok(submit_answer(minted, &reply))
    }

    /// Submits up to [`limits::BATCH_MAX`] jobs a script call; each is answered separately, in order.
    ///
    /// # Errors
    /// As [`Store::submit`]; a job's refusal is returned in its place.
    pub async fn submit_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Result<Submitted, Refusal>>> {
        self.refuse_if_unfit()?;
        let mut answers: Vec<Option<Result<Submitted, Refusal>>> = jobs.iter().map(|_| None).collect();
        let (mut begun, mut left): (bool, Vec<(usize, NewJob)>) = (false, jobs.into_iter().enumerate().collect());
        for _ in 0..TRIES {
            let sizes = self.sizes();
            let ids: Vec<JobId> = left.iter().map(|(_, job)| self.mint_by(&sizes, job)).collect();
            let homes = self.homes_of(&sizes, ids.iter().zip(left.iter().map(|(_, job)| job))).await;
            let homes = homes.map_err(|e| if begun { e.after_a_change() } else { e })?;
            let of_job =
                |((id, (partition, placed_by)), (at, job))| (at, Minted { id, partition, placed_by, job, past: None });
            let (places, minted): (Vec<usize>, Vec<Minted>) =
                ids.into_iter().zip(homes).zip(std::mem::take(&mut left)).map(of_job).unzip();
            let replies = self.submit_all(&minted).await;
            let replies = replies.map_err(|e| if begun { e.after_a_change() } else { e })?;
            begun = true;
            for ((at, minted), answer) in places.into_iter().zip(minted).zip(replies) {
                if let Some(Ok(submitted)) = &answer {
                    self.fill_batch(submitted, &minted.job).await.map_err(Error::after_a_change)?;
                }
                if answer.is_none() {
                    left.push((at, minted.job));
                }
                answers[at] = answer;
            }
            if left.is_empty() {
                return Ok(answers.into_iter().map(|answer| answer.expect("none is left")).collect());
            }
            self.catch_up().await.map_err(Error::after_a_change)?;
        }
        Err(growing().after_a_change())
    }

    /// Writes jobs that have their ids, without the items of batches; each is answered separately, in order. `None`:
    /// the partitions have grown since, and nothing was done for a job with an Idempotency-Key.
    pub(super) async fn submit_all(&self, minted: &[Minted]) -> Result<Vec<Option<Result<Submitted, Refusal>>>> {
        let mut answers: Vec<Option<Result<Submitted, Refusal>>> = minted.iter().map(|_| None).collect();
        let mut begun = false;
        for (partition, share) in by_partition(minted, |_, minted| minted.partition) {
            for alike in share.chunk_by(|(_, one), (_, other)| one.placed_by == other.placed_by) {
                for chunk in split(alike, |(_, m)| m.bytes()) {
                    let entries = chunk.iter().map(|(_, minted)| submit_entry(minted)).collect();
                    let replicas = chunk.iter().map(|(_, m)| m.job.durability.replicas()).max().unwrap_or(0);
                    let (wire, head) = (&self.inner.wire, head(alike[0].1.placed_by));
                    let replies = wire.run_many(&scripts::SUBMIT, partition, head, entries, replicas).await;
                    let replies = replies.map_err(|e| if begun { e.after_a_change() } else { e })?;
                    begun = true;
                    for ((at, minted), reply) in chunk.iter().zip(replies) {
                        answers[*at] = submit_answer(minted, &reply);
                    }
                }
            }
        }
        Ok(answers)
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
        self.mint_by(&self.sizes(), job)
    }

    fn mint_by(&self, sizes: &Sizes, job: &NewJob) -> JobId {
        if let Some((text, partitions)) = home_of(job, sizes) {
            return keys::mint(Some(keys::partition_of(text, partitions)), partitions);
        }
        let mut id = keys::mint(None, sizes.current());
        // In a cluster a job that may be anywhere keeps clear of a node that does not answer.
        for _ in 0..DRAWS {
            if !self.inner.wire.connections().is_away(keys::partition_of(id.as_str(), sizes.current())) {
                break;
            }
            id = keys::mint(None, sizes.current());
        }
        id
    }

    /// The partition of each new job, and [`Minted::placed_by`]. Both are by `sizes`: this process may learn of a
    /// growth before the jobs are sent, and a key must not be placed by one number in the name of another.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for files that were uploaded under an id of before a growth; those of any call.
    async fn homes_of<'a>(
        &self,
        sizes: &Sizes,
        jobs: impl Iterator<Item = (&'a JobId, &'a NewJob)>,
    ) -> Result<Vec<(u16, u16)>> {
        let (mut homes, mut looks, mut looked) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (id, job)) in jobs.enumerate() {
            let Some((text, partitions)) = home_of(job, sizes) else {
                homes.push((keys::partition_of(id.as_str(), sizes.current()), sizes.current()));
                continue;
            };
            let home = keys::partition_of(text, partitions);
            if keys::partition_of(id.as_str(), partitions) != home {
                return Err(growing());
            }
            homes.push((home, sizes.current()));
            let key = job.idempotency.as_ref().filter(|_| !job.limited);
            for earlier in key.map(|key| sizes.earlier_homes_of_key(&key.key)).unwrap_or_default() {
                let key = keys::idempotency(earlier, &job.kind, text);
                looks.push((Home::Partition(earlier), redis::cmd("EXISTS").arg(key).to_owned()));
                looked.push((at, earlier));
            }
        }
        if !looks.is_empty() {
            let found = self.inner.wire.pipe_each(&looks).await?;
            for ((at, earlier), _) in looked.into_iter().zip(found).filter(|(_, found)| *found == Value::Int(1)) {
                homes[at] = (earlier, 0);
            }
        }
        Ok(homes)
    }
}

/// The arguments common to all jobs of a call: how long an Idempotency-Key is kept, and [`Minted::placed_by`].
fn head(placed_by: u16) -> Args {
    Args::default().number(limits::IDEMPOTENCY_MS).number(placed_by)
}

/// What decides where a new job must be, and the number of partitions by which it does; `None`: it may be anywhere.
fn home_of<'a>(job: &'a NewJob, sizes: &Sizes) -> Option<(&'a str, u16)> {
    if job.limited {
        return Some((job.kind.as_str(), sizes.first()));
    }
    job.idempotency.as_ref().map(|idempotency| (idempotency.key.as_str(), sizes.current()))
}

fn growing() -> Error {
    Error::Unavailable("the number of partitions is just growing; nothing was done; try again".into())
}

/// The entry of a job in the script's arguments: its id, its form, and the values of the form's fields.
fn submit_entry(minted: &Minted) -> Args {
    entry(minted, Vec::new())
}

/// The same, with more fields.
pub(super) fn entry(minted: &Minted, more: Vec<(&'static str, String)>) -> Args {
    let job = &minted.job;
    let due = match job.due {
        Due::Now => "-".to_owned(),
        Due::In(ms) => format!("+{ms}"),
        Due::At(time) => time.0.to_string(),
    };
    let mut fields =
        vec![("payload", job.payload.as_str().into()), ("max_attempts", job.max_attempts.to_string().into())];
    if let Some(ms) = job.timeout_ms {
        fields.push(("timeout_ms", ms.to_string().into()));
    }
    if let Some(batch) = &job.batch {
        fields.push(("items_total", "0".into()));
        fields.extend(batch.then.as_ref().map(|kind| ("then", kind.as_str().into())));
    }
    if let Some(uploaded) = job.uploaded.as_ref().filter(|uploaded| !uploaded.files.is_empty()) {
        let files = Json::of(&uploaded.files).expect("a list of files is plain JSON");
        fields.push(("files", files.as_str().to_owned().into()));
    }
    fields.extend(more.into_iter().map(|(name, value)| (name, Cow::Owned(value))));
    let (mut begins, mut created_at) = (if job.batch.is_some() { "parent" } else { "-" }.to_owned(), "-".to_owned());
    if let Some(past) = &minted.past {
        fields.extend(past.fields().into_iter().map(|(name, value)| (name, Cow::Owned(value))));
        created_at = past.created_at.0.to_string();
        begins = Some(past.ended()).filter(|ended| !ended.is_empty()).unwrap_or(begins);
    }
    let (kind, queue, priority) = (job.kind.as_str(), job.queue.as_str(), job.priority.as_str());
    let keyed = u8::from(job.idempotency.is_some());
    let mut form = format!("{kind} {queue} {priority} {due} {begins} {created_at} {keyed}");
    for (name, _) in &fields {
        form.push(' ');
        form.push_str(name);
    }
    let args = Args::default().texts([minted.id.as_str(), &form]);
    let args = job.idempotency.iter().fold(args, |args, key| args.texts([key.key.as_str(), key.digest.as_str()]));
    args.texts(fields.iter().map(|(_, value)| value))
}

/// `None`: the partitions have grown since.
fn submit_answer(minted: &Minted, reply: &Value) -> Option<Result<Submitted, Refusal>> {
    let accepted = |state, created_at, scheduled_at| {
        let accepted = Accepted { partition: minted.partition, state, created_at, scheduled_at };
        Submitted { id: minted.id.clone(), replayed: false, accepted: Some(accepted) }
    };
    if let Some(created_at) = number(reply) {
        return Some(Ok(accepted(State::Queued, Timestamp(created_at), None)));
    }
    let reply = array(reply);
    let word = |at: usize| reply.get(at).map(text).unwrap_or_default();
    let known = || JobId::parse(&word(1)).unwrap_or_else(|_| minted.id.clone());
    Some(match word(0).as_str() {
        "grown" => return None,
        "replayed" => Ok(Submitted { replayed: known() != minted.id, id: known(), accepted: None }),
        "conflict" => Err(Refusal::KeyConflict(known())),
        "gone" => Err(Refusal::KeyGone(known())),
        "names" => Err(Refusal::TooManyNames { what: word(1), max: limits::NAMES_MAX }),
        // `exists` is this submit, repeated after a lost reply.
        word => {
            let time = |at: usize| reply.get(at).and_then(number).map(Timestamp);
            debug_assert!(word == "exists" || State::parse(word).is_some() && time(2).is_some());
            Ok(match State::parse(word).zip(time(2)) {
                Some((state, created_at)) => accepted(state, created_at, time(3)),
                None => Submitted { id: minted.id.clone(), replayed: false, accepted: None },
            })
        }
    })
}
