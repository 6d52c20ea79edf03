//! Every route of the router's source, for the tests that compare other tables with it.
use std::collections::BTreeMap;

/// The routes of the API itself.
pub const OWN: &str = include_str!("router.rs");
/// The routes of the views.
pub const VIEWS: &str = include_str!("views.rs");

/// Each path of both with its methods.
pub fn routed() -> BTreeMap<String, Vec<String>> {
    of(OWN).into_iter().chain(of(VIEWS)).collect()
}

/// Each path of a source with its methods.
pub fn of(source: &str) -> BTreeMap<String, Vec<String>> {
    let routes = source.split(".route(").skip(1).map(|route| {
        let line = route.lines().next().unwrap();
        let (path, handlers) = line.strip_prefix('"').and_then(|r| r.split_once('"')).unwrap();
        let words = ["get(", "post(", "delete(", "put(", "patch("].into_iter().filter(|word| handlers.contains(word));
        (path.to_owned(), words.map(|word| word.trim_end_matches('(').to_uppercase()).collect())
    });
    routes.collect()
}
