//! `openapi.json` and `openapi-views.json` as contracts: every answer that a test reads is held against one of them.
//!
//! Both documents let clients expect new fields. Here an answer with a field that its document does not name is a
//! fault.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::api::Answer;

/// An OpenAPI document, with schemas that allow no fields beside those they name.
#[derive(Debug)]
pub struct Document {
    json: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

static DOCUMENTS: LazyLock<[Document; 2]> = LazyLock::new(|| {
    [include_str!("../../api/openapi.json"), include_str!("../../api/openapi-views.json")].map(Document::parse)
});

/// The document of the API itself.
pub fn api() -> &'static Document {
    &DOCUMENTS[0]
}

/// The document of the views.
pub fn views() -> &'static Document {
    &DOCUMENTS[1]
}

/// Both documents.
pub fn documents() -> &'static [Document; 2] {
    &DOCUMENTS
}

impl Document {
    fn parse(text: &str) -> Document {
        let mut json: Value = serde_json::from_str(text).expect("the document is JSON");
        close(&mut json["components"]["schemas"]);
        Document { json, validators: Mutex::default() }
    }

    /// The whole document.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Every operation: its path, its method in capitals, its description.
    pub fn operations(&self) -> impl Iterator<Item = (&str, String, &Value)> {
        self.json["paths"].as_object().expect("paths").iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").iter().filter(|(key, _)| *key != "parameters");
            methods.map(|(method, operation)| (path.as_str(), method.to_uppercase(), operation))
        })
    }

    /// Where a value differs from a schema of the document; empty when it does not.
    pub fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let validator = {
            let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
            let validator = validators.entry(schema.to_string()).or_insert_with(|| {
                let mut whole = schema.clone();
                whole["components"] = json!({ "schemas": self.json["components"]["schemas"] });
                let compiled = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&whole);
                Arc::new(compiled.expect("the document's schemas are schemas"))
            });
            Arc::clone(validator)
        };
        validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
    }
}

/// Makes each object schema that names its fields refuse all others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("type").is_some_and(|sort| sort == "object") && members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        _ => {}
    }
}

/// The path of a document that `path` matches, and the document.
fn find(path: &str) -> Option<(&'static Document, &'static str)> {
    let given: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == given.len()
            && parts.iter().zip(&given).all(|(part, given)| part == given || part.starts_with('{') && !given.is_empty())
    };
    let all = DOCUMENTS.iter().flat_map(|document| {
        let paths = document.json["paths"].as_object().expect("paths").keys();
        paths.map(move |template| (document, template.as_str()))
    });
    // A fixed part wins over a parameter, as in the router.
    all.filter(|(_, template)| fits(template)).min_by_key(|(_, template)| template.matches('{').count())
}

/// The path of a document that `path` matches.
pub fn template(path: &str) -> Option<&'static str> {
    find(path).map(|(_, template)| template)
}

/// Asserts that an answer is one that the document describes: its status, its type, its body.
pub fn hold(method: &str, path: &str, answer: &Answer) {
    let said = format!("{method} {path}: {} {}", answer.status, answer.text.chars().take(2_000).collect::<String>());
    let lower = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    let Some((document, template)) = find(path) else {
        assert!([401, 404].contains(&answer.status), "no path of the document: {said}");
        return;
    };
    let operation = &document.json["paths"][template][&lower];
    if operation.is_null() {
        assert!([401, 403, 405].contains(&answer.status), "no method of the document: {said}");
        return;
    }
    let mut response = &operation["responses"][answer.status.to_string()];
    if let Some(to) = response["$ref"].as_str() {
        response = document.json.pointer(to.trim_start_matches('#')).expect("a reference leads somewhere");
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
        let faults = document.faults(&content["schema"], &answer.json);
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

    #[test]
    fn each_path_has_its_document() {
        let is_of = |path, document| find(path).is_some_and(|(found, _)| std::ptr::eq(found, document));
        assert!(is_of("/api/v1/jobs", api()) && is_of("/livez", api()));
        assert!(is_of("/api/v1/gap-analysis/jobs", views()) && is_of("/jobs", views()));
    }
}
