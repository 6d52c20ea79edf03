//! When a schedule has its ticks. Pure.
//!
//! A cron expression is about the clock on the wall, which a change of clocks turns back or forward. Where it names its
//! hours, a time that the wall's clock skips is the first moment after the gap, and one that it shows twice is the
//! first of the two, as in Vixie's cron. Where the hours have a `*` or a step, it goes by the time that passes.
use std::str::FromStr;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

use crate::Timestamp;
use crate::limits::{EVERY_MS_MAX, EVERY_MS_MIN, TICKS_MAX};

/// No wall's clock is changed by more; some were by a day, when their country changed the side of the date line.
const SHIFT_MAX: TimeDelta = TimeDelta::hours(26);
/// How many times of a wall's clock are looked at, to find the next one whose moment has not passed.
const LOOKS_MAX: usize = 10_000;
/// A tick that is late by at most this, ms, is on time: nobody could do it earlier, as while a worker was restarted.
pub const ON_TIME_MS: i64 = 10_000;

/// What a schedule goes by.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// The clock on a wall.
    Calendar {
        /// Its times.
        cron: Box<Cron>,
        /// Where the wall is.
        zone: Tz,
        /// The expression names its hours.
        names_hours: bool,
    },
    /// The time that passes, in steps of so many ms.
    Every(u64),
}

/// A value of a schedule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidTiming {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl Timing {
    /// Reads a cron expression of five fields (or `@daily` and the like) with an IANA time zone, by default UTC; or an
    /// interval.
    ///
    /// # Errors
    /// [`InvalidTiming`].
    pub fn parse(cron: Option<&str>, time_zone: Option<&str>, every_ms: Option<u64>) -> Result<Self, InvalidTiming> {
        let fault = |field, reason: String| Err(InvalidTiming { field, reason });
        match (cron, every_ms) {
            (None, None) => fault("cron", "required, unless every_ms is given".into()),
            (Some(_), Some(_)) => fault("every_ms", "cron is given too; give one of them".into()),
            (None, Some(_)) if time_zone.is_some() => {
                fault("time_zone", "an interval is the same everywhere; leave it out, or give cron".into())
            }
            (None, Some(ms)) if !(EVERY_MS_MIN..=EVERY_MS_MAX).contains(&ms) => {
                fault("every_ms", format!("{ms} is not a whole number from {EVERY_MS_MIN} to {EVERY_MS_MAX}"))
            }
            (None, Some(ms)) => Ok(Self::Every(ms)),
            (Some(text), None) => {
                let cron = parse_cron(text).map_err(|reason| InvalidTiming { field: "cron", reason })?;
                let name = time_zone.unwrap_or("UTC");
                let Ok(zone) = Tz::from_str(name) else {
                    return fault("time_zone", unknown_zone(name));
                };
                let hours = text.split_whitespace().nth(1);
                let names_hours = hours
                    .map_or(!text.trim().eq_ignore_ascii_case("@hourly"), |hours| !hours.contains(['*', '/', '?']));
                Ok(Self::Calendar { cron: Box::new(cron), zone, names_hours })
            }
        }
    }

    /// The first tick after `after`; of an interval, whose ticks are steps from `anchor`. `None`: there is none any
    /// more.
    fn next(&self, anchor: Timestamp, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(ms) => {
                let ms = i64::try_from(*ms).ok()?;
                let steps = (after.0 - anchor.0).div_euclid(ms) + 1;
                anchor.0.checked_add(steps.max(1).checked_mul(ms)?).map(Timestamp)
            }
            Self::Calendar { cron, zone, names_hours } => {
                let after = DateTime::<Utc>::from_timestamp_millis(after.0)?;
                let next = if *names_hours {
                    next_on_the_wall(cron, *zone, after)?
                } else {
                    cron.find_next_occurrence(&after.with_timezone(zone), false).ok()?.to_utc()
                };
                Some(Timestamp(next.timestamp_millis()))
            }
        }
    }
}

fn parse_cron(text: &str) -> Result<Cron, String> {
    const ADVICE: &str = "write minute, hour, day of month, month and day of week, as in \"0 3 * * 1-5\", or @daily";
    let shown: String = text.chars().take(80).collect();
    let fields = text.split_whitespace().count();
    if fields != 5 && !text.trim().starts_with('@') {
        return Err(format!("{shown:?} has {fields} fields, not 5: {ADVICE}"));
    }
    // croner passes over what is empty; a field without a value is searched for until the year 5000.
    if let Some(field) = text.split_whitespace().find(|field| field.split(',').any(str::is_empty)) {
        return Err(format!("{shown:?} has {field:?} with an empty part between commas: {ADVICE}"));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text.trim()).map_err(|e| match e {
        CronError::InvalidPattern(why) | CronError::IllegalCharacters(why) | CronError::ComponentError(why) => {
            format!("{shown:?} is not a cron expression ({}): {ADVICE}", why.trim_end_matches('.'))
        }
        _ => format!("{shown:?} is not a cron expression: {ADVICE}"),
    })
}

