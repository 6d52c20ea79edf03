//! Cascades: the cancels, retries and removals of batches, which visit the items in bounded steps. The verb itself
//! takes the first steps, and sweeps the others.
use std::collections::VecDeque;

use redis::Value;

use super::wire::reply::{array, number, text};
use super::wire::{Args, Repeat, scripts};
use super::{Store, by_partition};
use crate::{JobId, Result, limits};

/// A cancel, retry or removal in progress over a batch's items.
pub(super) struct Cascade {
    parent: JobId,
    verb: String,
    from: u64,
    total: u64,
}

impl Cascade {
    /// One that has just begun, over `total` items.
    pub(super) fn begun(verb: &str, parent: JobId, total: u64) -> Self {
        Self { parent, verb: verb.to_owned(), from: 0, total }
    }

    /// An entry of `sweep.lua`: `{parent, <verb> <number of the next item> <since>, items}`.
    pub(super) fn read(entry: &Value) -> Option<Self> {
        let [parent, step, total] = array(entry) else { return None };
        let step = text(step);
        let mut words = step.split(' ');
        let verb = words.next()?.to_owned();
        let from = words.next().and_then(|from| from.parse().ok()).unwrap_or(0);
        let total = number(total).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Some(Self { parent: JobId::parse(&text(parent)).ok()?, verb, from, total })
    }
}

/// What the steps of cascades have done.
#[derive(Default)]
pub(super) struct Walked {
    /// Calls of the script.
    pub calls: usize,
    /// Batches that have ended or are removed, with their items.
    pub ended: Vec<JobId>,
    /// Some cascades have further steps.
    pub more: bool,
}

impl Store {
    /// Runs steps of cascades, one each in turn and several small ones in a call, with at most `calls_max` calls: a
    /// large cascade must not delay the others, and all of them must not delay the rest of a sweep.
    pub(super) async fn walk_cascades(
        &self,
        partition: u16,
        mut cascades: VecDeque<Cascade>,
        calls_max: usize,
    ) -> Result<Walked> {
        let mut walked = Walked::default();
        while walked.calls < calls_max && !cascades.is_empty() {
            // Removals wait for a file store that is behind.
            if cascades[0].verb == "remove" && self.deletes_behind() {
                break;
            }
            let steps = next_steps(&mut cascades);
            let mut args = Args::default().count(steps.len());
            for (cascade, to) in &steps {
                let items = self.item_ids(&cascade.parent, partition, cascade.from..*to);
                args = args.text(cascade.parent.as_str()).text(&cascade.verb).number(cascade.from);
                args = args.count(items.len()).texts(items.iter().map(JobId::as_str));
            }
            let reply = self.inner.wire.run(&scripts::CASCADE, partition, &args, Repeat::Safe).await?;
            let answers = self.discard_later(&reply);
            for ((mut cascade, to), answer) in steps.into_iter().zip(answers) {
                match text(answer).as_str() {
                    "more" => {
                        cascade.from = to;
                        cascades.push_back(cascade);
                    }
                    "ended" => walked.ended.push(cascade.parent),
                    _ => {}
                }
            }
            walked.calls += 1;
        }
        walked.more = !cascades.is_empty();
        Ok(walked)
    }

    /// The first steps of cascades that have just begun. The verb has succeeded, so that an error is not one of its
    /// own: the sweep continues. Returns the batches that have ended or are removed.
    pub(super) async fn first_steps(&self, verb: &str, begun: Vec<(JobId, u64)>) -> Vec<JobId> {
        let mut ended = Vec::new();
        let places = match self.places(begun.iter().map(|(parent, _)| parent)).await {
            Ok(places) => places,
            Err(e) => {
                tracing::warn!("the first steps of a {verb} failed, and the sweep continues them: {e}");
                return ended;
            }
        };
        for (partition, share) in by_partition(&begun, |at, _| places[at]) {
            let cascades = share.into_iter().map(|(_, (parent, total))| Cascade::begun(verb, parent.clone(), *total));
            match self.walk_cascades(partition, cascades.collect(), limits::FIRST_STEPS).await {
                Ok(walked) => ended.extend(walked.ended),
                Err(e) => tracing::warn!("the first steps of a {verb} failed, and the sweep continues them: {e}"),
            }
        }
        ended
    }
}

/// The next step of each of the first cascades, as many as one call may have, each with the number of the item behind.
fn next_steps(cascades: &mut VecDeque<Cascade>) -> Vec<(Cascade, u64)> {
    let (mut steps, mut room) = (Vec::new(), limits::CASCADE_BATCH as u64);
    while room > 0 {
        let Some(cascade) = cascades.pop_front() else { break };
        let to = cascade.total.min(cascade.from.saturating_add(room)).max(cascade.from);
        room -= (to - cascade.from).max(1);
        steps.push((cascade, to));
    }
    steps
}
