//! The consistency check: reads all keys of a partition and verifies the invariants in ARCHITECTURE.md.
//!
//! Tests run it on an idle system, where it must find nothing. `leasehold doctor` runs it on a live system, where keys
//! are read at different moments: there a finding counts only when it is seen twice.
//! `seen` holds what was read, `judge` finds what is wrong with it.
mod judge;
mod seen;

use redis::Value;

use super::Store;
use super::finding::Finding;
use super::wire::reply::{array, number, text};
use super::wire::{Home, keys};
use crate::Result;
use seen::{Seen, Sort};

/// Elements read by one call.
const STEP: usize = 1_000;

impl Store {
    /// Checks every partition. The cost grows with the number of jobs; it reads in small steps.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check(&self) -> Result<Vec<Finding>> {
        // With the keys of an earlier layout everything else would be out of place.
        if let Some(earlier) = self.find_layout().await? {
            return Ok(vec![earlier]);
        }
        let mut findings: Vec<Finding> = self.find_emptied().await?.into_iter().collect();
        for partition in 0..self.partitions() {
            findings.extend(judge::judge(partition, self.walk(partition).await?));
        }
        findings.sort();
        findings.dedup();
        Ok(findings)
    }

    async fn walk(&self, partition: u16) -> Result<Seen> {
        let mut seen = Seen::new(partition);
        seen.now = self.now(partition).await?;
        let (mut cursor, head) = ("0".to_owned(), keys::prefix(partition).len() + 1);
        loop {
            let mut pipeline = redis::pipe();
            let pattern = keys::pattern(partition, "*");
            pipeline.cmd("SCAN").arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
            let replies = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
            let reply = array(&replies[0]);
            // A page at a time, and some keys twice, as Redis returns them: there may be millions.
            let names: Vec<String> = array(&reply[1]).iter().map(|name| text(name)[head..].to_owned()).collect();
            let (jobs, others): (Vec<&str>, Vec<&str>) =
                names.iter().map(String::as_str).partition(|name| name.starts_with("job:"));
            for name in others {
                if let Some(sort) = seen.sort_of(name) {
                    self.read_key(partition, name, sort, &mut seen).await?;
                }
            }
            for chunk in jobs.chunks(STEP / 2) {
                self.read_jobs(partition, chunk, &mut seen).await?;
            }
            cursor = text(&reply[0]);
            if cursor == "0" {
                return Ok(seen);
            }
        }
    }

    /// The time by which scripts act, ms.
    async fn now(&self, partition: u16) -> Result<i64> {
        if let Some(now) = self.inner.wire.clock() {
            return Ok(now);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        let replies = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
        Ok(array(&replies[0]).first().and_then(number).unwrap_or(0) * 1_000)
    }

    /// Takes in all members of a key, in steps; reports a key of another type.
    async fn read_key(&self, partition: u16, name: &str, sort: Sort, seen: &mut Seen) -> Result<()> {
        let key = keys::fixed(partition, name);
        let (mut read, mut cursor) = (0, "0".to_owned());
        loop {
            let mut pipeline = redis::pipe();
            match sort {
                Sort::List => pipeline.cmd("LRANGE").arg(&key).arg(read).arg(read + STEP - 1),
                Sort::Text => pipeline.cmd("GET").arg(&key),
                Sort::Set | Sort::Hash | Sort::Ranked => {
                    pipeline.cmd(sort.scan()).arg(&key).arg(&cursor).arg("COUNT").arg(STEP)
                }
            };
            let mut replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
            match (sort, replies.pop().unwrap_or(Value::Nil)) {
                (_, Value::ServerError(e)) => {
                    let reason = e.details().unwrap_or("of another type").to_owned();
                    seen.unreadable(key, sort.must_be(), reason);
                    return Ok(());
                }
                (Sort::Text, value) => {
                    seen.take(name, vec![text(&value)]);
                    return Ok(());
                }
                // Elements pushed meanwhile are at the head: no remaining element is skipped.
                (Sort::List, step) => {
                    read += array(&step).len();
                    seen.take(name, array(&step).iter().map(text).collect());
                    if array(&step).len() < STEP {
                        return Ok(());
                    }
                }
                (_, step) => {
                    let [next, step] = array(&step) else { return Ok(()) };
                    seen.take(name, array(step).iter().map(text).collect());
                    cursor = text(next);
                    if cursor == "0" {
                        return Ok(());
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
        let replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
        for (name, reply) in names.iter().zip(replies.chunks_exact(2)) {
            seen.take_job(name, &reply[0], &reply[1]);
        }
        Ok(())
    }
}
