//! `openapi.json` as a contract: every answer that a test reads is held against it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::api::Answer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../api/openapi.json");
    serde_json::from_str(text).expect("the document is JSON")
});

static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// The document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// The path of the document that `path` is of.
pub fn template(path: &str) -> Option<&'static str> {
    let given: Vec<&str> = path.split('/').collect();
    let fits = |template: &&String| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == given.len()
            && parts.iter().zip(&given).all(|(part, given)| part == given || part.starts_with('{') && !given.is_empty())
    };
    let mut fitting: Vec<&String> = DOCUMENT["paths"].as_object().expect("paths").keys().filter(fits).collect();
    // A fixed part wins over a parameter, as in the router.
    fitting.sort_by_key(|template| template.matches('{').count());
    fitting.first().map(|template| template.as_str())
}

/// What a value is not, of a schema of the document; empty when it is.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let validator = {
        let mut validators = VALIDATORS.lock().expect("nobody panics with it");
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = json!({ "schemas": DOCUMENT["components"]["schemas"] });
            let compiled = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&whole);
            Arc::new(compiled.expect("the document's schemas are schemas"))
        });
        Arc::clone(validator)
    };
    validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

/// Asserts that an answer is one that the document describes: its status, its type, its body.
pub fn hold(method: &str, path: &str, answer: &Answer) {
    let said = format!("{method} {path}: {} {}", answer.status, answer.text.chars().take(2_000).collect::<String>());
    let lower = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    let Some(template) = template(path) else {
        assert!([401, 404].contains(&answer.status), "no path of the document: {said}");
        return;
    };
    let operation = &DOCUMENT["paths"][template][&lower];
    if operation.is_null() {
        assert!([401, 403, 405].contains(&answer.status), "no method of the document: {said}");
        return;
    }
    let mut response = &operation["responses"][answer.status.to_string()];
    if let Some(to) = response["$ref"].as_str() {
        response = DOCUMENT.pointer(to.trim_start_matches('#')).expect("a reference leads somewhere");
    }
    assert!(response.is_object(), "a status that is not described: {said}");
    if method == "HEAD" {
        return;
    }
    let Some(contents) = response["content"].as_object() else {
        assert!(answer.text.is_empty(), "a body where none is described: {said}");
        return;
    };
    let sort = answer.headers.get("content-type").and_then(|sort| sort.to_str().ok()).unwrap_or_default();
    let sort = sort.split(';').next().unwrap_or_default().trim();
    let content = contents.get(sort).or_else(|| contents.get("*/*"));
    let content = content.unwrap_or_else(|| panic!("type {sort:?} is not described: {said}"));
    if sort.ends_with("json") && contents.contains_key(sort) && sort != "application/x-ndjson" {
        let faults = faults(&content["schema"], &answer.json);
        assert!(faults.is_empty(), "not as described: {faults:?}: {said}");
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(status: u16, sort: &str, json: Value) -> Answer {
        let headers = HeaderMap::from_iter([("content-type".parse().unwrap(), sort.parse().unwrap())]);
        Answer { status, headers, text: json.to_string(), json }
    }

    fn is_held(method: &str, path: &str, answer: Answer) -> bool {
        std::panic::catch_unwind(|| hold(method, path, &answer)).is_ok()
    }

    #[test]
    fn an_answer_that_is_not_described_is_caught() {
        let json = "application/json";
        let live = || json!({"status": "live"});
        assert!(is_held("GET", "/livez", answer(200, json, live())));
        assert!(!is_held("GET", "/livez", answer(201, json, live())));
        assert!(!is_held("GET", "/livez", answer(200, "text/plain", live())));
        assert!(!is_held("GET", "/livez", answer(200, json, json!({"status": "dead"}))));
        assert!(!is_held("GET", "/livez", answer(200, json, json!({"status": "live", "more": 1}))));
        assert!(!is_held("POST", "/livez", answer(200, json, live())));
        assert!(!is_held("GET", "/nowhere", answer(200, json, live())));
    }

    #[test]
    fn a_fixed_path_wins_over_a_parameter() {
        assert_eq!(template("/api/v1/jobs/bulk"), Some("/api/v1/jobs/bulk"));
        assert_eq!(template("/api/v1/jobs/a"), Some("/api/v1/jobs/{id}"));
        assert_eq!(template("/api/v1/jobs/"), None);
    }
}
