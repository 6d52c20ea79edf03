//! Rows of the result: what was measured, what it was compared with, and whether the goal is met.
use serde::Serialize;

use super::figure::{Figure, number};

/// Which way a goal is met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// The value must not be lower.
    AtLeast(f64),
    /// The value must not be higher.
    AtMost(f64),
}

/// One measurement of a goal.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// What was measured.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// Its values.
    pub measured: Figure,
    /// What it was compared with.
    pub compared_with: Option<Compared>,
    /// Measured divided by compared, run by run.
    pub ratio: Option<Figure>,
    /// The goal: of the ratio if there is one, of the value itself otherwise; absent: the row is shown only.
    pub needed: Option<Bound>,
    /// Whether the goal is met; absent: the row is shown only.
    pub met: Option<bool>,
}

/// What a measurement was compared with, in the same unit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Compared {
    /// What it is.
    pub what: String,
    /// Its values.
    pub measured: Figure,
}

/// The result of a goal.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// Its number.
    pub goal: u8,
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its measurements.
    pub rows: Vec<Row>,
    /// Why it could not be measured, or what the consistency check found.
    pub fault: Option<String>,
    /// Whether it is met; absent: its rows are shown only.
    pub met: Option<bool>,
}

impl Row {
    /// A row that is shown only.
    pub(super) fn new(what: impl Into<String>, unit: &'static str, runs: Vec<f64>) -> Self {
        let measured = Figure::new(runs);
        Self { what: what.into(), unit, measured, compared_with: None, ratio: None, needed: None, met: None }
    }

    /// Compares it with runs of something else, measured in turn.
    pub(super) fn against(mut self, what: impl Into<String>, runs: Vec<f64>) -> Self {
        let measured = Figure::new(runs);
        self.ratio = Some(self.measured.over(&measured));
        self.compared_with = Some(Compared { what: what.into(), measured });
        self
    }

    /// Sets the goal.
    pub(super) fn needs(mut self, bound: Bound) -> Self {
        let value = self.value();
        self.needed = Some(bound);
        self.met = Some(match bound {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        });
        self
    }

    /// The value that the goal is about.
    fn value(&self) -> f64 {
        self.ratio.as_ref().unwrap_or(&self.measured).median
    }

    /// The cells of the table behind the goal's number.
    pub(super) fn cells(&self) -> [String; 6] {
        let compared = self.compared_with.as_ref();
        [
            self.what.clone(),
            self.measured.shown(self.unit),
            compared.map_or("-".into(), |with| format!("{}: {}", with.what, with.measured.shown(self.unit))),
            self.ratio.as_ref().map_or("-".into(), |ratio| ratio.shown("")),
            match self.needed {
                None => "-".into(),
                Some(Bound::AtLeast(least)) => format!("≥ {}", number(least)),
                Some(Bound::AtMost(most)) => format!("≤ {}", number(most)),
            },
            self.verdict(),
        ]
    }

    fn verdict(&self) -> String {
        let (Some(met), Some(bound)) = (self.met, self.needed) else { return "shown".into() };
        let (Bound::AtLeast(goal) | Bound::AtMost(goal)) = bound;
        let percent = ((self.value() / goal - 1.0) * 100.0).abs();
        let by = if percent.is_finite() { format!(" by {percent:.0} %") } else { String::new() };
        if met { format!("met{by}") } else { format!("NOT MET{by}") }
    }
}

impl Compared {
    /// Something that a row shows beside its own value.
    pub(super) fn new(what: &str, measured: Figure) -> Self {
        Self { what: what.into(), measured }
    }
}

impl Outcome {
    /// Whether the goal is met, from its rows: all that have one must be.
    pub(super) fn judge(mut self) -> Self {
        let met: Vec<bool> = self.rows.iter().filter_map(|row| row.met).collect();
        self.met = match (&self.fault, met.is_empty()) {
            (Some(_), _) => Some(false),
            (None, true) => None,
            (None, false) => Some(met.into_iter().all(|met| met)),
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_about_the_ratio_and_says_by_how_much() {
        let row = |bound| Row::new("x", "", vec![3.0, 4.0]).against("y", vec![4.0, 4.0]).needs(bound);
        assert_eq!(row(Bound::AtLeast(0.7)).verdict(), "met by 25 %");
        assert_eq!(row(Bound::AtMost(0.7)).verdict(), "NOT MET by 25 %");
        assert_eq!(Row::new("x", "", vec![1.0]).verdict(), "shown");
        assert_eq!(Row::new("x", "", vec![f64::NAN]).needs(Bound::AtMost(1.0)).met, Some(false));
    }

    #[test]
    fn a_goal_is_met_when_all_its_rows_are() {
        let outcome = |bounds: &[Bound], fault: Option<&str>| {
            let rows = bounds.iter().map(|bound| Row::new("x", "", vec![1.0]).needs(*bound)).collect();
            let fault = fault.map(str::to_owned);
            Outcome { goal: 1, name: "x", about: "x", rows, fault, met: None }.judge().met
        };
        assert_eq!(outcome(&[Bound::AtLeast(1.0), Bound::AtMost(1.0)], None), Some(true));
        assert_eq!(outcome(&[Bound::AtLeast(1.0), Bound::AtMost(0.5)], None), Some(false));
        assert_eq!(outcome(&[Bound::AtLeast(1.0)], Some("lost a job")), Some(false));
        assert_eq!(outcome(&[], None), None);
    }
}
