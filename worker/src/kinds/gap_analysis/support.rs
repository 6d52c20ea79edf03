//! Groups statements by topic.
//!
//! A statement's topic is the set of its words, without its cues, stop words and plural endings (Harman's S-stemmer:
//! How effective is suffixing?, JASIS 42, 1991). Two statements have the same topic if the Jaccard coefficient of their
//! word sets,
//! |A ∩ B| / |A ∪ B|, or their overlap coefficient (Szymkiewicz and Simpson), |A ∩ B| / min(|A|, |B|), is large enough. Manning,
//! Raghavan and Schütze, Introduction to Information Retrieval, 2008, sections 3.3.4 and 19.6.
use std::collections::{BTreeMap, BTreeSet};

use super::cues;
use super::state::Group;

/// The minimum Jaccard coefficient of two statements with the same topic.
const JACCARD_MIN: f64 = 0.5;
/// The minimum overlap coefficient, and the minimum number of words of the smaller topic for it to count: small topics
/// overlap by chance.
const OVERLAP_MIN: f64 = 0.8;
const OVERLAP_WORDS_MIN: usize = 3;

/// Words that do not identify a topic: function words, and words common in papers.
const STOP_WORDS: &str = "a about above across after again against all almost along also although among an and another any are as at \
    be because been before being between both but by can could did do does done due during each either else et al etc ever every \
    for from further furthermore had has have having he her here hence his how however i if in into is it its itself just least \
    less like likely may me might more most much must my near need neither no nor not now of off often on once one only or other \
    others our out over own per quite rather same seem several shall she should since so some still such than that the their \
    them then there therefore these they this those though through thus to together too toward towards two under until unless up \
    upon us using use used usually various very via was way we well were what when where whereas whether which while who whom \
    whose why will with within without would yet you your \
    analysis article author conclusion current currently data discussion evidence example existing experiment finding future gap \
    information introduction investigate investigation issue know knowledge known lack limitation literature little main method \
    need needed new paper precise present previous problem question recent report require required research researcher result review section study studied \
    unclear understand understanding understood unknown work";

/// The topic of a statement: its words, sorted.
pub(super) fn topic(statement: &str) -> BTreeSet<String> {
    let text = cues::without_cues(statement).to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().nth(1).is_some());
    let stems = words.filter(|word| word.chars().any(char::is_alphabetic)).map(stem);
    stems.filter(|word| !STOP_WORDS.split_whitespace().any(|stop| stop == word)).collect()
}

/// The word without a plural ending.
fn stem(word: &str) -> String {
    let ends_in = |endings: &[&str]| endings.iter().any(|ending| word.ends_with(ending));
    if word.len() < 4 {
        word.to_owned()
    } else if word.ends_with("ies") && !ends_in(&["eies", "aies"]) {
        format!("{}y", &word[..word.len() - 3])
    } else if word.ends_with("es") && !ends_in(&["aes", "ees", "oes", "ses", "xes", "ches", "shes"]) {
        word[..word.len() - 1].to_owned()
    } else if ends_in(&["sses", "xes", "ches", "shes"]) {
        word[..word.len() - 2].to_owned()
    } else if word.ends_with('s') && !ends_in(&["us", "ss", "is"]) {
        word[..word.len() - 1].to_owned()
    } else {
        word.to_owned()
    }
}

/// The statements of all documents grouped by topic, groups with the most documents first. Each statement is in the
/// first group whose leader has its topic; once `should_stop` is true, the rest is omitted.
pub(super) fn groups(statements: &[Vec<String>], should_stop: &dyn Fn() -> bool) -> Vec<Group> {
    let mut numbers = BTreeMap::new();
    let mut all: Vec<((usize, usize), Vec<usize>)> = Vec::new();
    for (document, list) in statements.iter().enumerate() {
        for (number, statement) in list.iter().enumerate() {
            let mut words: Vec<usize> = Vec::new();
            for word in topic(statement) {
                let next = numbers.len();
                words.push(*numbers.entry(word).or_insert(next));
            }
            words.sort_unstable();
            all.push(((document, number), words));
        }
    }
    let mut like: Vec<Vec<usize>> = Vec::with_capacity(all.len());
    for (_, words) in &all {
        if should_stop() {
            return Vec::new();
        }
        like.push((0..all.len()).filter(|other| is_same(words, &all[*other].1)).collect());
    }
    let documents = |members: &[usize]| members.iter().map(|at| all[*at].0.0).collect::<BTreeSet<usize>>();
    let mut order: Vec<usize> = (0..all.len()).collect();
    // Stable: groups with equally many documents keep the order of reading.
    order.sort_by_key(|at| std::cmp::Reverse(documents(&like[*at]).len()));
    let (mut is_taken, mut groups) = (vec![false; all.len()], Vec::new());
    for leader in order {
        if !is_taken[leader] {
            like[leader].iter().for_each(|member| is_taken[*member] = true);
            is_taken[leader] = true;
            let documents = documents(&like[leader]).into_iter().collect();
            groups.push(Group { leader: all[leader].0, documents });
        }
    }
    groups
}

/// Whether two topics, as sorted word numbers, are the same.
fn is_same(one: &[usize], other: &[usize]) -> bool {
    let shared = shared(one, other) as f64;
    let (least, all) = (one.len().min(other.len()), (one.len() + other.len()) as f64 - shared);
    if shared == 0.0 {
        return false;
    }
    shared / all >= JACCARD_MIN || (least >= OVERLAP_WORDS_MIN && shared / least as f64 >= OVERLAP_MIN)
}

fn shared(one: &[usize], other: &[usize]) -> usize {
    let (mut a, mut b, mut count) = (0, 0, 0);
    while a < one.len() && b < other.len() {
        match one[a].cmp(&other[b]) {
            std::cmp::Ordering::Less => a += 1,
            std::cmp::Ordering::Greater => b += 1,
            std::cmp::Ordering::Equal => (a, b, count) = (a + 1, b + 1, count + 1),
        }
    }
    count
}
