//! The house rules that a program can check: no module circles, bounded files, functions and lines, keys spelled in one
//! place, and plain words in what a person reads.
//!
//! What breaks a rule today is counted below. The counts may only fall: a test fails when one rises, and when one has
//! fallen further than it says, so that it is lowered.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The longest line, in characters.
const LINE_MAX: usize = 120;
/// The longest file and function, in lines, outside tests.
const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
/// How many places break each rule today.
const LONG_LINES: usize = 120;
const LONG_FILES: usize = 1;
const LONG_FUNCTIONS: usize = 0;
const RETIRED_WORDS: usize = 0;

/// Phrases that a reader stumbles over. They are looked for in what is printed and in the pages.
const RETIRED: [&str; 16] = [
    "is no ",
    "of none",
    "none that",
    "anew",
    "given back",
    "put back",
    "taken back",
    "goes on",
    "gone on with",
    "is told",
    "are told",
    "stands in",
    "mend",
    "so many",
    "so long",
    "cannot be meant",
];

struct Source {
    /// From the project's root, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below these folders that have one of the endings.
fn sources(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push(Source { path: path.strip_prefix(root()).unwrap().display().to_string(), text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn code() -> Vec<Source> {
    sources(&["shared/src", "api/src", "worker/src", "cli/src"], &["rs"])
}

/// The text before a file's own tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Fails unless exactly as many places break a rule as are counted.
fn ratchet(rule: &str, counted: usize, places: &[String]) {
    let shown = places.iter().take(60).cloned().collect::<Vec<_>>().join("\n");
    assert!(places.len() <= counted, "{rule}: {} places, {counted} allowed\n{shown}", places.len());
    assert!(places.len() == counted, "{rule}: {} places are left; lower the count from {counted}", places.len());
}

/// Whether a file is part of a test.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The module of a file, as a path from its crate: `shared/src/store/claim.rs` is `store::claim`; `lib.rs` is the empty
/// one.
fn module(path: &str) -> (String, String) {
    let (package, rest) = path.split_once("/src/").unwrap();
    let module = rest.trim_end_matches(".rs").replace('/', "::");
    let root = ["lib", "main"].contains(&module.as_str());
    (package.to_owned(), if root { String::new() } else { module })
}

/// The modules that `text` names after `crate::` or `super::`, each as the longest one that exists.
fn imports(text: &str, own: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut add = |path: &str, tail: &str| {
        for names in expand(tail) {
            let full = if path.is_empty() { names } else { format!("{path}::{names}") };
            let mut parts: Vec<&str> = full.split("::").collect();
            while !parts.is_empty() {
                let candidate = parts.join("::");
                if modules.contains(&candidate) {
                    named.insert(candidate);
                    break;
                }
                parts.pop();
            }
        }
    };
    for statement in text.split("\nuse ").skip(1) {
        let statement: String = statement.split(';').next().unwrap().split_whitespace().collect();
        if let Some(tail) = statement.strip_prefix("crate::") {
            add("", tail);
        } else if let Some(mut tail) = statement.strip_prefix("super::") {
            let mut base = own.rsplit_once("::").map_or("", |(parent, _)| parent);
            while let Some(rest) = tail.strip_prefix("super::") {
                (base, tail) = (base.rsplit_once("::").map_or("", |(parent, _)| parent), rest);
            }
            add(base, tail);
        }
    }
    named.remove(own);
    named
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(tail: &str) -> Vec<String> {
    let Some((head, rest)) = tail.split_once('{') else { return vec![tail.to_owned()] };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    for c in inner.chars() {
        match c {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                part.push(c);
            }
        }
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(part)).map(|part| format!("{head}{part}")).collect()
}

/// A circle among these arrows, if there is one.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        arrows: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|module| module == at) {
            return Some(way[begin..].to_vec());
        }
        if !done.contains(at) {
            way.push(at.to_owned());
            for to in arrows.get(at).into_iter().flatten() {
                if let Some(found) = visit(to, arrows, way, done) {
                    return Some(found);
                }
            }
            way.pop();
            done.insert(at.to_owned());
        }
        None
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|module| visit(module, arrows, &mut Vec::new(), &mut done))
}

#[test]
fn no_module_imports_in_a_circle() {
    let code = code();
    for package in ["shared", "api", "worker", "cli"] {
        let of: Vec<(String, &str)> = code
            .iter()
            .filter(|source| source.path.starts_with(&format!("{package}/")) && !is_test(&source.path))
            .map(|source| (module(&source.path).1, without_tests(&source.text)))
            .filter(|(module, _)| !module.is_empty())
            .collect();
        let modules: BTreeSet<String> = of.iter().map(|(module, _)| module.clone()).collect();
        let arrows = of.iter().map(|(module, text)| (module.clone(), imports(text, module, &modules))).collect();
        assert_eq!(circle(&arrows), None, "{package}: these modules import each other in a circle");
    }
}

#[test]
fn a_circle_is_found() {
    let modules = BTreeSet::from(["a", "a::b", "c"].map(str::to_owned));
    let of_b = imports("x\nuse super::super::c::{X, Y};\nuse crate::a::Z;\n", "a::b", &modules);
    assert_eq!(of_b, BTreeSet::from(["a".into(), "c".into()]));
    assert_eq!(imports("\nuse super::{a::{b::X}, c};\n", "c", &modules), BTreeSet::from(["a::b".into()]));
    let arrow = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    assert!(circle(&BTreeMap::from([arrow("a", "b"), arrow("b", "c"), arrow("c", "a")])).is_some());
    assert!(circle(&BTreeMap::from([arrow("a", "b"), arrow("b", "c")])).is_none());
}

#[test]
fn lines_files_and_functions_are_bounded() {
    let all = sources(&["shared/src", "api/src", "worker/src", "cli/src", "tests"], &["rs", "lua"]);
    let (mut lines, mut files, mut functions) = (Vec::new(), Vec::new(), Vec::new());
    for Source { path, text } in &all {
        let long = |(at, line): (usize, &str)| {
            (line.chars().count() > LINE_MAX && !line.contains("://")).then(|| format!("{path}:{}", at + 1))
        };
        lines.extend(text.lines().enumerate().filter_map(long));
        if is_test(path) || path.ends_with(".lua") {
            continue;
        }
        let text = without_tests(text);
        if text.lines().count() > FILE_LINES_MAX {
            files.push(format!("{path}: {} lines", text.lines().count()));
        }
        let mut begun: Option<(usize, usize)> = None;
        for (at, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_head = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn ", "pub(super) fn "]
                .iter()
                .any(|head| line.trim_start().starts_with(head));
            if is_head && begun.is_none() {
                begun = Some((at, indent));
            } else if let Some((head, of)) = begun
                && indent == of
                && line.trim_start() == "}"
            {
                if at - head + 1 > FUNCTION_LINES_MAX {
                    functions.push(format!("{path}:{}: {} lines", head + 1, at - head + 1));
                }
                begun = None;
            }
        }
    }
    ratchet("lines over 120 characters", LONG_LINES, &lines);
    ratchet("files over 400 lines", LONG_FILES, &files);
    ratchet("functions over 70 lines", LONG_FUNCTIONS, &functions);
}

#[test]
fn only_the_key_module_spells_a_key_and_only_the_store_knows_redis() {
    for Source { path, text } in code() {
        let text = without_tests(&text);
        let of_code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let spelled = of_code.clone().filter(|line| line.contains("\"lh:"));
        let is_keys = path == "shared/src/store/wire/keys.rs";
        assert!(is_keys || spelled.count() == 0, "{path} spells a key");
        let imports = of_code.filter(|line| line.trim_start().starts_with("use redis"));
        // A measurement reads the counters of its private server, and compares with bare commands.
        let may = ["shared/src/store", "cli/src/bench/"].iter().any(|folder| path.starts_with(folder));
        assert!(may || imports.count() == 0, "{path} imports redis");
    }
}

/// The strings of a source that a person may read: literals with a blank in them.
fn printed(text: &str) -> Vec<String> {
    let text: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    text.split('"').skip(1).step_by(2).filter(|literal| literal.contains(' ')).map(str::to_owned).collect()
}

#[test]
fn what_a_person_reads_is_in_plain_words() {
    let word = |text: &str, retired: &str| {
        text.match_indices(retired).any(|(at, _)| {
            // "There is no X" and "is no longer" are English.
            let before = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric())
                && !text[..at].to_lowercase().ends_with("there ");
            let after = text[at + retired.len()..].chars().next();
            let longer = text[at + retired.len()..].starts_with("longer");
            before && !longer && (retired.ends_with(' ') || after.is_none_or(|c| !c.is_alphanumeric()))
        })
    };
    let mut places = Vec::new();
    for Source { path, text } in code() {
        let helps = text.lines().filter(|line| path.starts_with("cli/") && line.trim_start().starts_with("///"));
        let helps: Vec<String> = helps.map(str::to_owned).collect();
        for literal in printed(without_tests(&text)).into_iter().chain(helps) {
            let retired = RETIRED.iter().filter(|retired| word(&literal, retired));
            places.extend(retired.map(|retired| format!("{path}: {retired:?} in {literal:?}")));
        }
    }
    let pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md", "CHANGELOG.md"];
    let pages =
        pages.map(|page| Source { path: page.into(), text: std::fs::read_to_string(root().join(page)).unwrap() });
    for Source { path, text } in sources(&["docs", "examples"], &["md"]).into_iter().chain(pages) {
        for (at, line) in text.lines().enumerate() {
            let retired = RETIRED.iter().filter(|retired| word(line, retired));
            places.extend(retired.map(|retired| format!("{path}:{}: {retired:?}", at + 1)));
        }
    }
    ratchet("retired words", RETIRED_WORDS, &places);
}
