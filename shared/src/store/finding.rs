//! What a check finds, and how it can be repaired.
use std::collections::BTreeSet;
use std::fmt;

use crate::{JobId, limits};

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub partition: u16,
    /// The job or key it is about.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// How it can be repaired, if it can.
    pub repair: Option<Repair>,
}

/// How a finding is repaired.
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
    /// The counter of tokens continues above the highest one given.
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
