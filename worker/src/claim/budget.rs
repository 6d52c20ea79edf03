//! Divides the free slots among the queues by weight. Pure.
use leasehold::QueueName;

/// The queues of a worker, each with its weight and its accumulated credit.
///
/// Smooth weighted round robin: over any sequence of slots each queue is offered its share, and the shares are
/// interleaved. The claim script fills slots that a queue leaves unused from any other, so credit counts offers, not
/// jobs.
#[derive(Debug)]
pub(crate) struct Budgets {
    queues: Vec<(QueueName, i64, i64)>,
    total: i64,
}

impl Budgets {
    /// Weights are at least 1.
    pub fn new(queues: &[(QueueName, u32)]) -> Self {
        let total = queues.iter().map(|(_, weight)| i64::from(*weight)).sum();
        Self { queues: queues.iter().map(|(queue, weight)| (queue.clone(), i64::from(*weight), 0)).collect(), total }
    }

    /// Divides `slots`; the order of the queues is the one in which unused slots are to be filled.
    pub fn share(&mut self, slots: usize) -> Vec<(QueueName, usize)> {
        let mut shares = vec![0; self.queues.len()];
        for _ in 0..slots {
            self.queues.iter_mut().for_each(|(_, weight, credit)| *credit += *weight);
            let richest = (0..self.queues.len()).max_by_key(|at| (self.queues[*at].2, usize::MAX - at));
            let Some(richest) = richest else { break };
            self.queues[richest].2 -= self.total;
            shares[richest] += 1;
        }
        let mut order: Vec<usize> = (0..self.queues.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(shares[*at]), -self.queues[*at].2));
        order.into_iter().map(|at| (self.queues[at].0.clone(), shares[at])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(weights: &[(&str, u32)]) -> Budgets {
        Budgets::new(&weights.iter().map(|(q, w)| (QueueName::parse(q).unwrap(), *w)).collect::<Vec<_>>())
    }

    fn shares(budgets: &mut Budgets, slots: usize) -> Vec<(String, usize)> {
        let mut shares: Vec<_> = budgets.share(slots).into_iter().map(|(q, n)| (q.to_string(), n)).collect();
        shares.sort();
        shares
    }

    #[test]
    fn free_slots_are_shared_by_weight() {
        let mut budgets = budgets(&[("a", 3), ("b", 1)]);
        assert_eq!(shares(&mut budgets, 8), [("a".into(), 6), ("b".into(), 2)]);
    }

    #[test]
    fn one_slot_at_a_time_comes_to_the_same_shares() {
        let mut budgets = budgets(&[("a", 5), ("b", 2), ("c", 1)]);
        let mut taken = [0, 0, 0];
        for _ in 0..80 {
            for (at, (_, n)) in shares(&mut budgets, 1).into_iter().enumerate() {
                taken[at] += n;
            }
        }
        assert_eq!(taken, [50, 20, 10]);
    }

    #[test]
    fn the_queue_whose_turn_it_is_comes_first() {
        let mut budgets = budgets(&[("a", 1), ("b", 1)]);
        let firsts: Vec<_> = (0..4).map(|_| budgets.share(1)[0].0.to_string()).collect();
        assert_eq!(firsts, ["a", "b", "a", "b"]);
    }

    #[test]
    fn every_queue_is_named_even_without_a_slot() {
        assert_eq!(shares(&mut budgets(&[("a", 1), ("b", 1)]), 0), [("a".into(), 0), ("b".into(), 0)]);
    }
}
