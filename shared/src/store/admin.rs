//! Cancel, retry, remove, pause, and remove a queue: what clients and operators do to existing jobs and queues.
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;

use super::sweep::begun;
use super::wire::reply::{array, text};
use super::wire::scripts::Script;
use super::wire::{Args, Repeat, scripts};
use super::{Store, by_partition};
use crate::{Error, Job, JobId, QueueName, Refusal, Result, State, limits};

/// The partitions in which a queue is paused at once.
const AT_ONCE: usize = 16;

/// What a cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The job was not running and is now cancelled.
    Done,
    /// The job is running or waiting for its items, and was flagged.
    Requested,
}

/// What a retry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// The job is queued.
    Queued,
    /// A parent: it waits for its failed and cancelled items, which are requeued.
    Waiting,
}

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// The job is removed.
    Done,
    /// A parent: its items are removed first, in steps.
    Begun,
}

impl Store {
    /// Cancels jobs: a running one is flagged, and its holder receives a hint. The items of a batch are cancelled in
    /// steps, of which the first are taken here.
    ///
    /// # Errors
    /// For each job: [`Refusal::NotFound`], or [`Refusal::WrongState`] if it has ended. A cancelled job is not an
    /// error.
    pub async fn cancel(&self, ids: &[JobId]) -> Result<Vec<Result<Cancelled, Refusal>>> {
        let mut batches = Vec::new();
        let mut answers = self
            .each(&scripts::CANCEL, Args::default().text("any"), ids, |id, word| match word {
                "cancelled" => Ok(Cancelled::Done),
                "requested" => Ok(Cancelled::Requested),
                "missing" => Err(Refusal::NotFound(id.clone())),
                word => match begun(word) {
                    Some(items) => {
                        batches.push((id.clone(), items));
                        Ok(Cancelled::Requested)
                    }
                    None => Err(wrong_state(State::parse(word), "only a job that has not ended can be cancelled")),
                },
            })
            .await?;
        let ended = self.first_steps("cancel", batches).await;
        replace(ids, &mut answers, &ended, Cancelled::Done);
        Ok(answers)
    }

    /// Requeues failed and cancelled jobs, with attempts and crashes reset to zero; for a parent, its failed and
    /// cancelled items.
    ///
    /// # Errors
    /// For each job a [`Refusal`] that names the state, or the parent, that prevents it.
    pub async fn retry(&self, ids: &[JobId]) -> Result<Vec<Result<Retried, Refusal>>> {
        let before = self.get_many(ids).await?;
        let parent = |id: &JobId| {
            let job = before.iter().flatten().find(|j| j.id == *id);
            job.and_then(|j| j.parent.clone()).unwrap_or_else(|| id.clone())
        };
        let known = |id: &JobId| before.iter().flatten().find(|j| j.id == *id);
        let state = |id: &JobId| known(id).map(|j| j.state);
        // It could be retried when it was read: the script has run, and its first reply was lost.
        let lost = |id: &JobId| {
            let job = known(id)?;
            let some_failed = job.items.is_some_and(|items| items.failed + items.cancelled > 0);
            let could =
                matches!(job.state, State::Failed | State::Cancelled) || (job.state == State::Completed && some_failed);
            could.then_some(if job.items.is_some() { Retried::Waiting } else { Retried::Queued })
        };
        let mut batches = Vec::new();
        let answers = self.each(&scripts::RETRY, Args::default(), ids, |id, word| match word {
            "queued" => Ok(Retried::Queued),
            "waiting" => {
                let items = known(id).and_then(|job| job.items);
                batches.extend(items.map(|items| (id.clone(), items.total)));
                Ok(Retried::Waiting)
            }
            "missing" => Err(Refusal::NotFound(id.clone())),
            "parent" => Err(Refusal::RetryParent(parent(id))),
            "flagged" => Err(Refusal::ParentCancelled(parent(id))),
            "lost" => Err(wrong_state(state(id), "its record was lost, so it cannot be retried")),
            _ => lost(id).ok_or_else(|| {
                wrong_state(state(id), "only a failed or cancelled job, or a batch with such items, can be retried")
            }),
        });
        let answers = answers.await?;
        self.first_steps("retry", batches).await;
        Ok(answers)
    }

    /// Removes final jobs; a parent with its items in steps, of which the first are taken here.
    ///
    /// # Errors
    /// For each job a [`Refusal`] that names what prevents it.
    pub async fn remove(&self, ids: &[JobId]) -> Result<Vec<Result<Removed, Refusal>>> {
        let before = self.get_many(ids).await?;
        let known = |id: &JobId| before.iter().flatten().find(|j| j.id == *id);
        let answer = |id: &JobId, word: &str| match (word, known(id)) {
            ("removed", _) => Ok(Removed::Done),
            ("removing", _) => Ok(Removed::Begun),
            // It existed when it was read: the script has run, and its first reply was lost.
            ("missing", Some(_)) => Ok(Removed::Done),
            ("item", Some(Job { parent: Some(parent), .. })) => Err(Refusal::RemoveParent(parent.clone())),
            ("refused", job) => {
                Err(wrong_state(job.map(|j| j.state), "only a job that has ended can be removed; cancel it first"))
            }
            _ => Err(Refusal::NotFound(id.clone())),
        };
        let mut answers: Vec<Option<Result<Removed, Refusal>>> = ids.iter().map(|_| None).collect();
        let places = self.places(ids).await?;
        for (partition, share) in by_partition(ids, |at, _| places[at]) {
            for chunk in share.chunks(limits::BATCH_MAX) {
                let args = Args::default().count(0).text("").texts(chunk.iter().map(|(_, id)| id.as_str()));
                let reply = self.inner.wire.run(&scripts::REMOVE, partition, &args, Repeat::Safe).await?;
                let words: Vec<String> = self.discard(&reply).await.iter().map(text).collect();
                let lost = chunk.iter().zip(&words).filter(|((_, id), word)| *word == "missing" && known(id).is_some());
                let lost: Vec<Value> = lost.map(|((_, id), _)| Value::SimpleString(id.to_string())).collect();
                self.delete_files(&lost).await;
                for ((at, id), word) in chunk.iter().zip(&words) {
                    answers[*at] = Some(answer(id, word));
                }
            }
        }
        let mut answers: Vec<_> = answers.into_iter().map(|a| a.expect("each id is in one share")).collect();
        let removing = ids.iter().zip(&answers).filter(|(_, answer)| **answer == Ok(Removed::Begun));
        let batches = removing.filter_map(|(id, _)| Some((id.clone(), known(id)?.items?.total))).collect();
        let removed = self.first_steps("remove", batches).await;
        replace(ids, &mut answers, &removed, Removed::Done);
        Ok(answers)
    }

