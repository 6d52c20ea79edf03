//! What operators and clients do to jobs that exist, and what is checked before anything else.
use redis::Value;

use super::link::sort_error;
use super::list::{array, text};
use super::{Args, Inner, Repeat, Store, keys, scripts};
use crate::{Error, Job, JobId, Kinds, QueueName, Refusal, Result, State, limits};

/// What a cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// Nobody ran it: it is cancelled.
    Done,
    /// It runs, or waits for its items: it was asked to stop.
    Requested,
}

/// What a retry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// It is queued.
    Queued,
    /// A parent: it waits for its failed and cancelled items, which are being requeued.
    Waiting,
}

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Done,
    /// A parent: its items go first, in steps.
    Begun,
}

/// Whether Redis can do what a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers and takes writes.
    Ready,
    /// It answers, and new jobs are refused for want of memory.
    Full,
}

impl Store {
    /// Cancels jobs: what runs is flagged and its holder told.
    ///
    /// # Errors
    /// For each job: [`Refusal::NotFound`], or [`Refusal::WrongState`] when it has ended. A cancelled job counts as done.
    pub async fn cancel(&self, ids: &[JobId]) -> Result<Vec<Result<Cancelled, Refusal>>> {
        self.each(&scripts::CANCEL, Args::default().text("any"), ids, |id, word| match word {
            "cancelled" => Ok(Cancelled::Done),
            "requested" => Ok(Cancelled::Requested),
            "missing" => Err(Refusal::NotFound(id.clone())),
            state => Err(wrong_state(State::parse(state), "only a job that has not ended can be cancelled")),
        })
        .await
    }

    /// Requeues failed and cancelled jobs, attempts and crashes counted anew; a parent's such items.
    ///
    /// # Errors
    /// For each job a [`Refusal`] that names the state or the parent in the way.
    pub async fn retry(&self, ids: &[JobId]) -> Result<Vec<Result<Retried, Refusal>>> {
        let before = self.get_many(ids).await?;
        let parent = |id: &JobId| {
            let job = before.iter().flatten().find(|j| j.id == *id);
            job.and_then(|j| j.parent.clone()).unwrap_or_else(|| id.clone())
        };
        let known = |id: &JobId| before.iter().flatten().find(|j| j.id == *id);
        let state = |id: &JobId| known(id).map(|j| j.state);
        // It could be retried when we looked: the script ran, and its first answer was lost.
        let lost = |id: &JobId| {
            let job = known(id)?;
            let some_failed = job.items.is_some_and(|items| items.failed + items.cancelled > 0);
            let could =
                matches!(job.state, State::Failed | State::Cancelled) || (job.state == State::Completed && some_failed);
            could.then_some(if job.items.is_some() { Retried::Waiting } else { Retried::Queued })
        };
        self.each(&scripts::RETRY, Args::default(), ids, |id, word| match word {
            "queued" => Ok(Retried::Queued),
            "waiting" => Ok(Retried::Waiting),
            "missing" => Err(Refusal::NotFound(id.clone())),
            "parent" => Err(Refusal::RetryParent(parent(id))),
            "flagged" => Err(Refusal::ParentCancelled(parent(id))),
            _ => lost(id).ok_or_else(|| {
                wrong_state(state(id), "only a failed or cancelled job, or a batch with such items, can be retried")
            }),
        })
        .await
    }

    /// Removes final jobs; a parent with its items, which [`Store::sweep`] goes on with.
    ///
    /// # Errors
    /// For each job a [`Refusal`] that names what is in the way.
    pub async fn remove(&self, ids: &[JobId]) -> Result<Vec<Result<Removed, Refusal>>> {
        let before = self.get_many(ids).await?;
        let known = |id: &JobId| before.iter().flatten().find(|j| j.id == *id);
        let answer = |id: &JobId, word: &str| match (word, known(id)) {
            ("removed", _) => Ok(Removed::Done),
            ("removing", _) => Ok(Removed::Begun),
            // It was there when we looked: the script ran, and its first answer was lost.
            ("missing", Some(_)) => Ok(Removed::Done),
            ("item", Some(Job { parent: Some(parent), .. })) => Err(Refusal::RemoveParent(parent.clone())),
            ("refused", job) => {
                Err(wrong_state(job.map(|j| j.state), "only a job that has ended can be removed; cancel it first"))
            }
            _ => Err(Refusal::NotFound(id.clone())),
        };
        let mut answers: Vec<Option<Result<Removed, Refusal>>> = ids.iter().map(|_| None).collect();
        for (partition, share) in self.by_partition(ids, |id| id) {
            for chunk in share.chunks(limits::BATCH_MAX) {
                let args = Args::default().count(0).text("").texts(chunk.iter().map(|(_, id)| id.as_str()));
                let reply = self.inner.run(&scripts::REMOVE, partition, &args, Repeat::Safe).await?;
                let words: Vec<String> = self.discard(&reply).await.iter().map(text).collect();
                let lost = chunk.iter().zip(&words).filter(|((_, id), word)| *word == "missing" && known(id).is_some());
                let lost: Vec<Value> = lost.map(|((_, id), _)| Value::SimpleString(id.to_string())).collect();
                self.delete_files(&lost).await;
                for ((at, id), word) in chunk.iter().zip(&words) {
                    answers[*at] = Some(answer(id, word));
                }
            }
        }
        Ok(answers.into_iter().map(|a| a.expect("each id is in one share")).collect())
    }

