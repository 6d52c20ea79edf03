//! Which jobs run, and who runs them.
use std::collections::HashMap;

use super::Store;
use super::wire::reply::{array, text};
use super::wire::{Home, keys};
use crate::{JobId, Result, limits};

impl Store {
    /// The running jobs of a partition, by worker.
    pub(super) async fn running_in(&self, partition: u16) -> Result<HashMap<String, Vec<JobId>>> {
        let (mut running, mut cursor): (HashMap<String, Vec<JobId>>, _) = (HashMap::new(), "0".to_owned());
        loop {
            let mut page = redis::pipe();
            page.cmd("HSCAN").arg(keys::fixed(partition, "running")).arg(&cursor).arg("COUNT").arg(limits::PAGE_MAX);
            let reply = self.inner.wire.pipe_leniently(Home::Partition(partition), &page).await?;
            let [next, entries] = array(&reply[0]) else { return Ok(running) };
            for entry in array(entries).chunks_exact(2) {
                let record = text(&entry[1]);
                if let (Ok(id), Some(worker)) = (JobId::parse(&text(&entry[0])), record.split(' ').nth(1)) {
                    running.entry(worker.to_owned()).or_default().push(id);
                }
            }
            cursor = text(next);
            if cursor == "0" {
                return Ok(running);
            }
        }
    }
}