fn unknown_zone(name: &str) -> String {
    let shown: String = name.chars().take(80).collect();
    let known = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    let distance = |zone: &&str| strsim::damerau_levenshtein(&zone.to_lowercase(), &shown.to_lowercase());
    let nearest = known.min_by_key(distance).filter(|zone| distance(zone) <= 1 + zone.len() / 4);
    let advice = nearest.map_or_else(String::new, |zone| format!("; did you mean {zone:?}?"));
    format!("{shown:?} is not a zone of the IANA database, such as \"Europe/Berlin\"{advice}")
}

/// The first moment after `after` at which the wall's clock shows, or skips, a time of `cron`.
fn next_on_the_wall(cron: &Cron, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // A time that was skipped is behind the clock of the moment that stands for it.
    let mut wall = after.with_timezone(&zone).naive_local() - SHIFT_MAX;
    for _ in 0..LOOKS_MAX {
        wall = cron.find_next_occurrence(&wall.and_utc(), false).ok()?.naive_utc();
        let moment = match zone.from_local_datetime(&wall) {
            MappedLocalTime::Single(moment) | MappedLocalTime::Ambiguous(moment, _) => moment.to_utc(),
            MappedLocalTime::None => end_of_gap(zone, wall),
        };
        if moment > after {
            return Some(moment);
        }
    }
    None
}

/// The first moment after the gap of the wall's clock that `wall` is in.
fn end_of_gap(zone: Tz, wall: NaiveDateTime) -> DateTime<Utc> {
    let shows_less = |seconds: i64| {
        let moment = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        zone.from_utc_datetime(&moment.naive_utc()).naive_local() < wall
    };
    let at = wall.and_utc().timestamp();
    let (mut before, mut behind) = (at - SHIFT_MAX.num_seconds(), at + SHIFT_MAX.num_seconds());
    while behind - before > 1 {
        let middle = before.midpoint(behind);
        if shows_less(middle) { before = middle } else { behind = middle }
    }
    DateTime::from_timestamp(behind, 0).unwrap_or_default()
}

/// What happens with ticks that nobody could do in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// One job for all of them, unless there is a tick that is on time: then that is the one.
    #[default]
    One,
    /// No job.
    None,
    /// A job for each, of the last [`TICKS_MAX`].
    All,
}

impl CatchUp {
    /// The word in keys and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::None => "none",
            Self::All => "all",
        }
    }

    /// The one named by a word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::One, Self::None, Self::All].into_iter().find(|catch_up| catch_up.as_str() == word)
    }
}

/// The ticks of one schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticks {
    /// What they go by.
    pub timing: Timing,
    /// What the steps of an interval are counted from.
    pub anchor: Timestamp,
    /// The first moment at which there may be one.
    pub start: Option<Timestamp>,
    /// The last moment.
    pub end: Option<Timestamp>,
}

