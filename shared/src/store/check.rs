//! The consistency check: walks a partition's keys and holds the design's invariants against them.
//!
//! Tests run it when all is quiet, and nothing may be found. `leasehold doctor` runs it on a live system, where a walk
//! sees different moments: there a finding counts when it is seen twice.
mod judge;
mod seen;

use std::collections::BTreeSet;
use std::fmt;

use redis::Value;

use super::list::{array, text};
use super::{Args, Repeat, Store, keys, scripts};
use crate::{JobId, Result, limits};
use seen::Seen;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub partition: u16,
    /// The job or key it is about.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// How it can be mended, if it can.
    pub repair: Option<Repair>,
}

/// How a finding is mended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Repair {
    /// A job's id is put where its record says, and nowhere else.
    Place {
        /// The job.
        id: JobId,
        /// Its id stands in a list.
        listed: bool,
        /// Kinds under whose index or permits it was found.
        kinds: BTreeSet<String>,
        /// Workers in whose claimed lists it was found.
        workers: BTreeSet<String>,
    },
    /// A key that cannot be read is renamed out of the way.
    Aside {
        /// The key.
        key: String,
        /// The type it must have; empty when its content is what is wrong.
        must_be: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The counter of tokens goes on above the highest one given.
    Tokens(u64),
    /// A parent's counts become those of its items.
    Counts {
        /// The parent.
        id: JobId,
        /// Total, succeeded, failed, skipped and cancelled, as it has them.
        stored: [u64; 5],
        /// Succeeded, failed, skipped and cancelled, as its items have ended; one that is gone counts as failed.
        counted: [u64; 4],
    },
    /// A folder of the file store is deleted: a job's, or that of one attempt.
    Files {
        /// The job it is named after.
        id: JobId,
        /// The attempt's token.
        token: Option<u64>,
    },
    /// That Redis was emptied is no longer reported.
    AcceptEmptied,
    /// A record that was set aside is no longer reported, and is kept for [`limits::QUARANTINE_MS`] more.
    Accept(String),
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repair::Place { .. } => f.write_str("its id is put where its record says, and nowhere else"),
            Repair::Aside { key, .. } => write!(f, "the key is set aside as {}", quarantined(key)),
            Repair::Tokens(highest) => write!(f, "the counter goes on above {highest}"),
            Repair::Counts { counted: [succeeded, failed, skipped, cancelled], .. } => write!(
                f,
                "its counts become {succeeded} succeeded, {failed} failed, {skipped} skipped, {cancelled} cancelled"
            ),
            Repair::Files { .. } => f.write_str("the folder is deleted"),
            Repair::AcceptEmptied => f.write_str("it is reported no more"),
            Repair::Accept(key) => {
                let days = limits::QUARANTINE_MS / 86_400_000;
                write!(f, "it is reported no more; what was there stays at {} for {days} days", quarantined(key))
            }
        }
    }
}

/// Where a key is renamed to when it is set aside.
fn quarantined(key: &str) -> String {
    key.replacen("}:", "}:quarantined:", 1)
}

