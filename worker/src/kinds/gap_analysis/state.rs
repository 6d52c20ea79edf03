//! The state of an analysis: its checkpoint, kept within the limits of a checkpoint.
use leasehold::{job, limits};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::document::Document;

/// The maximum size of the reason for which a document was skipped, in bytes.
const REASON_BYTES_MAX: usize = 120;

/// The phase to run next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Fetching,
    Extracting,
    Finding,
    Validating,
    Writing,
}

impl Phase {
    pub fn message(self) -> &'static str {
        match self {
            Phase::Fetching => "fetching",
            Phase::Extracting => "extracting",
            Phase::Finding => "finding gaps",
            Phase::Validating => "validating",
            Phase::Writing => "writing",
        }
    }

    /// The following phase; writing is the last.
    pub fn next(self) -> Self {
        match self {
            Phase::Fetching => Phase::Extracting,
            Phase::Extracting => Phase::Finding,
            Phase::Finding => Phase::Validating,
            Phase::Validating | Phase::Writing => Phase::Writing,
        }
    }
}

/// A document and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Its statements, and a digest of its URL after redirects, if different.
    Read {
        statements: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found_at: Option<String>,
    },
    Skipped(String),
}

/// Statements on one topic: the representative one, as document and number, and the documents that have one. Serialized
/// as a list to save space: there may be hundreds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(usize, usize, Vec<usize>)", into = "(usize, usize, Vec<usize>)")]
pub(super) struct Group {
    pub leader: (usize, usize),
    pub documents: Vec<usize>,
}

impl From<(usize, usize, Vec<usize>)> for Group {
    fn from((document, number, documents): (usize, usize, Vec<usize>)) -> Self {
        Self { leader: (document, number), documents }
    }
}

impl From<Group> for (usize, usize, Vec<usize>) {
    fn from(group: Group) -> Self {
        (group.leader.0, group.leader.1, group.documents)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub phase: Phase,
    pub sources: Vec<Source>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

impl State {
    pub fn new(url: &Url) -> Self {
        let first = Source { url: url.to_string(), outcome: None };
        Self { phase: Phase::Fetching, sources: vec![first], groups: Vec::new() }
    }

    /// Whether this is the analysis of this document.
    pub fn is_of(&self, url: &Url) -> bool {
        self.sources.first().is_some_and(|first| first.url == url.as_str())
    }

    /// How many documents have an outcome.
    pub fn done(&self) -> usize {
        self.sources.iter().filter(|source| source.outcome.is_some()).count()
    }

    /// The next document to fetch.
    pub fn next_source(&self) -> Option<usize> {
        self.sources.iter().position(|source| source.outcome.is_none())
    }

    /// Adds up to `most` documents that the first one links to, in their order and without duplicates; at most `room`
    /// bytes of URLs.
    pub fn refer(&mut self, links: &[Url], most: usize, room: usize) {
        let mut bytes = 0;
        for link in links {
            let mut link = link.clone();
            link.set_fragment(None);
            if self.sources.len() > most || bytes + link.as_str().len() > room {
                break;
            }
            let is_new = !self.sources.iter().any(|source| source.url == link.as_str());
            if is_new && link.as_str().len() <= limits::URL_BYTES_MAX {
                bytes += link.as_str().len();
                self.sources.push(Source { url: link.to_string(), outcome: None });
            }
        }
    }

    /// Adds the statements of a document. All documents together keep at most `room` bytes of statements; those with
    /// the most lose their last ones first.
    pub fn record(&mut self, at: usize, document: Document, room: usize) {
        let found_at = document.url.as_str();
        let is_known = |source: &&Source| match &source.outcome {
            Some(Outcome::Read { found_at: Some(digest), .. }) => *digest == digest_of(found_at),
            Some(Outcome::Read { found_at: None, .. }) => source.url == found_at,
            _ => false,
        };
        if let Some(same) = self.sources.iter().find(is_known) {
            let reason = format!("is the same document as {}", same.url);
            return self.skipped(at, &reason);
        }
        let source = &mut self.sources[at];
        let found_at = (found_at != source.url).then(|| digest_of(found_at));
        source.outcome = Some(Outcome::Read { statements: document.statements, found_at });
        self.shrink(room);
    }

    fn shrink(&mut self, room: usize) {
        let size = |statements: &[String]| statements.iter().map(|text| as_json(text)).sum::<usize>();
        let mut lists: Vec<&mut Vec<String>> = self.sources.iter_mut().filter_map(Source::statements_mut).collect();
        let mut sizes: Vec<usize> = lists.iter().map(|list| size(list)).collect();
        while sizes.iter().sum::<usize>() > room {
            let Some(largest) = (0..sizes.len()).max_by_key(|at| sizes[*at]) else { return };
            let Some(dropped) = lists[largest].pop() else { return };
            sizes[largest] -= as_json(&dropped);
        }
    }

    /// Records why a document was not read.
    pub fn skipped(&mut self, at: usize, reason: &str) {
        let reason = job::cut(reason, REASON_BYTES_MAX).to_owned();
        self.sources[at].outcome = Some(Outcome::Skipped(reason));
    }

    /// Keeps the statements for which the predicate is true.
    pub fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        for statements in self.sources.iter_mut().filter_map(Source::statements_mut) {
            statements.retain(|statement| is_kept(statement));
        }
    }

    /// The statements of each document; empty for one that was not read.
    pub fn statements(&self) -> Vec<Vec<String>> {
        let statements = |source: &Source| match &source.outcome {
            Some(Outcome::Read { statements, .. }) => statements.clone(),
            _ => Vec::new(),
        };
        self.sources.iter().map(statements).collect()
    }

    /// The URLs of the documents that were read.
    pub fn read(&self) -> Vec<&str> {
        let read = self.sources.iter().filter(|source| matches!(source.outcome, Some(Outcome::Read { .. })));
        read.map(|source| source.url.as_str()).collect()
    }

    /// The gaps, in the form of the output file.
    pub fn gaps(&self) -> Vec<Value> {
        let statements = self.statements();
        let gap = |group: &Group| {
            let documents: Vec<&str> = group.documents.iter().map(|at| self.sources[*at].url.as_str()).collect();
            json!({
                "statement": statements[group.leader.0][group.leader.1],
                "documents": documents,
                "support": documents.len(),
            })
        };
        self.groups.iter().map(gap).collect()
    }

    /// The documents that were not read, in the form of the output file.
    pub fn skipped_documents(&self) -> Vec<Value> {
        let reason = |source: &Source| match &source.outcome {
            Some(Outcome::Skipped(reason)) => Some(json!({ "url": source.url, "reason": reason })),
            _ => None,
        };
        self.sources.iter().filter_map(reason).collect()
    }
}

impl Source {
    fn statements_mut(&mut self) -> Option<&mut Vec<String>> {
        match &mut self.outcome {
            Some(Outcome::Read { statements, .. }) => Some(statements),
            _ => None,
        }
    }
}

fn digest_of(url: &str) -> String {
    Sha256::digest(url).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The size of a text in a checkpoint, in bytes.
fn as_json(text: &str) -> usize {
    text.len() + 3 + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}
