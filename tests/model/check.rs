//! How a model is checked: the healthy one wholly, a twin until it is caught.

use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

/// Threads of a whole exploration; twins take one, for the shortest path.
const THREADS: usize = 2;
/// A twin that is not caught by then is not caught.
const TWIN_TIME_MAX: Duration = Duration::from_secs(60);

/// Explores the whole model: no counterexample, and at least so many states.
pub fn assert_holds<M>(model: M, states_min: usize) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().threads(THREADS).spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!("{states} states");
    assert!(states >= states_min, "only {states} states: the model has lost some of its steps");
    states
}

/// Finds a counterexample of this property, by at most so many steps.
pub fn assert_caught<M>(model: M, property: &'static str, steps_max: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let first = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().finish_when(first).timeout(TWIN_TIME_MAX).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("nothing breaks: {property}"));
    let holds = checker.model().property(property).condition;
    let steps = path.into_vec();
    let first = steps.iter().position(|(state, _)| !holds(checker.model(), state)).expect("the last state breaks it");
    let actions: Vec<_> = steps[..first].iter().filter_map(|(_, action)| action.as_ref()).collect();
    println!("{property}: {} steps of {} states: {actions:?}", first, checker.unique_state_count());
    assert!(first <= steps_max, "caught by {first} steps only");
}

/// One test for each twin: its name, the guards it lacks, the property that breaks, and in how many
/// steps. `TWINS` lists all that they lack.
macro_rules! twins {
    ($model:path; $($name:ident: [$($guard:ident),+], $property:expr, $steps:literal;)+) => {
        /// What the twins lack.
        pub const TWINS: &[&[crate::guard::Guard]] = &[$(&[$($guard),+]),+];

        $(#[test]
        fn $name() {
            assert_caught($model(&[$($guard),+]), $property, $steps);
        })+
    };
}

pub(crate) use twins;
