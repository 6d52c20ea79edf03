//! What a check finds, and how it can be repaired.
use std::collections::BTreeSet;
use std::fmt;

use super::wire::keys::aside as quarantined;
use crate::{JobId, limits};

/// A violated invariant, or a report for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// The partition.
    pub partition: u16,
    /// The job or key concerned.
    pub subject: String,
    /// The problem.
    pub problem: String,
    /// The repair, if there is one.
    pub repair: Option<Repair>,
}

/// How a finding is repaired.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Repair {
    /// The job's id is put in the place that its record requires, and removed from all others.
    Place {
        /// The job.
        id: JobId,
        /// Its id is in a list.
        listed: bool,
        /// Kinds under whose index or permits it was found.
        kinds: BTreeSet<String>,
        /// Workers in whose claimed lists it was found.
        workers: BTreeSet<String>,
    },
    /// An unreadable key is set aside by renaming it.
    Aside {
        /// The key.
        key: String,
        /// The required type; empty when the content is wrong.
        must_be: &'static str,
        /// The reason.
        reason: String,
    },
    /// The token counter continues above the highest token issued.
    Tokens(u64),
    /// A parent's counts are recalculated from its items.
    Counts {
        /// The parent.
        id: JobId,
        /// Total, succeeded, failed, skipped and cancelled, as stored in the parent.
        stored: [u64; 5],
        /// Succeeded, failed, skipped and cancelled, as counted from its items; a missing item counts as failed.
        counted: [u64; 4],
    },
    /// A folder of the file store is deleted: a job's, or an attempt's.
    Files {
        /// The job it is named after.
        id: JobId,
        /// The attempt's token.
        token: Option<u64>,
    },
    /// The report that Redis was emptied is acknowledged.
    AcceptEmptied,
    /// The report of a key that was set aside is acknowledged; the key is kept for another [`limits::QUARANTINE_MS`].
    Accept(String),
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repair::Place { .. } => f.write_str("its id is moved to the place that its record requires"),
            Repair::Aside { key, .. } => write!(f, "the key is set aside as {}", quarantined(key)),
            Repair::Tokens(highest) => write!(f, "the counter continues above {highest}"),
            Repair::Counts { counted: [succeeded, failed, skipped, cancelled], .. } => write!(
                f,
                "its counts are set to {succeeded} succeeded, {failed} failed, {skipped} skipped, {cancelled} cancelled"
            ),
            Repair::Files { .. } => f.write_str("the folder is deleted"),
            Repair::AcceptEmptied => f.write_str("it is no longer reported"),
            Repair::Accept(key) => {
                let days = limits::QUARANTINE_MS / 86_400_000;
                write!(f, "it is no longer reported; its content is kept at {} for {days} days", quarantined(key))
            }
        }
    }
}