    /// Stops (`true`) or resumes claims from a queue, in every partition.
    ///
    /// # Errors
    /// Those of any call. The queue need not exist yet.
    pub async fn pause(&self, queue: &QueueName, paused: bool) -> Result<()> {
        let args = Args::default().text(if paused { "pause" } else { "resume" }).text(queue.as_str());
        let each = (0..self.partitions()).map(|p| self.inner.wire.run(&scripts::PAUSE, p, &args, Repeat::Safe));
        stream::iter(each).buffer_unordered(AT_ONCE).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    /// Removes an unused queue: its name and its pause, in every partition. The next job that is submitted to it
    /// creates it again.
    ///
    /// # Errors
    /// [`Refusal::NoQueue`]; [`Refusal::QueueInUse`] while a live worker serves it, or it has a job that has not ended.
    pub async fn remove_queue(&self, queue: &QueueName) -> Result<()> {
        let in_use = |reason: String| Err(Refusal::QueueInUse { queue: queue.clone(), reason }.into());
        if let Some(worker) = self.workers_at_a_glance().await?.iter().find(|w| w.alive && w.queues.contains(queue)) {
            return in_use(format!("worker {} serves it; stop the worker, or change its worker.queues", worker.id));
        }
        let cancel = "wait until it has ended, or cancel it";
        for state in [State::Running, State::Scheduled, State::Retrying, State::Waiting] {
            if let Some(job) = self.find_in_queue(queue, state).await? {
                return in_use(format!("job {job} is {state}; {cancel}"));
            }
        }
        let waiting = || in_use("jobs wait in it; let a worker run them, or cancel them".into());
        let Some((known, paused)) = self.forget_queue(queue, "look").await? else { return waiting() };
        if !known && !paused {
            return Err(Refusal::NoQueue(queue.clone()).into());
        }
        match self.forget_queue(queue, "forget").await.map_err(Error::after_a_change)? {
            Some(_) => Ok(()),
            // One was submitted meanwhile: the pause is restored where it was removed.
            None if paused => {
                self.pause(queue, true).await.map_err(Error::after_a_change)?;
                waiting()
            }
            None => waiting(),
        }
    }

    /// Looks at a queue in every partition, or forgets it. Whether it was known, and whether it was paused; `None`: a
    /// job waits in it.
    async fn forget_queue(&self, queue: &QueueName, verb: &str) -> Result<Option<(bool, bool)>> {
        let args = Args::default().text(queue.as_str()).count(limits::LIST_SCAN).text(verb);
        let (mut known, mut paused) = (false, false);
        for partition in 0..self.partitions() {
            let reply = self.inner.wire.run(&scripts::FORGET, partition, &args, Repeat::Safe).await?;
            let [_, is_known, is_paused] = array(&reply) else { return Ok(None) };
            known |= *is_known == Value::Int(1);
            paused |= *is_paused == Value::Int(1);
        }
        Ok(Some((known, paused)))
    }

    /// Calls a script that takes ids and returns one word for each.
    async fn each<R>(
        &self,
        script: &Script,
        args: Args,
        ids: &[JobId],
        mut answer: impl FnMut(&JobId, &str) -> R,
    ) -> Result<Vec<R>> {
        let mut answers: Vec<Option<R>> = ids.iter().map(|_| None).collect();
        let places = self.places(ids).await?;
        for (partition, share) in by_partition(ids, |at, _| places[at]) {
            for chunk in share.chunks(limits::BATCH_MAX) {
                let args = args.clone().texts(chunk.iter().map(|(_, id)| id.as_str()));
                let reply = self.inner.wire.run(script, partition, &args, Repeat::Safe).await?;
                for ((at, id), word) in chunk.iter().zip(array(&reply)) {
                    answers[*at] = Some(answer(id, &text(word)));
                }
            }
        }
        Ok(answers.into_iter().map(|a| a.expect("each id is in one share")).collect())
    }
}

/// Replaces the answers about these jobs.
fn replace<T: Copy>(ids: &[JobId], answers: &mut [Result<T, Refusal>], of: &[JobId], answer: T) {
    ids.iter().zip(answers).filter(|(id, _)| of.contains(id)).for_each(|(_, old)| *old = Ok(answer));
}

fn wrong_state(state: Option<State>, advice: &str) -> Refusal {
    Refusal::WrongState { state: state.unwrap_or(State::Running), advice: advice.into() }
}
