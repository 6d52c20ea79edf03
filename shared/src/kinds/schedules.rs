//! The schedules that a kinds file declares.
use std::collections::BTreeMap;

use serde_json::Value;

use super::Kinds;
use super::text::{Text, either};
use crate::limits::{ATTEMPTS_MAX, Limits, TIMEOUT_MS_MAX};
use crate::schedule::Plan;
use crate::{Json, ScheduleName, Timestamp};

/// What a schedule may have.
const FIELDS: [&str; 15] = [
    "cron",
    "time_zone",
    "every_ms",
    "every",
    "kind",
    "payload",
    "queue",
    "priority",
    "max_attempts",
    "timeout_ms",
    "overlap",
    "catch_up",
    "paused",
    "start_at",
    "end_at",
];

/// A schedule of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// What it submits, and when.
    pub plan: Plan,
    /// It has no ticks.
    pub paused: bool,
}

impl Kinds {
    /// Whether there is a kinds file, be it an empty one.
    pub fn has_file(&self) -> bool {
        !self.dir.as_os_str().is_empty()
    }

    /// The schedules that the file declares.
    pub fn schedules(&self) -> &BTreeMap<ScheduleName, Declared> {
        &self.schedules
    }
}

/// Reads `[schedules.NAME]`.
pub(super) fn read(tables: BTreeMap<String, toml::Table>) -> Result<BTreeMap<ScheduleName, Declared>, String> {
    let read = |(name, table): (String, toml::Table)| {
        let schedule = ScheduleName::parse(&name).map_err(|e| e.to_string())?;
        let declared = read_one(table).map_err(|reason| format!("[schedules.{name}]: {reason}"))?;
        Ok((schedule, declared))
    };
    tables.into_iter().map(read).collect()
}

fn read_one(table: toml::Table) -> Result<Declared, String> {
    if let Some(unknown) = table.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(format!("unknown field {unknown:?}; known are {}", FIELDS.join(", ")));
    }
    let mut fields = serde_json::Map::new();
    for (key, value) in table {
        fields.insert(key.clone(), json_of(value).map_err(|reason| format!("{key}: {reason}"))?);
    }
    let take = |fields: &mut serde_json::Map<String, Value>, key| fields.remove(key).unwrap_or(Value::Null);
    let paused = take(&mut fields, "paused");
    let paused = if paused.is_null() { Some(false) } else { paused.as_bool() }.ok_or("paused: write true or false")?;
    let every: Option<Text> = serde_json::from_value(take(&mut fields, "every")).map_err(|e| format!("every: {e}"))?;
    let every_ms = match take(&mut fields, "every_ms") {
        Value::Null => None,
        value => Some(value.as_u64().ok_or("every_ms: write a whole number")?),
    };
    if let Some(ms) = either("every", every_ms, every)? {
        fields.insert("every_ms".into(), ms.into());
    }
    fields.entry("payload").or_insert(Value::Null);
    let text = Value::Object(fields).to_string();
    let plan: Plan = serde_json::from_str(&text).map_err(plainly)?;
    let Limits { json_depth, payload_bytes, .. } = Limits::default();
    Json::parse(plan.payload.as_str(), json_depth, payload_bytes).map_err(|e| format!("payload: {e}"))?;
    if plan.max_attempts.is_some_and(|n| !(1..=ATTEMPTS_MAX).contains(&n)) {
        return Err(format!("max_attempts: write 1 to {ATTEMPTS_MAX}"));
    }
    if plan.timeout_ms.is_some_and(|ms| !(1..=TIMEOUT_MS_MAX).contains(&ms)) {
        return Err(format!("timeout_ms: write 1 to {TIMEOUT_MS_MAX}"));
    }
    plan.ticks_after(Timestamp(0), Timestamp(0)).map_err(|fault| fault.to_string())?;
    Ok(Declared { plan, paused })
}

/// Without the place in the JSON, which is not the file.
fn plainly(error: serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn json_of(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(json_of).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => {
            let fields = table.into_iter().map(|(key, value)| Ok((key, json_of(value)?)));
            Value::Object(fields.collect::<Result<_, String>>()?)
        }
        value => serde_json::to_value(value).map_err(|e| e.to_string())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Kinds, String> {
        Kinds::parse(text, "/x".into())
    }

    #[test]
    fn a_schedule_is_read_with_its_payload() {
        let text = "[schedules.nightly]\ncron = \"0 3 * * *\"\ntime_zone = \"Europe/Berlin\"\nkind = \"report\"\n\
                    payload = { pages = [1, 2.5], on = 2027-01-01T00:00:00Z }\nstart_at = 2027-01-01T00:00:00Z\n\
                    [schedules.poll]\nevery = \"30s\"\nkind = \"fetch\"\npaused = true\n[kinds.fetch]\n";
        let kinds = parse(text).unwrap();
        let [nightly, poll] = ["nightly", "poll"].map(|name| kinds.schedules()[name].clone());
        assert_eq!(nightly.plan.payload.as_str(), r#"{"on":"2027-01-01T00:00:00Z","pages":[1,2.5]}"#);
        assert_eq!(nightly.plan.start_at, Some(Timestamp::parse("2027-01-01T00:00:00Z").unwrap()));
        assert_eq!((poll.plan.every_ms, poll.paused, poll.plan.payload.as_str()), (Some(30_000), true, "null"));
    }

    #[test]
    fn a_fault_is_named() {
        for (text, named) in [
            ("[schedules.a]\ncron = \"0 3 * *\"\nkind = \"b\"", "[schedules.a]: cron: \"0 3 * *\" has 4 fields"),
            ("[schedules.a]\ncron = \"@daily\"", "missing field `kind`"),
            ("[schedules.A]\ncron = \"@daily\"\nkind = \"b\"", "schedule \"A\" is not allowed"),
            ("[schedules.a]\nevery_ms = 5\nkind = \"b\"", "every_ms: 5 is not"),
            ("[schedules.a]\nevery = \"5\"\nkind = \"b\"", "every: \"5\" is not a duration"),
            ("[schedules.a]\nevery_ms = 5000\nkind = \"b\"\nmax_attempts = 0", "max_attempts: write 1 to"),
            ("[schedules.a]\ncrn = \"@daily\"\nkind = \"b\"", "unknown field \"crn\""),
            ("[schedules.a]\ncron = \"@daily\"\nkind = \"b\"\npaused = 1", "paused: write true or false"),
            ("[schedules.a]\ncron = \"@daily\"\nkind = \"b\"\noverlap = \"no\"", "unknown variant `no`"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
