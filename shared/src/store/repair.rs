//! Repair: fixes what a check found.
use std::collections::BTreeSet;

use super::Store;
use super::finding::{Finding, Repair};
use super::wire::reply::{array, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::{JobId, Result, limits};

impl Store {
    /// Repairs one finding. Safe if the finding no longer applies.
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
        self.inner.wire.run(script, finding.partition, &args, Repeat::Safe).await.map(drop)
    }

    /// After `leases` or `running` was set aside: gives each running record a lease, and drops leases without one, and
    /// what is in either and is not the id of a job: no script would ever remove it.
    pub(super) async fn mend_leases(&self, partition: u16) -> Result<()> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HKEYS").arg(keys::fixed(partition, "running"));
        pipeline.cmd("ZRANGE").arg(keys::fixed(partition, "leases")).arg(0).arg(-1);
        let replies = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
        let sides: Vec<BTreeSet<JobId>> =
            replies.iter().map(|r| array(r).iter().filter_map(|v| JobId::parse(&text(v)).ok()).collect()).collect();
        let mut pipeline = redis::pipe();
        for (command, reply) in [("HDEL", &replies[0]), ("ZREM", &replies[1])] {
            let key = keys::fixed(partition, if command == "HDEL" { "running" } else { "leases" });
            for member in array(reply).iter().map(text).filter(|member| JobId::parse(member).is_err()) {
                pipeline.cmd(command).arg(&key).arg(member);
            }
        }
        if !pipeline.is_empty() {
            self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
        }
        for id in sides[0].symmetric_difference(&sides[1]) {
            let args = Args::default().text(id.as_str()).number(0).count(0);
            self.inner.wire.run(&scripts::REPAIR, partition, &args, Repeat::Safe).await?;
        }
        Ok(())
    }
}
