//! The transition table, the scripts' `Transition:` lines and ARCHITECTURE's diagram agree.
use std::collections::BTreeSet;
use std::path::Path;

use leasehold::lifecycle::TRANSITIONS;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn every_verb_has_a_script_and_every_script_its_verbs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/store/lua");
    let mut named = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("-- Transition: "));
        named.extend(line.into_iter().flat_map(|verbs| verbs.split(' ').map(str::to_owned)).collect::<Vec<_>>());
    }
    let verbs: BTreeSet<String> = TRANSITIONS.iter().map(|t| t.verb.as_str().to_owned()).collect();
    assert_eq!(named, verbs);
}

#[test]
fn architecture_draws_every_transition() {
    let text = read("ARCHITECTURE.md");
    for t in TRANSITIONS {
        let states = |states: &[leasehold::State]| {
            let words: Vec<_> = states.iter().map(|s| s.as_str()).collect();
            if words.is_empty() { "–".to_owned() } else { words.join(", ") }
        };
        let row = format!("| {} | {} | {} | {} |", t.verb.as_str(), states(t.from), states(t.to), t.by);
        assert!(text.contains(&row), "ARCHITECTURE.md lacks the row\n{row}");
    }
}

#[test]
fn the_settings_page_documents_every_setting() {
    let text = read("docs/settings.md");
    for key in leasehold::config::KEYS {
        assert!(text.contains(&format!("| `{key}` |")), "docs/settings.md lacks the setting {key}");
    }
}
