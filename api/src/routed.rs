//! Every route of the router's source, for the tests that compare other tables with it.
use std::collections::BTreeMap;

/// Each path with its methods, in the order of the source.
pub fn routed() -> BTreeMap<String, Vec<String>> {
    let source = concat!(include_str!("router.rs"), include_str!("views.rs"));
    let routes = source.split(".route(").skip(1).map(|route| {
        let (path, handlers) = route.trim_start().strip_prefix('"').and_then(|r| r.split_once('"')).unwrap();
        let words = ["get(", "post(", "delete(", "put(", "patch("].into_iter().filter(|word| handlers.contains(word));
        (path.to_owned(), words.map(|word| word.trim_end_matches('(').to_uppercase()).collect())
    });
    routes.collect()
}
