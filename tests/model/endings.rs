//! Liveness: every run comes to an end, and a good one.
//!
//! `stateright`'s `eventually` misses cycles and joins. So two things are checked instead. A state
//! in which nothing can move is an end; [`not_stuck`] is an `always` property that says such a
//! state is over. [`assert_every_run_ends`] walks the whole graph and finds the states from which
//! every run, however its steps are scheduled and with no further fault, comes to such an end:
//! they must be all. That needs no fairness, and a cycle of steps that lead nowhere fails it.

use stateright::Model;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A model whose runs must end.
pub trait Ends: Model {
    /// Whether this step may come or not, so that nobody may wait for it.
    fn is_chance(action: &Self::Action) -> bool;

    /// Whether all is done and nothing is left behind.
    fn is_over(state: &Self::State) -> bool;
}

/// Whether something moves in this state, or all is over.
pub fn not_stuck<M: Ends>(model: &M, state: &M::State) -> bool
where
    M::Action: Clone,
{
    if M::is_over(state) {
        return true;
    }
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions.into_iter().any(|action| !M::is_chance(&action) && model.next_state(state, action).is_some())
}

/// The graph of all reachable states, backwards: who leads to whom by a step that is no chance.
#[derive(Default)]
struct Graph {
    ids: HashMap<u64, u32>,
    /// Pairs of successor and predecessor.
    edges: Vec<(u32, u32)>,
    /// Steps that lead out of each state.
    steps: Vec<u32>,
    over: Vec<bool>,
}

impl Graph {
    fn of<M: Ends>(model: &M) -> Self
    where
        M::State: Hash,
        M::Action: Clone,
    {
        let mut graph = Graph::default();
        let mut pending: Vec<(u32, M::State)> =
            model.init_states().into_iter().filter_map(|state| Some((graph.id::<M>(&state).ok()?, state))).collect();
        let mut actions = Vec::new();
        while let Some((from, state)) = pending.pop() {
            model.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let chance = M::is_chance(&action);
                let Some(next) = model.next_state(&state, action) else {
                    continue;
                };
                let found = graph.id::<M>(&next);
                if !chance {
                    graph.edges.push((found.unwrap_or_else(|known| known), from));
                    graph.steps[from as usize] += 1;
                }
                if let Ok(id) = found {
                    pending.push((id, next));
                }
            }
        }
        graph
    }

    /// `Ok` with a new state's number, `Err` with a known one's.
    fn id<M: Ends>(&mut self, state: &M::State) -> Result<u32, u32>
    where
        M::State: Hash,
    {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let next = self.steps.len() as u32;
        match self.ids.entry(hasher.finish()) {
            Entry::Occupied(known) => Err(*known.get()),
            Entry::Vacant(place) => {
                place.insert(next);
                self.steps.push(0);
                self.over.push(M::is_over(state));
                Ok(next)
            }
        }
    }

    /// Of each state, whether every run from it ends well.
    fn ending(&mut self, any: bool) -> Vec<bool> {
        self.edges.sort_unstable();
        let mut ends: Vec<u32> = (0..self.steps.len() as u32)
            .filter(|&id| (any || self.steps[id as usize] == 0) && self.over[id as usize])
            .collect();
        let mut ending = vec![false; self.steps.len()];
        while let Some(id) = ends.pop() {
            if ending[id as usize] {
                continue;
            }
            ending[id as usize] = true;
            let first = self.edges.partition_point(|&(to, _)| to < id);
            for &(_, from) in self.edges[first..].iter().take_while(|&&(to, _)| to == id) {
                self.steps[from as usize] = self.steps[from as usize].saturating_sub(1);
                if (any && !ending[from as usize]) || self.steps[from as usize] == 0 {
                    ends.push(from);
                }
            }
        }
        ending
    }

    /// A way from the start into states that need not end well, until one of them comes again.
    fn endless_run<M: Ends>(&mut self, model: &M, ending: &[bool]) -> Vec<M::Action>
    where
        M::State: Hash + Clone,
        M::Action: Clone,
    {
        let mut came_from: HashMap<u32, (u32, M::Action)> = HashMap::new();
        let mut pending: VecDeque<M::State> = model.init_states().into();
        let start = u32::MAX;
        let (mut state, mut id) = loop {
            let state = pending.pop_front().expect("some state has a run that need not end well");
            let id = self.known::<M>(&state);
            if !ending[id as usize] {
                break (state, id);
            }
            for (action, next) in model.next_steps(&state) {
                if let Entry::Vacant(place) = came_from.entry(self.known::<M>(&next)) {
                    place.insert((id, action));
                    pending.push_back(next);
                }
            }
        };
        let mut run = Vec::new();
        let mut back = id;
        while let Some((from, action)) = came_from.get(&back).filter(|_| back != start && back != 0) {
            run.push(action.clone());
            back = *from;
        }
        run.reverse();
        let mut seen = HashSet::new();
        while seen.insert(id) {
            let on = model.next_steps(&state).into_iter().filter(|(action, _)| !M::is_chance(action));
            let next =
                on.map(|(action, next)| (action, self.known::<M>(&next), next)).find(|step| !ending[step.1 as usize]);
            let Some((action, next_id, next)) = next else {
                break;
            };
            run.push(action);
            (state, id) = (next, next_id);
        }
        run
    }

    fn known<M: Ends>(&mut self, state: &M::State) -> u32
    where
        M::State: Hash,
    {
        self.id::<M>(state).unwrap_or_else(|known| known)
    }
}

/// Panics unless every run from every reachable state ends well.
pub fn assert_every_run_ends<M: Ends>(model: &M)
where
    M::State: Hash + Clone,
    M::Action: Clone + Debug,
{
    assert_ends(model, false);
}

/// Panics unless some run from every reachable state ends well.
pub fn assert_an_end_is_in_reach<M: Ends>(model: &M)
where
    M::State: Hash + Clone,
    M::Action: Clone + Debug,
{
    assert_ends(model, true);
}

fn assert_ends<M: Ends>(model: &M, any: bool)
where
    M::State: Hash + Clone,
    M::Action: Clone + Debug,
{
    let mut graph = Graph::of(model);
    let states = graph.steps.len();
    let ending = graph.ending(any);
    let endless = ending.iter().filter(|&&ends| !ends).count();
    println!("{states} states end");
    if endless > 0 {
        let run = graph.endless_run(model, &ending);
        panic!("of {states} states {endless} have a run that ends badly or never, such as {run:#?}");
    }
}