    /// Stops (`true`) or resumes claims from a queue, in every partition.
    ///
    /// # Errors
    /// Those of any call. A queue need not exist yet.
    pub async fn pause(&self, queue: &QueueName, paused: bool) -> Result<()> {
        let mut pipeline = redis::pipe();
        for partition in 0..self.partitions() {
            let command = if paused { "SADD" } else { "SREM" };
            pipeline.cmd(command).arg(keys::fixed(partition, "paused")).arg(queue.as_str());
            let word = if paused { "pause" } else { "resume" };
            pipeline.cmd("PUBLISH").arg(keys::fixed(partition, "hints")).arg(format!("{word} {queue}"));
        }
        self.inner.pipe(&pipeline).await.map(drop)
    }

    /// Whether Redis answers and takes writes, at this moment.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::OutcomeUnknown`] when it does not.
    pub async fn standing(&self) -> Result<Standing> {
        let mut pipeline = redis::pipe();
        // A write that changes nothing is refused like any other when there is no disk or Redis is a replica.
        pipeline.cmd("HDEL").arg(keys::META).arg("ready").cmd("INFO").arg("memory");
        let replies = self.inner.link.pipe(&pipeline).await?.into_iter();
        let replies: Vec<Value> =
            replies.map(|v| v.extract_error().map_err(|e| sort_error(&e))).collect::<Result<_>>()?;
        let memory = text(replies.get(1).unwrap_or(&Value::Nil));
        let field = |name: &str| info_field(&memory, name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let full = field("maxmemory") > 0 && field("used_memory") >= field("maxmemory");
        Ok(if full { Standing::Full } else { Standing::Ready })
    }

    /// Calls a script that takes ids and answers each with a word.
    async fn each<R>(
        &self,
        script: &scripts::Script,
        args: Args,
        ids: &[JobId],
        answer: impl Fn(&JobId, &str) -> R,
    ) -> Result<Vec<R>> {
        let mut answers: Vec<Option<R>> = ids.iter().map(|_| None).collect();
        for (partition, share) in self.by_partition(ids, |id| id) {
            for chunk in share.chunks(limits::BATCH_MAX) {
                let args = Args(args.0.clone()).texts(chunk.iter().map(|(_, id)| id.as_str()));
                let reply = self.inner.run(script, partition, &args, Repeat::Safe).await?;
                for ((at, id), word) in chunk.iter().zip(array(&reply)) {
                    answers[*at] = Some(answer(id, &text(word)));
                }
            }
        }
        Ok(answers.into_iter().map(|a| a.expect("each id is in one share")).collect())
    }
}

fn wrong_state(state: Option<State>, advice: &str) -> Refusal {
    Refusal::WrongState { state: state.unwrap_or(State::Running), advice: advice.into() }
}

fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Something about Redis that is not as Leasehold needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFault {
    /// What is wrong, and what to write instead.
    pub problem: String,
    /// Jobs would be lost: API and workers refuse to start.
    pub fatal: bool,
}

impl ServerFault {
    fn fatal(problem: String) -> Self {
        Self { problem, fatal: true }
    }

    fn warning(problem: String) -> Self {
        Self { problem, fatal: false }
    }
}

impl Store {
    /// What is wrong with Redis's version and settings, worst first.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn server_faults(&self) -> Result<Vec<ServerFault>> {
        server_faults(&self.inner).await
    }
}

/// Refuses a Redis that would lose jobs, and warns of one that may.
pub(super) async fn check_server(inner: &Inner) -> Result<()> {
    for fault in server_faults(inner).await? {
        if fault.fatal {
            return Err(Error::Config(fault.problem));
        }
        tracing::warn!("{}", fault.problem);
    }
    Ok(())
}

