//! The scripts as they change a parent and its items, each one atomic step.

use super::model::Batch;
use super::state::{Cascade, Handler, ITEMS, Place, State, Verdict};
use crate::guard::Guard;

impl State {
    /// submit.lua, a part of the items. Answers whether it was taken.
    pub fn submit(&mut self, model: &Batch, part: usize) -> bool {
        let numbers = if part == 0 { 0..1 } else { 1..ITEMS };
        let new = |item: usize| self.items[item].place == Place::Absent || !model.guards.on(Guard::NumberedItems);
        let new: Vec<usize> = numbers.filter(|&item| new(item)).collect();
        if self.parent.sealed && model.guards.on(Guard::UnsealedItems) {
            return new.is_empty();
        }
        if self.parent.place == Place::Absent {
            self.parent.place = Place::Waiting;
        }
        for item in new {
            self.broken |= self.items[item].place.is_final();
            self.items[item].place = Place::Queued;
            self.parent.counts.open += 1;
        }
        self.parent.sealed |= part > 0;
        self.finish(model);
        true
    }

    /// claim.lua
    pub fn claim(&mut self, item: usize) {
        let item = &mut self.items[item];
        item.place = Place::Running;
        item.token += 1;
        item.handlers[1] = item.handlers[0].or(item.handlers[1]);
        item.handlers[0] = Some(Handler { token: item.token, sent: None });
    }

    /// settle.lua, sent by a handler that may have lost its lease.
    pub fn settle(&mut self, model: &Batch, item: usize, token: u8, verdict: Verdict) {
        let record = self.items[item];
        if record.place == Place::Running && record.token == token {
            self.items[item].settled = token;
            let place = match verdict {
                Verdict::Complete => Place::Completed,
                Verdict::Fail if record.flagged => Place::Cancelled,
                Verdict::Fail => Place::Failed,
            };
            self.end(model, item, place);
        } else if record.settled == token && record.place.is_final() && !model.guards.on(Guard::CountedFinish) {
            self.parent.counts.open -= 1;
            *self.parent.counts.of(self.items[item].place) += 1;
            self.finish(model);
        }
    }

    /// reclaim.lua. Its handler goes on without a lease.
    pub fn reclaim(&mut self, model: &Batch, item: usize) {
        let record = &mut self.items[item];
        record.handlers[1] = record.handlers[0].take();
        let place = match () {
            () if record.flagged => Place::Cancelled,
            () if record.crashed => Place::Failed,
            () => Place::Queued,
        };
        record.crashed = true;
        match place {
            Place::Queued => record.place = place,
            _ => self.end(model, item, place),
        }
    }

    /// cancel.lua of one item.
    pub fn cancel_item(&mut self, model: &Batch, item: usize) {
        match self.items[item].place {
            Place::Queued => self.end(model, item, Place::Cancelled),
            Place::Running => self.items[item].flagged = true,
            _ => {}
        }
    }

    /// retry.lua of one item.
    pub fn retry_item(&mut self, model: &Batch, item: usize) {
        let parent_lives = self.parent.place == Place::Waiting && !self.parent.flagged;
        let ended = matches!(self.items[item].place, Place::Failed | Place::Cancelled);
        if ended && (parent_lives || !model.guards.on(Guard::ParentRetry)) {
            self.requeue(model, item);
        }
    }

    fn requeue(&mut self, model: &Batch, item: usize) {
        let counts = &mut self.parent.counts;
        if model.guards.on(Guard::RevivedFinish) {
            *counts.of(self.items[item].place) -= 1;
        }
        counts.open += 1;
        let item = &mut self.items[item];
        (item.place, item.flagged, item.crashed) = (Place::Queued, false, false);
    }

    /// cancel.lua of the parent: sealed, flagged, and its items in steps.
    pub fn cancel(&mut self, model: &Batch) {
        match self.parent.place {
            Place::Waiting => {
                self.parent.sealed |= model.guards.on(Guard::SealingCancel);
                self.parent.flagged = true;
                self.parent.refused = true;
                self.parent.cascade = Some(Cascade::Cancel(0));
            }
            Place::Queued => self.parent.place = Place::Cancelled,
            _ => {}
        }
    }

    /// retry.lua of the parent: its failed and cancelled items in steps.
    pub fn retry(&mut self) {
        let again = self.parent.counts.failed + self.parent.counts.cancelled > 0;
        if self.parent.place.is_final() && again {
            self.parent.place = Place::Waiting;
            (self.parent.flagged, self.parent.refused) = (false, false);
            self.parent.cascade = Some(Cascade::Retry(0));
        }
    }

    /// One step of a cascade, by whoever goes on with it.
    pub fn cascade(&mut self, model: &Batch) {
        let (item, next) = match self.parent.cascade {
            Some(Cascade::Cancel(item)) => {
                self.cancel_item(model, item);
                (item, Cascade::Cancel(item + 1))
            }
            Some(Cascade::Retry(item)) => {
                if matches!(self.items[item].place, Place::Failed | Place::Cancelled) {
                    self.requeue(model, item);
                }
                (item, Cascade::Retry(item + 1))
            }
            None => return,
        };
        self.parent.cascade = (item + 1 < ITEMS).then_some(next);
        self.finish(model);
    }

    fn end(&mut self, model: &Batch, item: usize, place: Place) {
        self.broken |= self.items[item].place.is_final();
        self.items[item].place = place;
        self.parent.counts.open -= 1;
        *self.parent.counts.of(place) += 1;
        self.finish(model);
    }

    /// finish.lua: whoever ends an item, seals, cancels or takes a cascade's last step includes it.
    fn finish(&mut self, model: &Batch) {
        let sealed = self.parent.sealed || !model.guards.on(Guard::SealedFinish);
        let cascaded = self.parent.cascade.is_none() || !model.guards.on(Guard::CascadedFinish);
        if self.parent.place != Place::Waiting || !sealed || !cascaded || self.parent.counts.open != 0 {
            return;
        }
        self.parent.place = match () {
            () if self.parent.flagged && model.guards.on(Guard::FlaggedFinish) => Place::Cancelled,
            () if model.then => Place::Queued,
            () => Place::Completed,
        };
    }
}
