//! The OpenAPI 3.1 documents, one for the API and one for the views. They are written by hand; tests compare them with
//! the router, the scopes and the codes, generate clients from them, and compare every response of the suite with them.
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("../openapi.json");
const VIEWS: &str = include_str!("../openapi-views.json");

/// `GET /openapi.json`
pub async fn describe() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}

/// `GET /openapi-views.json`
pub async fn describe_views() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], VIEWS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::Method;
    use leasehold::tokens::Scope;
    use serde_json::Value;

    use super::*;
    use crate::access::needed;
    use crate::routed;

    fn documents() -> [Value; 2] {
        [DOCUMENT, VIEWS].map(|text| serde_json::from_str(text).unwrap())
    }

    /// Every method of every path, with its operation.
    fn operations(document: &Value) -> Vec<(String, Method, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        let of_path = |(path, methods): (&String, &'_ Value)| {
            let path = path.clone();
            let methods = methods.as_object().unwrap().keys().filter(|key| *key != "parameters").cloned();
            methods.map(|method| (path.clone(), method)).collect::<Vec<_>>()
        };
        let all = paths.flat_map(of_path);
        all.map(|(path, method)| {
            let operation = &document["paths"][&path][&method];
            (path, method.to_uppercase().parse().unwrap(), operation)
        })
        .collect()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let [api, views] = documents().map(|document| {
            let described = operations(&document).into_iter().map(|(path, method, _)| format!("{method} {path}"));
            described.collect::<BTreeSet<_>>()
        });
        // The landing page is for people; the document may leave it out.
        let of = |source| {
            let routed = routed::of(source).into_iter();
            routed
                .flat_map(|(path, methods)| methods.into_iter().map(move |method| format!("{method} {path}")))
                .collect::<BTreeSet<_>>()
        };
        let (mut api, mut own) = (api, of(routed::OWN));
        api.remove("GET /");
        own.remove("GET /");
        assert_eq!(api, own);
        assert_eq!(views, of(routed::VIEWS));
    }

    #[test]
    fn every_operation_names_the_scope_it_asks_for() {
        for document in documents() {
            for (path, method, operation) in operations(&document) {
                let scope = match needed(&method, &path) {
                    None => None,
                    Some(Scope::Read) => Some("read"),
                    Some(Scope::Submit) => Some("submit"),
                    Some(Scope::Admin) => Some("admin"),
                };
                assert_eq!(operation["x-scope"].as_str(), scope, "{method} {path}");
                let documented = operation["responses"].as_object().unwrap();
                assert_eq!(documented.contains_key("401"), scope.is_some(), "{method} {path}");
            }
        }
    }

    #[test]
    fn every_code_and_the_version_are_described() {
        let table = include_str!("error.rs").split("(S::").skip(1);
        let mut codes: BTreeSet<&str> = table.filter_map(|row| row.split('"').nth(1)).collect();
        // Sent below the router, when the head of a request does not arrive.
        codes.insert("head_timeout");
        let [api, views] = documents();
        let described = api["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
        assert_eq!(described.iter().filter_map(Value::as_str).collect::<BTreeSet<_>>(), codes);
        for document in [api, views] {
            assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        }
    }

    /// What a value is, or what its reference leads to.
    fn resolved<'a>(value: &'a Value, document: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(to) => document.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to}")),
            None => value,
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            resolved(value, document);
            let of_object = value.as_object().into_iter().flat_map(|object| object.values());
            of_object.chain(value.as_array().into_iter().flatten()).for_each(|part| walk(part, document));
        }
        documents().iter().for_each(|document| walk(document, document));
    }

    #[test]
    fn every_operation_tag_and_parameter_is_explained() {
        let is_explained = |value: &Value| value["description"].as_str().is_some_and(|text| !text.is_empty());
        for document in documents() {
            let tags = document["tags"].as_array().unwrap();
            assert!(tags.iter().all(is_explained), "{tags:?}");
            for (path, method, operation) in operations(&document) {
                let name = format!("{method} {path}");
                assert!(is_explained(operation) && operation["summary"].is_string(), "{name}");
                assert!(tags.iter().any(|tag| tag["name"] == operation["tags"][0]), "{name}");
                let bodies = operation.get("requestBody").into_iter();
                let successes = operation["responses"].as_object().unwrap().iter();
                let successes = successes.filter(|(status, _)| status.starts_with('2')).map(|(_, response)| response);
                for content in bodies.chain(successes).filter_map(|body| body["content"].as_object()) {
                    for (sort, content) in content {
                        let examples = content["examples"].as_object();
                        assert!(examples.is_some_and(|examples| !examples.is_empty()), "{name} has no example: {sort}");
                    }
                }
            }
            for (name, parameter) in document["components"]["parameters"].as_object().unwrap() {
                assert!(is_explained(parameter) && !parameter["example"].is_null(), "parameter {name}");
            }
        }
    }

    #[test]
    fn a_response_may_gain_fields() {
        /// Everything that a part of the document consists of, by way of its references.
        fn walk<'a>(value: &'a Value, document: &'a Value, seen: &mut Vec<&'a Value>) {
            let value = resolved(value, document);
            if seen.iter().any(|before| std::ptr::eq(*before, value)) {
                return;
            }
            seen.push(value);
            let of_object = value.as_object().into_iter().flat_map(|object| object.values());
            of_object.chain(value.as_array().into_iter().flatten()).for_each(|part| walk(part, document, seen));
        }
        for document in &documents() {
            let mut seen = Vec::new();
            for (_, _, operation) in operations(document) {
                walk(&operation["responses"], document, &mut seen);
            }
            let closed = seen.into_iter().find(|value| value["additionalProperties"] == Value::Bool(false));
            assert_eq!(closed, None);
        }
    }
}