async fn server_faults(inner: &Inner) -> Result<Vec<ServerFault>> {
    let mut faults = Vec::new();
    let mut pipeline = redis::pipe();
    // A Redis that still loads its files says in INFO that its AOF is off; a read it refuses, and is waited for.
    pipeline.cmd("EXISTS").arg(keys::META).cmd("INFO").arg("server").cmd("INFO").arg("persistence");
    let replies = inner.pipe(&pipeline).await?;
    let (server, persistence) = (text(&replies[1]), text(&replies[2]));
    let version = info_field(&server, "valkey_version").or(info_field(&server, "redis_version")).unwrap_or("unknown");
    let major: u32 = version.split('.').next().and_then(|v| v.parse().ok()).unwrap_or(0);
    if major < 7 {
        faults.push(ServerFault::fatal(format!("Redis {version} is too old; Leasehold needs 7.0 or later")));
    }
    if info_field(&persistence, "aof_enabled") == Some("0") {
        let advice = "set `appendonly yes` in redis.conf, or run: redis-cli CONFIG SET appendonly yes";
        faults.push(ServerFault::fatal(format!("Redis keeps nothing over a restart (its AOF is off); {advice}")));
    }
    if info_field(&persistence, "aof_last_write_status").is_some_and(|status| status != "ok") {
        let advice = "its log says why; usually the disk is full";
        faults.push(ServerFault::warning(format!(
            "Redis cannot write its AOF, and takes no writes until it can; {advice}"
        )));
    }
    faults.extend(settings_faults(inner).await?);
    faults.sort_by_key(|fault| !fault.fatal);
    Ok(faults)
}

/// A setting of Redis that Leasehold relies on.
struct Setting {
    name: &'static str,
    fit: fn(&str) -> bool,
    advice: &'static str,
    fatal: bool,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "maxmemory-policy",
        fit: |v| v == "noeviction",
        advice: "Redis would evict jobs; set `maxmemory-policy noeviction`",
        fatal: true,
    },
    Setting {
        name: "appendfsync",
        fit: |v| v == "always",
        advice: "a crash of Redis's machine, or a slow disk and a kill -9, can lose the last second or two of acknowledged \
                 jobs; set `appendfsync always` to lose none",
        fatal: false,
    },
    Setting {
        name: "no-appendfsync-on-rewrite",
        fit: |v| v == "no",
        advice: "acknowledged jobs are not on disk while the AOF is rewritten; set it to no",
        fatal: false,
    },
    Setting {
        name: "timeout",
        fit: |v| v == "0",
        advice: "idle connections are closed; set `timeout 0`",
        fatal: false,
    },
    Setting {
        name: "maxmemory-clients",
        fit: |v| v == "0",
        advice: "with blocking pops it has crashed servers; set `maxmemory-clients 0`",
        fatal: false,
    },
    Setting {
        name: "tcp-keepalive",
        fit: |v| (1..=60).contains(&v.parse().unwrap_or(0)),
        advice: "a vanished worker's pop stays armed too long; set `tcp-keepalive 15`",
        fatal: false,
    },
    Setting {
        name: "hash-max-listpack-value",
        fit: |v| v.parse().unwrap_or(0) >= 512,
        advice: "a usual payload doubles a job's memory; set `hash-max-listpack-value 1024`",
        fatal: false,
    },
];

async fn settings_faults(inner: &Inner) -> Result<Vec<ServerFault>> {
    let mut pipeline = redis::pipe();
    for setting in SETTINGS {
        pipeline.cmd("CONFIG").arg("GET").arg(setting.name);
    }
    let replies = match inner.pipe(&pipeline).await {
        Ok(replies) => replies,
        Err(Error::Unavailable(reason) | Error::OutcomeUnknown(reason)) => return Err(Error::Unavailable(reason)),
        Err(e) => {
            let advice = "allow it with the ACL rule +config|get";
            return Ok(vec![ServerFault::warning(format!(
                "Redis denies CONFIG GET, so its settings were not checked; {advice} ({e})"
            ))]);
        }
    };
    let mut faults = Vec::new();
    for (setting, reply) in SETTINGS.iter().zip(&replies) {
        let value = array(reply).get(1).map(text).unwrap_or_default();
        if value.is_empty() || (setting.fit)(&value) {
            continue;
        }
        let problem = format!("Redis has `{} {value}`: {}", setting.name, setting.advice);
        faults.push(ServerFault { problem, fatal: setting.fatal });
    }
    Ok(faults)
}

/// The script side of retention: `<completed> <failed> <cancelled> <keep>`, ms and a count, by kind.
pub(super) async fn register_kinds(inner: &Inner, kinds: &Kinds) -> Result<()> {
    let mut pipeline = redis::pipe();
    for partition in 0..inner.partitions {
        for (kind, config) in kinds.iter() {
            let r = &config.retention;
            let kept = format!("{} {} {} {}", r.completed_ms, r.failed_ms, r.cancelled_ms, r.keep);
            pipeline.cmd("HSET").arg(keys::fixed(partition, "retention")).arg(kind.as_str()).arg(kept);
        }
    }
    if pipeline.is_empty() {
        return Ok(());
    }
    match inner.pipe(&pipeline).await {
        // A worker must start all the same: only work that drains makes room.
        Err(Error::Full(reason)) => {
            tracing::warn!("the kinds' retention was not registered, the old one holds: {reason}");
            Ok(())
        }
        registered => registered.map(drop),
    }
}
