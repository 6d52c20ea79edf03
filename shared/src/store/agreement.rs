//! Checks that all processes have the same kinds file.
use super::Store;
use crate::kinds::PublishedKinds;
use crate::{Kind, Kinds, Result};

/// Compares the kinds file of a process with what was published last, and logs each change of the outcome.
#[derive(Debug)]
pub struct Agreement {
    own: Option<PublishedKinds>,
    differing: Vec<Kind>,
}

impl Agreement {
    /// For a process with these kinds; a process without a kinds file agrees with every other.
    pub fn new(kinds: &Kinds) -> Self {
        Self { own: (!kinds.is_empty()).then(|| kinds.published()), differing: Vec::new() }
    }

    /// The kinds that differ now; a process that starts with a kinds file publishes it, so the last one to start is
    /// right.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check(&mut self, store: &Store) -> Result<&[Kind]> {
        let published = if self.own.is_some() { store.published_kinds().await? } else { None };
        let differing = match (&self.own, &published) {
            (Some(own), Some(published)) => own.differing(published),
            _ => Vec::new(),
        };
        if differing != self.differing {
            if differing.is_empty() {
                tracing::info!("the kinds file agrees again with the published kinds");
            } else {
                tracing::warn!(
                    "a process that started later has another kinds file, with other settings of {}; give every API and \
                     worker the same file, and restart those with the old one",
                    names(&differing)
                );
            }
            self.differing = differing;
        }
        Ok(&self.differing)
    }
}

/// The names of kinds, for a message.
pub fn names(kinds: &[Kind]) -> String {
    const SHOWN: usize = 5;
    let mut names: Vec<&str> = kinds.iter().take(SHOWN).map(Kind::as_str).collect();
    let more = kinds.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("{more} more"));
    names.extend(more.as_deref());
    names.join(", ")
}
