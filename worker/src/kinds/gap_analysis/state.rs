//! What an analysis knows so far: its checkpoint, kept within a checkpoint's bounds.
use leasehold::{job, limits};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::document::Document;

/// Bytes of the reason for which a document was passed over.
const REASON_BYTES_MAX: usize = 120;

/// What is to be done next.
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

    /// The one after it; writing is the last.
    pub fn next(self) -> Self {
        match self {
            Phase::Fetching => Phase::Extracting,
            Phase::Extracting => Phase::Finding,
            Phase::Finding => Phase::Validating,
            Phase::Validating | Phase::Writing => Phase::Writing,
        }
    }
}

/// A document, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Its statements; a digest of where it was found, when a redirect led elsewhere.
    Read {
        statements: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found_at: Option<String>,
    },
    Skipped(String),
}

/// Statements that speak of the same: the one that stands for them, as document and number, and the documents that have one.
/// It is written as a list: there may be hundreds.
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

    /// Whether it is about this document.
    pub fn is_of(&self, url: &Url) -> bool {
        self.sources.first().is_some_and(|first| first.url == url.as_str())
    }

    /// The documents that are done with.
    pub fn done(&self) -> usize {
        self.sources.iter().filter(|source| source.outcome.is_some()).count()
    }

    /// The next document to fetch.
    pub fn next_source(&self) -> Option<usize> {
        self.sources.iter().position(|source| source.outcome.is_none())
    }

    /// Takes up to `most` documents that the first refers to, in their order and each once; `room` bytes of URLs at most.
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

    /// Takes in what a document says. Of all documents together no more than `room` bytes of statements are kept; those with
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

    /// Notes why a document was not read.
    pub fn skipped(&mut self, at: usize, reason: &str) {
        let reason = job::cut(reason, REASON_BYTES_MAX).to_owned();
        self.sources[at].outcome = Some(Outcome::Skipped(reason));
    }

    /// Keeps the statements of which this is true.
    pub fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        for statements in self.sources.iter_mut().filter_map(Source::statements_mut) {
            statements.retain(|statement| is_kept(statement));
        }
    }

    /// The statements of each document; none for one that was not read.
    pub fn statements(&self) -> Vec<Vec<String>> {
        let statements = |source: &Source| match &source.outcome {
            Some(Outcome::Read { statements, .. }) => statements.clone(),
            _ => Vec::new(),
        };
        self.sources.iter().map(statements).collect()
    }

    /// The documents that were read.
    pub fn read(&self) -> Vec<&str> {
        let read = self.sources.iter().filter(|source| matches!(source.outcome, Some(Outcome::Read { .. })));
        read.map(|source| source.url.as_str()).collect()
    }

    /// The gaps, as the result has them.
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

    /// The documents that were not read, as the result has them.
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

/// How much a text takes in a checkpoint.
fn as_json(text: &str) -> usize {
    text.len() + 3 + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}