impl Ticks {
    /// The first tick after `after`; `None`: there is none any more.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let (anchor, mut from) = (self.start.unwrap_or(self.anchor), after);
        if let Some(start) = self.start.filter(|start| after < *start) {
            if matches!(self.timing, Timing::Every(_)) {
                return Some(start).filter(|tick| self.end.is_none_or(|end| *tick <= end));
            }
            from = Timestamp(start.0 - 1);
        }
        self.timing.next(anchor, from).filter(|tick| self.end.is_none_or(|end| *tick <= end))
    }

    /// The ticks to do at `now`, of which `first` is the first that has not been done; in order, at most [`TICKS_MAX`].
    pub fn due(&self, first: Timestamp, now: Timestamp, catch_up: CatchUp) -> Vec<Timestamp> {
        let mut hour = 3_600_000;
        let due = loop {
            // Of a long time only the end is looked at, as far as it has as many as are needed.
            let since = first.0.max(now.0.saturating_sub(hour));
            let mut due = if since == first.0 { vec![first] } else { Vec::new() };
            let mut at = Timestamp(since);
            while let Some(next) = self.next(at).filter(|next| *next <= now) {
                due.push(next);
                at = next;
            }
            if since == first.0 || due.len() >= TICKS_MAX {
                break due;
            }
            hour = hour.saturating_mul(8);
        };
        let on_time = due.iter().filter(|tick| now.0 - tick.0 <= ON_TIME_MS).count();
        let most = match catch_up {
            CatchUp::All => TICKS_MAX,
            CatchUp::One => on_time.clamp(1, TICKS_MAX),
            CatchUp::None => on_time.min(TICKS_MAX),
        };
        due[due.len() - most.min(due.len())..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn ticks(cron: &str, zone: &str) -> Ticks {
        let timing = Timing::parse(Some(cron), Some(zone), None).unwrap();
        Ticks { timing, anchor: Timestamp(0), start: None, end: None }
    }

    fn every(ms: u64) -> Ticks {
        Ticks { timing: Timing::parse(None, None, Some(ms)).unwrap(), anchor: Timestamp(500), start: None, end: None }
    }

    /// The next ticks after a time.
    fn after(ticks: &Ticks, from: &str, count: usize) -> Vec<String> {
        let next = |at: &Timestamp| ticks.next(*at);
        let all = std::iter::successors(Some(time(from)), next).skip(1).take(count);
        all.map(|tick| tick.to_string().replace(":00.000Z", "Z")).collect()
    }

    #[test]
    fn a_fixed_hour_runs_once_at_each_change_of_clocks() {
        // Europe/Berlin: on 28 March 2027 from 2:00 to 3:00, on 31 October from 3:00 to 2:00, both at 1:00 UTC.
        let spring = after(&ticks("30 2 * * *", "Europe/Berlin"), "2027-03-27T00:00:00Z", 3);
        assert_eq!(spring, ["2027-03-27T01:30Z", "2027-03-28T01:00Z", "2027-03-29T00:30Z"]);
        let autumn = after(&ticks("30 2 * * *", "Europe/Berlin"), "2027-10-30T00:00:00Z", 3);
        assert_eq!(autumn, ["2027-10-30T00:30Z", "2027-10-31T00:30Z", "2027-11-01T01:30Z"]);
        let several = after(&ticks("0,30 2,3 * * *", "Europe/Berlin"), "2027-03-28T00:00:00Z", 3);
        assert_eq!(several, ["2027-03-28T01:00Z", "2027-03-28T01:30Z", "2027-03-29T00:00Z"]);
        let stepped = after(&ticks("*/20 2 * * *", "Europe/Berlin"), "2027-10-31T00:00:00Z", 3);
        assert_eq!(stepped, ["2027-10-31T00:20Z", "2027-10-31T00:40Z", "2027-11-01T01:00Z"]);
        // Australia/Lord_Howe changes by half an hour, America/New_York at another moment.
        let half = after(&ticks("15 2 * * *", "Australia/Lord_Howe"), "2026-10-03T00:00:00Z", 2);
        assert_eq!(half, ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]);
        let daily = after(&ticks("30 1 * * *", "America/New_York"), "2026-10-31T12:00:00Z", 2);
        assert_eq!(daily, ["2026-11-01T05:30Z", "2026-11-02T06:30Z"]);
        // Samoa left out a whole day.
        let skipped = after(&ticks("0 12 30 12 *", "Pacific/Apia"), "2011-12-01T00:00:00Z", 1);
        assert_eq!(skipped, ["2011-12-30T10:00Z"]);
    }

    #[test]
    fn a_wildcard_hour_goes_by_the_time_that_passes() {
        let spring = after(&ticks("0 * * * *", "Europe/Berlin"), "2027-03-28T00:00:00Z", 3);
        assert_eq!(spring, ["2027-03-28T01:00Z", "2027-03-28T02:00Z", "2027-03-28T03:00Z"]);
        let autumn = after(&ticks("30 * * * *", "Europe/Berlin"), "2027-10-31T00:00:00Z", 3);
        assert_eq!(autumn, ["2027-10-31T00:30Z", "2027-10-31T01:30Z", "2027-10-31T02:30Z"]);
        let autumn = after(&ticks("*/30 */1 * * *", "Europe/Berlin"), "2027-10-31T00:00:00Z", 3);
        assert_eq!(autumn, ["2027-10-31T00:30Z", "2027-10-31T01:00Z", "2027-10-31T01:30Z"]);
        for hourly in ["@hourly", "@HOURLY"] {
            let autumn = after(&ticks(hourly, "Europe/Berlin"), "2027-10-31T00:00:00Z", 2);
            assert_eq!(autumn, ["2027-10-31T01:00Z", "2027-10-31T02:00Z"]);
        }
    }

    #[test]
    fn names_the_last_day_and_the_nth_weekday_are_read() {
        let of = |cron| after(&ticks(cron, "UTC"), "2027-01-31T12:00:00Z", 1).remove(0);
        for (cron, next) in [
            ("0 9 L * *", "2027-02-28T09:00Z"),
            ("0 9 * * MON#2", "2027-02-08T09:00Z"),
            ("0 9 * FEB mon-fri", "2027-02-01T09:00Z"),
            ("@daily", "2027-02-01T00:00Z"),
            ("@weekly", "2027-02-07T00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00Z"),
        ] {
            assert_eq!(of(cron), next, "{cron}");
        }
        assert_eq!(ticks("0 0 30 2 *", "UTC").next(Timestamp(0)), None, "it never comes");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (cron, zone, every_ms, field, said) in [
            (None, None, None, "cron", "required"),
            (Some("* * * * *"), None, Some(1_000), "every_ms", "cron is given too"),
            (Some("* * * *"), None, None, "cron", "4 fields, not 5"),
            (Some("* * * * * *"), None, None, "cron", "6 fields, not 5"),
            (Some("61 * * * *"), None, None, "cron", "is not a cron expression"),
            (Some(", * * * *"), None, None, "cron", "an empty part between commas"),
            (Some("0 3,,5 * * *"), None, None, "cron", "an empty part between commas"),
            (Some("@often"), None, None, "cron", "is not a cron expression"),
            (Some("0 3 * * *"), Some("Europe/Berln"), None, "time_zone", "did you mean \"Europe/Berlin\"?"),
            (Some("0 3 * * *"), Some("Mars"), None, "time_zone", "IANA"),
            (None, Some("UTC"), Some(1_000), "time_zone", "leave it out"),
            (None, None, Some(999), "every_ms", "999 is not a whole number from 1000"),
        ] {
            let fault = Timing::parse(cron, zone, every_ms).unwrap_err();
            assert!(fault.field == field && fault.reason.contains(said), "{fault}");
        }
    }

    #[test]
    fn an_interval_counts_from_its_anchor() {
        let next = |ticks: &Ticks, at| ticks.next(Timestamp(at)).map(|tick| tick.0);
        assert_eq!([0, 500, 1_499, 1_500].map(|at| next(&every(1_000), at)), [1_500, 1_500, 1_500, 2_500].map(Some));
        let started = Ticks { start: Some(Timestamp(10_000)), end: Some(Timestamp(11_500)), ..every(1_000) };
        assert_eq!(
            [0, 9_999, 10_000, 11_000].map(|at| next(&started, at)),
            [Some(10_000), Some(10_000), Some(11_000), None]
        );
        let cron = Ticks { start: Some(time("2027-01-01T00:00:00Z")), ..ticks("0 0 * * *", "UTC") };
        assert_eq!(cron.next(Timestamp(0)), cron.start, "the first moment counts");
    }

    #[test]
    fn late_ticks_are_done_as_catch_up_says() {
        let due = |first, now, catch_up| {
            let due = every(1_000).due(Timestamp(first), Timestamp(now), catch_up);
            due.into_iter().map(|tick| tick.0).collect::<Vec<_>>()
        };
        assert_eq!(due(1_500, 1_500, CatchUp::None), [1_500]);
        assert_eq!(due(1_500, 3_600, CatchUp::One), [1_500, 2_500, 3_500], "they are on time");
        let fresh: Vec<i64> = (0..10).map(|n| 90_500 + n * 1_000).collect();
        assert_eq!(due(1_500, 100_000, CatchUp::One), fresh);
        assert_eq!(due(1_500, 100_000, CatchUp::None), fresh);
        assert_eq!(due(1_500, 100_000, CatchUp::All).len(), 99);
        let all = due(1_500, 400_000_000, CatchUp::All);
        assert_eq!((all.len(), all[0], all[99]), (100, 399_900_500, 399_999_500));
        let hourly = |now: &str, catch_up| {
            let due = ticks("0 * * * *", "UTC").due(time("2027-01-01T01:00:00Z"), time(now), catch_up);
            due.into_iter().map(|tick| tick.to_string()[11..13].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(hourly("2027-01-01T05:30:00Z", CatchUp::One), ["05"]);
        assert_eq!(hourly("2027-01-01T05:30:00Z", CatchUp::None), [""; 0]);
        assert_eq!(hourly("2027-01-01T05:30:00Z", CatchUp::All), ["01", "02", "03", "04", "05"]);
        assert_eq!(hourly("2029-01-01T05:30:00Z", CatchUp::All).len(), 100);
    }
}
