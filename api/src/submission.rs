//! A submit as a client writes it: every field checked, all faults reported at once. Pure.
use std::sync::Arc;

use leasehold::job::{Due, Durability, NewBatch, Priority};
use leasehold::json::InvalidJson;
use leasehold::{Draft, Json, Kind, Kinds, Limits, NewJob, limits};

use crate::error::{Code, Problem};
use crate::fault::Fault;
use crate::fields::{FAULTS_MAX, Reader};

/// What a submit is held against.
#[derive(Clone)]
pub struct Rules<'a> {
    /// The configured kinds.
    pub kinds: Arc<Kinds>,
    /// Whether only those are taken.
    pub known_kinds_only: bool,
    /// Sizes.
    pub limits: &'a Limits,
}

/// Reads a submit; `key` is its Idempotency-Key.
///
/// # Errors
/// A problem with every fault of every field; or, with [`Rules::known_kinds_only`], one that names the kind.
pub fn read(mut reader: Reader<'_>, key: Option<String>, rules: &Rules<'_>) -> Result<NewJob, Problem> {
    let draft = draft(&mut reader, key, rules.limits);
    reader.finish()?;
    resolve(draft.expect("a missing kind is a fault"), rules)
}

/// What a route submits that stands for one kind.
pub struct Work {
    /// The kind.
    pub kind: Kind,
    /// For the handler.
    pub payload: Json,
    /// The payloads of a batch's items, and how the request calls their list.
    pub items: Option<(&'static str, Vec<Json>)>,
}

/// Fills in what hangs on the kind; `key` is the request's Idempotency-Key.
///
/// # Errors
/// A problem when a payload is too large, or with [`Rules::known_kinds_only`] for a kind that is not there.
pub fn of_kind(work: Work, key: Option<String>, rules: &Rules<'_>) -> Result<NewJob, Problem> {
    let most = rules.limits.payload_bytes;
    let too_large = |pointer: String, payload: &Json| {
        let detail = InvalidJson::TooLong(payload.as_str().len(), most).to_string();
        (payload.as_str().len() > most).then(|| Fault { too_large: true, ..Fault::pointer(pointer, detail) })
    };
    let list = work.items.as_ref().map_or("", |(list, _)| list);
    let items = work.items.iter().flat_map(|(_, items)| items).enumerate();
    let items = items.filter_map(|(number, item)| too_large(format!("/{list}/{number}"), item));
    let faults: Vec<Fault> =
        too_large(String::new(), &work.payload).into_iter().chain(items).take(FAULTS_MAX).collect();
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let batch = work.items.map(|(_, items)| NewBatch { items, open: false, then: None });
    resolve(Draft { key, batch, ..Draft::new(work.kind, work.payload) }, rules)
}

/// Applies the defaults of the kind, which must be known if only known kinds are taken.
fn resolve(draft: Draft, rules: &Rules<'_>) -> Result<NewJob, Problem> {
    known(&draft.kind, rules)?;
    if let Some(then) = draft.batch.as_ref().and_then(|batch| batch.then.as_ref()) {
        known(then, rules)?;
    }
    Ok(draft.into_job(&rules.kinds))
}

/// The submit that the fields make; `None` without a kind, which is among the reader's faults then.
fn draft(reader: &mut Reader<'_>, key: Option<String>, sizes: &Limits) -> Option<Draft> {
    let kind = reader.required("kind");
    let payload = reader.payload("payload", sizes);
    let (queue, priority, due) = (reader.name("queue"), priority(reader), due(reader));
    let max_attempts = reader.whole("max_attempts", 1, limits::ATTEMPTS_MAX.into());
    let timeout_ms = reader.whole("timeout_ms", 1, limits::TIMEOUT_MS_MAX);
    let durability = durability(reader);
    let items = reader.payloads("items", limits::ITEMS_PER_SUBMIT_MAX, sizes);
    let open = reader.flag("items_open");
    let then = reader.name("then");
    let is_batch = items.is_some() || open;
    if then.is_some() && !is_batch {
        reader.fault("then", "it runs over the items of a batch: give items, or items_open");
    }
    if is_batch {
        match due {
            Some(Due::At(_)) => reader.fault("run_at", "a batch starts at once; leave it out"),
            Some(Due::In(ms)) if ms > 0 => reader.fault("delay_ms", "a batch starts at once; leave it out"),
            _ => {}
        }
    }
    Some(Draft {
        queue,
        priority,
        due,
        max_attempts: max_attempts.and_then(|n| u32::try_from(n).ok()),
        timeout_ms,
        key,
        durability,
        batch: is_batch.then(|| NewBatch { items: items.unwrap_or_default(), open, then }),
        ..Draft::new(kind?, payload.unwrap_or_else(Json::null))
    })
}

/// Reads a priority.
pub fn priority(reader: &mut Reader<'_>) -> Option<Priority> {
    let word = reader.text("priority")?;
    let priority = Priority::parse(&word);
    if priority.is_none() {
        let shown: String = word.chars().take(80).collect();
        reader.fault("priority", format!("{shown:?} is not high, normal or low"));
    }
    priority
}

fn durability(reader: &mut Reader<'_>) -> Option<Durability> {
    let text = reader.text("durability")?;
    Durability::parse(&text).map_err(|fault| reader.fault("durability", fault)).ok()
}

fn due(reader: &mut Reader<'_>) -> Option<Due> {
    let at = reader.time("run_at");
    let delay_ms = reader.whole("delay_ms", 0, limits::DELAY_MS_MAX);
    if at.is_some() && delay_ms.is_some() {
        reader.fault("delay_ms", "run_at is given too; give one of them");
    }
    at.map(Due::At).or(delay_ms.map(Due::In))
}

/// Checks that a kind is configured, if only those are taken.
///
/// # Errors
/// A problem that names the nearest one.
pub fn known(kind: &Kind, rules: &Rules<'_>) -> Result<(), Problem> {
    if !rules.known_kinds_only || rules.kinds.contains(kind) {
        return Ok(());
    }
    let distance = |known: &Kind| strsim::damerau_levenshtein(known.as_str(), kind.as_str());
    let nearest = rules.kinds.iter().map(|(known, _)| known).min_by_key(|known| distance(known));
    let advice = nearest.map_or_else(|| "it names none".to_owned(), |known| format!("did you mean {known}?"));
    Err(Problem::new(Code::UnknownKind, format!("kind {kind} is not in the kinds file; {advice}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: &str = "[kinds.resize]\nqueue = \"images\"\nmax_attempts = 2\nmax_running = 1\n";

    fn read_with(text: &str, known_kinds_only: bool) -> Result<NewJob, serde_json::Value> {
        let kinds = Kinds::parse(KINDS, "/".into()).unwrap();
        let limits = Limits { payload_bytes: 100, ..Limits::default() };
        let rules = Rules { kinds: Arc::new(kinds), known_kinds_only, limits: &limits };
        let job = Reader::open(text).and_then(|reader| read(reader, Some("key".into()), &rules));
        job.map_err(|problem| serde_json::to_value(&problem).unwrap())
    }

    fn digest_of(text: &str) -> String {
        read_with(text, false).unwrap().idempotency.unwrap().digest
    }

    #[test]
    fn what_a_submit_leaves_out_comes_from_its_kind() {
        let job = read_with(r#"{"kind": "resize"}"#, true).unwrap();
        assert_eq!((job.queue.as_str(), job.max_attempts, job.limited), ("images", 2, true));
        assert_eq!((job.payload.as_str(), job.due, job.timeout_ms), ("null", Due::Now, None));
        let job = read_with(r#"{"kind": "x", "queue": "y", "max_attempts": 9.0, "queue2": null}"#, false);
        assert!(job.is_err(), "an unknown field is refused, null or not");
    }

    #[test]
    fn each_fault_is_named_with_its_pointer() {
        for (text, pointer, said) in [
            ("[1]", "", "expected an object, got an array"),
            ("{}", "/kind", "required"),
            (r#"{"kind": null}"#, "/kind", "required"),
            (r#"{"kind": 5}"#, "/kind", "expected a string, got a number"),
            (r#"{"kind": "A b"}"#, "/kind", "1 to 64 of a-z"),
            (r#"{"kind": "a", "kind": "b"}"#, "/kind", "more than once"),
            (r#"{"kind": "a", "queue": "-"}"#, "/queue", "beginning with a letter"),
            (r#"{"kind": "a", "paylaod": 1}"#, "/paylaod", "did you mean \"payload\"?"),
            (r#"{"kind": "a", "x/y~": 1}"#, "/x~1y~0", "known are kind, payload"),
            (r#"{"kind": "a", "priority": "urgent"}"#, "/priority", "high, normal or low"),
            (r#"{"kind": "a", "delay_ms": -5}"#, "/delay_ms", "-5 is not a whole number from 0"),
            (r#"{"kind": "a", "delay_ms": 1.5}"#, "/delay_ms", "1.5 is not a whole number"),
            (r#"{"kind": "a", "delay_ms": 1e400}"#, "/delay_ms", "1e400"),
            (r#"{"kind": "a", "run_at": "tomorrow"}"#, "/run_at", "RFC 3339"),
            (r#"{"kind": "a", "run_at": 5}"#, "/run_at", "expected a string"),
            (r#"{"kind": "a", "run_at": "2030-01-01T00:00:00Z", "delay_ms": 1}"#, "/delay_ms", "run_at is given too"),
            (r#"{"kind": "a", "max_attempts": 0}"#, "/max_attempts", "from 1 to 1000"),
            (r#"{"kind": "a", "timeout_ms": 0}"#, "/timeout_ms", "from 1"),
            (r#"{"kind": "a", "timeout_ms": 604800001}"#, "/timeout_ms", "604800000"),
            (r#"{"kind": "a", "durability": "replicas:11"}"#, "/durability", "write N from 0 to 10"),
            (r#"{"kind": "a", "durability": 1}"#, "/durability", "expected a string"),
            (r#"{"kind": "a", "items": {}}"#, "/items", "expected an array, got an object"),
            (r#"{"kind": "a", "items_open": "yes"}"#, "/items_open", "expected a boolean"),
            (r#"{"kind": "a", "then": "b"}"#, "/then", "items"),
            (r#"{"kind": "a", "items": [], "delay_ms": 5}"#, "/delay_ms", "a batch starts at once"),
        ] {
            let problem = read_with(text, false).expect_err(text);
            assert_eq!((&problem["status"], &problem["code"]), (&400.into(), &"invalid_request".into()), "{problem}");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
            assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(said), "{problem}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let problem = read_with(r#"{"kind": "A", "queue": 1, "max_attempts": 0, "x": 1}"#, false).unwrap_err();
        let pointers: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
        assert_eq!(pointers, ["/kind", "/queue", "/max_attempts", "/x"]);
        assert!(problem["detail"].as_str().unwrap().ends_with("(and 3 more)"), "{problem}");
    }

    #[test]
    fn a_payload_is_held_to_its_limits() {
        let long = format!(r#"{{"kind": "a", "items": [1, "{}"]}}"#, "x".repeat(100));
        let problem = read_with(&long, false).unwrap_err();
        assert_eq!((&problem["status"], &problem["errors"][0]["pointer"]), (&413.into(), &"/items/1".into()));
        let deep = format!(r#"{{"kind": "a", "payload": {}1{}}}"#, "[".repeat(65), "]".repeat(65));
        let problem = read_with(&deep, false).unwrap_err();
        assert_eq!((&problem["status"], &problem["errors"][0]["pointer"]), (&400.into(), &"/payload".into()));
        let bomb = format!(r#"{{"kind": "a", "payload": {}"#, "[".repeat(1_000_000));
        assert_eq!(read_with(&bomb, false).unwrap_err()["code"], "invalid_json");
    }

    #[test]
    fn broken_json_is_told_by_line_and_column() {
        for (text, said) in [("", "empty"), ("{\"kind\":\n \"a\",}", "line 2 column 6"), ("{} {}", "trailing")] {
            let problem = read_with(text, false).unwrap_err();
            assert_eq!(problem["code"], "invalid_json");
            assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        }
    }

    #[test]
    fn a_kind_that_is_not_configured_can_be_refused() {
        let problem = read_with(r#"{"kind": "resise"}"#, true).unwrap_err();
        assert_eq!((&problem["status"], &problem["code"]), (&422.into(), &"unknown_kind".into()));
        assert!(problem["detail"].as_str().unwrap().contains("did you mean resize?"), "{problem}");
        assert_eq!(read_with(r#"{"kind": "resize", "items": [], "then": "x"}"#, true).unwrap_err()["status"], 422);
    }

    #[test]
    fn a_digest_sees_what_matters_and_nothing_else() {
        let one = digest_of(r#"{"kind": "a", "payload": {"x": [1, 2]}, "delay_ms": 5}"#);
        assert_eq!(one, digest_of("{\"delay_ms\":5,\n \"payload\": { \"x\":[1,2] }, \"kind\":\"a\", \"queue\": null}"));
        for other in [
            r#"{"kind": "a", "payload": {"x": [1, 3]}, "delay_ms": 5}"#,
            r#"{"kind": "a", "payload": {"x": [1, 2]}, "delay_ms": 6}"#,
            r#"{"kind": "a", "payload": {"x": [1, 2]}, "delay_ms": 5, "queue": "default"}"#,
            r#"{"kind": "a", "payload": {"x": [1, 2]}, "delay_ms": 5, "max_attempts": 5}"#,
            r#"{"kind": "a", "payload": {"x": [1, 2]}}"#,
        ] {
            assert_ne!(one, digest_of(other), "{other}");
        }
        assert_ne!(digest_of(r#"{"kind": "a", "items": []}"#), digest_of(r#"{"kind": "a", "items_open": true}"#));
    }
}
