//! The blocking pops of an idle worker: the lists they wait on, and their connections.
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use leasehold::store::{Popper, PopperId, Reservation};
use leasehold::{Error, QueueName};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use crate::event::{Event, Popped};
use crate::running::Running;

/// A queue's list in one partition.
pub(crate) struct List {
    pub partition: u16,
    pub queue: QueueName,
    /// The queue is paused, so no pop is armed.
    pub paused: bool,
    /// The earliest time of the next pop, after one that was refused or failed.
    pub not_before: Instant,
    armed: Option<Armed>,
}

struct Armed {
    /// The popper's connection, once there is one.
    connection: Arc<OnceLock<PopperId>>,
    task: AbortHandle,
}

/// All lists of this worker, and at most one pop on each.
pub(crate) struct Pops {
    running: Arc<Running>,
    /// Where each pop sends its result, so that one loop can wait for all of them.
    events: UnboundedSender<Event>,
    /// In a fixed order: events and `turn` refer to a list by its index.
    pub lists: Vec<List>,
    /// The partitions whose lists are there.
    partitions: u16,
    /// Connections of pops that have returned, kept for the next ones.
    idle: Vec<Popper>,
    /// How long a pop blocks; at most a third of the lease, so that its reservation can still be leased in time.
    wait: Duration,
    /// Where arming continues, so that with fewer free slots than lists each list has its turn.
    turn: usize,
}

impl Pops {
    pub fn new(running: Arc<Running>, events: UnboundedSender<Event>, wait: Duration) -> Self {
        Self { events, lists: Vec::new(), partitions: 0, idle: Vec::new(), wait, turn: 0, running }
    }

    /// Adds the lists of all partitions below `partitions` that are not there yet.
    pub fn add_lists(&mut self, partitions: u16) {
        let running = Arc::clone(&self.running);
        for partition in self.partitions..partitions {
            self.lists.extend(running.queues.iter().map(|(queue, _)| List {
                partition,
                queue: queue.clone(),
                paused: false,
                not_before: Instant::now(),
                armed: None,
            }));
        }
        self.partitions = self.partitions.max(partitions);
    }

    pub fn armed(&self) -> usize {
        self.lists.iter().filter(|list| list.armed.is_some()).count()
    }

    /// Arms up to `count` more pops, in turn, on lists for which `wants` is true. Returns the partitions in which such
    /// a list is left without a pop.
    pub fn arm(&mut self, count: usize, wants: impl Fn(&List) -> bool) -> Vec<u16> {
        let lists = &self.lists;
        let (now, later) = round_robin(self.turn, lists.len(), count, |at| {
            let list = &lists[at];
            list.armed.is_none() && !list.paused && wants(list)
        });
        let mut without: Vec<u16> = later.into_iter().map(|at| lists[at].partition).collect();
        without.dedup();
        self.turn = now.last().map_or(self.turn, |at| at + 1);
        now.into_iter().for_each(|at| self.arm_one(at));
        without
    }

    fn arm_one(&mut self, at: usize) {
        let list = &mut self.lists[at];
        let call = self.running.leases.begin_call(list.partition);
        let connection = Arc::new(OnceLock::new());
        let popper = self.idle.pop();
        let (partition, queue, wait) = (list.partition, list.queue.clone(), self.wait);
        let (running, events, named) = (Arc::clone(&self.running), self.events.clone(), Arc::clone(&connection));
        let task = tokio::spawn(async move {
            let mut popper = popper;
            let answer = pop(&running, &mut popper, &named, partition, &queue, wait).await;
            drop(events.send(Event::Popped(Popped { list: at, answer, call, popper })));
        });
        list.armed = Some(Armed { connection, task: task.abort_handle() });
    }

    /// Marks the list of a returned pop as unarmed, and keeps the pop's connection.
    pub fn disarm(&mut self, popped: &mut Popped) {
        self.lists[popped.list].armed = None;
        self.idle.extend(popped.popper.take());
    }

    /// The connections of armed pops on the lists that `which` selects, for [`leasehold::Store::unblock`].
    pub fn connections(&self, which: impl Fn(&List) -> bool) -> Vec<PopperId> {
        let armed = self.lists.iter().filter(|list| which(list)).filter_map(|list| list.armed.as_ref());
        armed.filter_map(|armed| armed.connection.get().cloned()).collect()
    }

    /// Aborts all pops that have not returned, and drops their connections. Returns how many there were.
    pub fn abort_all(&mut self) -> usize {
        let left = self.lists.iter_mut().filter_map(|list| list.armed.take());
        left.map(|armed| armed.task.abort()).count()
    }
}

/// The indexes below `count` for which `wants` is true, from `turn` on and wrapping around: the first `most`, and the
/// others.
fn round_robin(turn: usize, count: usize, most: usize, wants: impl Fn(usize) -> bool) -> (Vec<usize>, Vec<usize>) {
    let mut now: Vec<usize> = (0..count).map(|step| (turn + step) % count).filter(|at| wants(*at)).collect();
    let later = now.split_off(most.min(now.len()));
    (now, later)
}

/// One pop; a popper that fails is dropped with its connection.
async fn pop(
    running: &Running,
    popper: &mut Option<Popper>,
    named: &OnceLock<PopperId>,
    partition: u16,
    queue: &QueueName,
    wait: Duration,
) -> Result<Option<Reservation>, Error> {
    let mut connected = match popper.take() {
        Some(popper) if running.store.serves(&popper, partition).await => popper,
        _ => running.store.popper(partition).await?,
    };
    drop(named.set(connected.id()));
    let answer = connected.reserve(partition, queue, &running.worker, wait).await?;
    *popper = Some(connected);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_that_wants_a_pop_is_armed_or_named() {
        assert_eq!(round_robin(0, 4, 2, |_| true), (vec![0, 1], vec![2, 3]));
        assert_eq!(round_robin(3, 4, 2, |_| true), (vec![3, 0], vec![1, 2]));
        assert_eq!(round_robin(4, 4, 9, |at| at != 2), (vec![0, 1, 3], vec![]));
        assert_eq!(round_robin(1, 4, 0, |at| at > 1), (vec![], vec![2, 3]));
        assert_eq!(round_robin(0, 0, 2, |_| true), (vec![], vec![]));
    }
}
