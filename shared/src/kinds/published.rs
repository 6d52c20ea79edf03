//! What processes publish of their kinds files.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::canonical::request_digest;
use crate::job::Durability;
use crate::{Kind, QueueName};

/// The kinds of a kinds file, as published in Redis by each process that starts with one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedKinds {
    pub(super) kinds: BTreeMap<Kind, PublishedKind>,
}

/// The settings of a kind that a submit needs, and a digest of all its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublishedKind {
    pub(super) queue: QueueName,
    pub(super) max_attempts: u32,
    pub(super) timeout_ms: Option<u64>,
    pub(super) max_running: Option<u32>,
    /// Absent when no replica is waited for, and when an older version has published the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) durability: Option<Durability>,
    pub(super) digest: String,
}

impl PublishedKinds {
    /// 32 hex digits, equal if all settings of all kinds are equal.
    pub fn digest(&self) -> String {
        request_digest(self.kinds.iter().flat_map(|(kind, of)| [kind.as_str(), of.digest.as_str()]))
    }

    /// Whether `kind` is among them.
    pub fn contains(&self, kind: &Kind) -> bool {
        self.kinds.contains_key(kind)
    }

    /// How many jobs of `kind` may run at once; `None`: any number.
    pub fn max_running(&self, kind: &Kind) -> Option<u32> {
        self.kinds.get(kind).and_then(|of| of.max_running)
    }

    /// The kinds that only one of the two has, or that have different settings.
    pub fn differing(&self, other: &Self) -> Vec<Kind> {
        let all: BTreeSet<&Kind> = self.kinds.keys().chain(other.kinds.keys()).collect();
        all.into_iter().filter(|kind| self.kinds.get(*kind) != other.kinds.get(*kind)).cloned().collect()
    }
}
