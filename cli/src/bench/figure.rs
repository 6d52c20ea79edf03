//! Figures: what several runs measured, and how they are written.
use serde::Serialize;

/// The values of several runs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Each, in the order of the runs.
    pub runs: Vec<f64>,
}

impl Figure {
    /// From the values of the runs, at least one.
    pub(super) fn new(runs: Vec<f64>) -> Self {
        let sorted = sorted(&runs);
        let last = sorted.len().saturating_sub(1);
        let at = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
        Self { median: percentile(&runs, 50.0), min: at(0), max: at(last), runs }
    }

    /// Run by run, this one divided by `other`; both have as many runs, measured in turn.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self::new(self.runs.iter().zip(&other.runs).map(|(one, other)| one / other).collect())
    }

    /// As people read it: the median, and the spread of several runs.
    pub(super) fn shown(&self, unit: &str) -> String {
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        match self.runs.len() {
            0 | 1 => format!("{}{unit}", number(self.median)),
            _ => format!("{}{unit} ({}–{})", number(self.median), number(self.min), number(self.max)),
        }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value below which `percent` of the values are; between two values, their mean by distance. NaN for none.
pub(super) fn percentile(values: &[f64], percent: f64) -> f64 {
    let sorted = sorted(values);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = percent / 100.0 * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// A number with three significant digits or more: `12,345`, `123`, `12.3`, `1.23`, `0.123`.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if !value.is_finite() => return "–".into(),
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.0 => 0,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, fraction)| (whole, fraction));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_a_median_with_its_spread() {
        let figure = Figure::new(vec![3.0, 1.0, 2_000.0]);
        assert_eq!((figure.median, figure.min, figure.max), (3.0, 1.0, 2_000.0));
        assert_eq!(figure.shown("jobs/s"), "3.00 jobs/s (1.00–2,000)");
        assert_eq!(Figure::new(vec![7.0]).shown(""), "7.00");
        assert_eq!(figure.over(&Figure::new(vec![6.0, 1.0, 1_000.0])).runs, [0.5, 1.0, 2.0]);
    }

    #[test]
    fn percentiles_are_between_the_values() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 50.0), percentile(&values, 99.0)), (50.0, 99.0));
        assert_eq!(percentile(&[1.0, 2.0], 50.0), 1.5);
        assert!(percentile(&[], 50.0).is_nan());
    }

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.5, "1.50"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.8, "1,234,568"),
            (-1_234.0, "-1,234"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
