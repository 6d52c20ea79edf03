//! What this API is, in OpenAPI 3.1. The document is written by hand; tests hold it against the router, the scopes, the codes
//! and, over the whole suite, against what is really answered.
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("../openapi.json");

/// `GET /openapi.json`
pub async fn describe() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::Method;
    use leasehold::tokens::Scope;
    use serde_json::Value;

    use super::*;
    use crate::access::needed;
    use crate::routed::routed;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
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
        let routed = routed().into_iter();
        let routed =
            routed.flat_map(|(path, methods)| methods.into_iter().map(move |method| format!("{method} {path}")));
        let document = document();
        let described = operations(&document).into_iter().map(|(path, method, _)| format!("{method} {path}"));
        assert_eq!(described.collect::<BTreeSet<_>>(), routed.collect());
    }

    #[test]
    fn every_operation_names_the_scope_it_asks_for() {
        for (path, method, operation) in operations(&document()) {
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

    #[test]
    fn every_code_and_the_version_are_described() {
        let table = include_str!("error.rs").split("(S::").skip(1);
        let mut codes: BTreeSet<&str> = table.filter_map(|row| row.split('"').nth(1)).collect();
        // Said below the router, of a head that does not come.
        codes.insert("head_timeout");
        let document = document();
        let described = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
        assert_eq!(described.iter().filter_map(Value::as_str).collect::<BTreeSet<_>>(), codes);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            if let Some(to) = value["$ref"].as_str() {
                assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
            }
            let of_object = value.as_object().into_iter().flat_map(|object| object.values());
            of_object.chain(value.as_array().into_iter().flatten()).for_each(|part| walk(part, document));
        }
        walk(&document(), &document());
    }
}