impl Store {
    /// Walks every partition. Its cost grows with the number of jobs; it reads in small steps.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check(&self) -> Result<Vec<Finding>> {
        let mut findings: Vec<Finding> = self.find_emptied().await?.into_iter().collect();
        for partition in 0..self.partitions() {
            findings.extend(judge::judge(partition, self.walk(partition).await?));
        }
        findings.sort();
        findings.dedup();
        Ok(findings)
    }

    /// Mends one finding. Safe when it has mended itself.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn repair(&self, finding: &Finding) -> Result<()> {
        let args = Args::default();
        let (script, args) = match &finding.repair {
            None => return Ok(()),
            Some(Repair::Files { id, token }) => {
                self.remove_orphan(id, *token).await;
                return Ok(());
            }
            Some(Repair::Place { id, listed, kinds, workers }) => {
                let args = args.text(id.as_str()).number(u8::from(*listed)).count(kinds.len());
                (&*scripts::REPAIR, args.texts(kinds).texts(workers))
            }
            Some(Repair::Aside { key, must_be, reason }) => {
                (&*scripts::MEND, args.texts(["aside", key, must_be, reason]))
            }
            Some(Repair::Tokens(highest)) => (&*scripts::MEND, args.texts(["tokens", ""]).number(*highest)),
            Some(Repair::Counts { id, stored, counted }) => {
                let stored = stored.map(|n| n.to_string()).join(" ");
                let args = args.texts(["counts", id.as_str(), &stored]).texts(counted.map(|n| n.to_string()));
                (&*scripts::MEND, args)
            }
            Some(Repair::AcceptEmptied) => return self.accept_emptied().await,
            Some(Repair::Accept(key)) => (&*scripts::MEND, args.texts(["accept", key]).number(limits::QUARANTINE_MS)),
        };
        self.inner.run(script, finding.partition, &args, Repeat::Safe).await.map(drop)
    }

    /// After `leases` or `running` was set aside: gives each running record a lease, and drops leases without one.
    pub(super) async fn mend_leases(&self, partition: u16) -> Result<()> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HKEYS").arg(keys::fixed(partition, "running"));
        pipeline.cmd("ZRANGE").arg(keys::fixed(partition, "leases")).arg(0).arg(-1);
        let replies = self.inner.pipe(&pipeline).await?;
        let sides: Vec<BTreeSet<JobId>> =
            replies.iter().map(|r| array(r).iter().filter_map(|v| JobId::parse(&text(v)).ok()).collect()).collect();
        for id in sides[0].symmetric_difference(&sides[1]) {
            let args = Args::default().text(id.as_str()).number(0).count(0);
            self.inner.run(&scripts::REPAIR, partition, &args, Repeat::Safe).await?;
        }
        Ok(())
    }

    async fn walk(&self, partition: u16) -> Result<Seen> {
        let mut seen = Seen::new(partition);
        let (mut cursor, mut names) = ("0".to_owned(), BTreeSet::new());
        loop {
            let mut pipeline = redis::pipe();
            let pattern = format!("lh:\\{{{partition}\\}}:*");
            pipeline.cmd("SCAN").arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
            let replies = self.inner.pipe(&pipeline).await?;
            let reply = array(&replies[0]);
            names.extend(array(&reply[1]).iter().map(text));
            cursor = text(&reply[0]);
            if cursor == "0" {
                break;
            }
        }
        let head = keys::prefix(partition).len() + 1;
        let (jobs, others): (Vec<&str>, Vec<&str>) =
            names.iter().map(|name| &name[head..]).partition(|name| name.starts_with("job:"));
        for name in others {
            if let Some(sort) = seen.sort_of(name) {
                let key = keys::fixed(partition, name);
                match self.read_key(&key, sort).await? {
                    Ok(members) => seen.take(name, members),
                    Err(reason) => seen.unreadable(key, sort.must_be(), reason),
                }
            }
        }
        for chunk in jobs.chunks(STEP / 2) {
            self.read_jobs(partition, chunk, &mut seen).await?;
        }
        Ok(seen)
    }

    /// All members of a key, in steps; what Redis says when it is of another type.
    async fn read_key(&self, key: &str, sort: Sort) -> Result<Result<Vec<String>, String>> {
        let (mut members, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let mut pipeline = redis::pipe();
            match sort {
                Sort::List => pipeline.cmd("LRANGE").arg(key).arg(members.len()).arg(members.len() + STEP - 1),
                Sort::Text => pipeline.cmd("GET").arg(key),
                Sort::Set | Sort::Hash | Sort::Ranked => {
                    pipeline.cmd(sort.scan()).arg(key).arg(&cursor).arg("COUNT").arg(STEP)
                }
            };
            let mut replies = self.inner.pipe_leniently(&pipeline).await?;
            match (sort, replies.pop().unwrap_or(Value::Nil)) {
                (_, Value::ServerError(e)) => return Ok(Err(e.details().unwrap_or("of another type").to_owned())),
                (Sort::Text, value) => return Ok(Ok(vec![text(&value)])),
                // What is pushed meanwhile stands at the head: nothing that stays is passed over.
                (Sort::List, step) => {
                    members.extend(array(&step).iter().map(text));
                    if array(&step).len() < STEP {
                        return Ok(Ok(members));
                    }
                }
                (_, step) => {
                    let [next, step] = array(&step) else { return Ok(Ok(members)) };
                    members.extend(array(step).iter().map(text));
                    cursor = text(next);
                    if cursor == "0" {
                        return Ok(Ok(members));
                    }
                }
            }
        }
    }

    async fn read_jobs(&self, partition: u16, names: &[&str], seen: &mut Seen) -> Result<()> {
        let mut pipeline = redis::pipe();
        for name in names {
            let key = keys::fixed(partition, name);
            pipeline.cmd("HMGET").arg(&key).arg(&seen::RECORD_FIELDS).cmd("HSTRLEN").arg(&key).arg("payload");
        }
        let replies = self.inner.pipe_leniently(&pipeline).await?;
        for (name, reply) in names.iter().zip(replies.chunks_exact(2)) {
            seen.take_job(name, &reply[0], &reply[1]);
        }
        Ok(())
    }
}

/// Elements that one call reads.
const STEP: usize = 1_000;

/// The type a key must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    List,
    Set,
    Hash,
    Ranked,
    Text,
}

impl Sort {
    /// What Redis's TYPE calls it.
    fn must_be(self) -> &'static str {
        match self {
            Sort::List => "list",
            Sort::Set => "set",
            Sort::Hash => "hash",
            Sort::Ranked => "zset",
            Sort::Text => "string",
        }
    }

    fn scan(self) -> &'static str {
        match self {
            Sort::Hash => "HSCAN",
            Sort::Ranked => "ZSCAN",
            _ => "SSCAN",
        }
    }
}
