//! The goals: their numbers and names, and the measurement of each.
use super::report::{Outcome, Row};
use super::{Bench, api, commands, flat, idle, latency, life, sqlite, throughput};
use crate::failure::Failure;

/// A goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Goal {
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
}

const fn goal(number: u8, name: &'static str, about: &'static str) -> Goal {
    Goal { number, name, about }
}

/// All of them. Goal 1, the drain beside other systems, is measured by another program.
pub(super) const GOALS: [Goal; 12] = [
    goal(2, "always", "drain with an fsync before each reply"),
    goal(3, "redis-cpu", "CPU time of Redis for a job's whole life"),
    goal(4, "enqueue", "submitting in three ways"),
    goal(5, "latency", "from a submit to the start of the handler"),
    goal(6, "memory", "memory of a job in Redis"),
    goal(7, "idle", "what an idle worker costs"),
    goal(8, "flat", "drain and reads beside many jobs"),
    goal(9, "http", "HTTP beside a bare route"),
    goal(10, "sqlite", "one caller beside a SQLite file"),
    goal(11, "processes", "memory of worker and API"),
    goal(12, "partitions", "several partitions on one Redis"),
    goal(13, "commands", "a batch of commands beside xargs"),
];

impl Goal {
    /// The goals of a list of numbers and names, in the order of their numbers; all of them for an empty one.
    ///
    /// # Errors
    /// A sentence that names what is unknown, and what there is.
    pub(super) fn select(wanted: &[String]) -> Result<Vec<Goal>, String> {
        let is = |goal: &Goal, word: &str| word == goal.name || word == goal.number.to_string();
        if let Some(unknown) = wanted.iter().find(|word| !GOALS.iter().any(|goal| is(goal, word))) {
            let known: Vec<String> = GOALS.iter().map(|goal| format!("{} ({})", goal.number, goal.name)).collect();
            return Err(format!("--only names an unknown goal {unknown:?}; the goals are {}", known.join(", ")));
        }
        let selected = GOALS.iter().filter(|goal| wanted.is_empty() || wanted.iter().any(|word| is(goal, word)));
        Ok(selected.copied().collect())
    }

    /// Measures it.
    pub(super) async fn measure(self, bench: &Bench) -> Outcome {
        // Boxed: each future holds a whole system.
        let rows: Result<Vec<Row>, Failure> = match self.number {
            2 => Box::pin(throughput::always(bench)).await,
            3 => Box::pin(life::redis_cpu(bench)).await,
            4 => Box::pin(throughput::enqueue(bench)).await,
            5 => Box::pin(latency::start(bench)).await,
            6 => Box::pin(life::memory(bench)).await,
            7 => Box::pin(idle::worker(bench)).await,
            8 => Box::pin(flat::full(bench)).await,
            9 => Box::pin(api::http(bench)).await,
            10 => Box::pin(sqlite::one_caller(bench)).await,
            11 => Box::pin(api::memory(bench)).await,
            12 => Box::pin(throughput::partitions(bench)).await,
            _ => Box::pin(commands::batch(bench)).await,
        };
        let (rows, fault) = match rows {
            Ok(rows) => (rows, None),
            Err(failure) => (Vec::new(), Some(failure.to_string())),
        };
        Outcome { goal: self.number, name: self.name, about: self.about, rows, fault, met: None }.judge()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_selected_by_number_and_name() {
        let select = |words: &[&str]| Goal::select(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let numbers = |goals: Vec<Goal>| goals.iter().map(|goal| goal.number).collect::<Vec<_>>();
        assert_eq!(select(&["memory", "3", "6"]).map(numbers), Ok(vec![3, 6]));
        assert_eq!(select(&[]).map(|goals| goals.len()), Ok(GOALS.len()));
        let refused = select(&["memory", "fast"]).expect_err("no goal is called fast");
        assert!(refused.contains("\"fast\"") && refused.contains("6 (memory)"), "{refused}");
    }
}
