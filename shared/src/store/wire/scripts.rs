//! The scripts: each verb's Lua, together with the parts it includes.
use std::collections::HashSet;
use std::sync::LazyLock;

use super::permissions;
use crate::kinds::Retention;
use crate::limits;

/// One script as Redis runs it.
pub(crate) struct Script {
    /// The verb: the name of its file, the label of its metric.
    pub name: &'static str,
    /// The whole text.
    pub text: String,
    /// Its SHA-1, for EVALSHA.
    pub sha: String,
    /// The text and the SHA-1 of its form for clusters: it publishes to the subscribers of the slot only.
    pub sharded: (String, String),
}

const BASE: &str = include_str!("../lua/base.lua");
const RETENTION: &str = include_str!("../lua/retention.lua");
const FINISH: &str = concat!(include_str!("../lua/retention.lua"), include_str!("../lua/finish.lua"));
const CREATE: &str = include_str!("../lua/create.lua");
const PAGE: &str = include_str!("../lua/page.lua");
const TOKENS: &str = include_str!("../lua/tokens.lua");
const CLOCK: &str = include_str!("../lua/clock.lua");
const LOSE_ONE: &str = include_str!("../lua/lose_one.lua");

/// The constants of `limits.rs` that the scripts need.
fn constants() -> String {
    let kept = Retention::default();
    format!(
        "local RESENT_MS = {}\n\
         local HISTORY_MAX = {}\n\
         local OPEN_MS = {}\n\
         local RECORD_VERSION = {}\n\
         local CLAIMED_MAX = {}\n\
         local WORKER_FORGET_MS = {}\n\
         local BATCH_BYTES_MAX = {}\n\
         local DEAD_WINDOW = {}\n\
         local TOKEN_MAX = {}\n\
         local NAMES_MAX = {}\n\
         local KINDS_WINDOW = {}\n\
         local RETENTION_DEFAULT = '{} {} {}'\n",
        limits::RESENT_MS,
        limits::HISTORY_MAX,
        limits::OPEN_MS,
        limits::RECORD_VERSION,
        limits::CLAIMED_MAX,
        limits::WORKER_FORGET_MS,
        limits::BATCH_BYTES_MAX,
        limits::DEAD_WINDOW,
        limits::TOKEN_MAX,
        limits::NAMES_MAX,
        limits::KINDS_WINDOW,
        kept.completed_ms,
        kept.failed_ms,
        kept.cancelled_ms,
    )
}

/// The definitions of a text, in order: each begins with the comment before it, or with `local`, at the margin.
fn definitions(text: &str) -> Vec<&str> {
    let (mut found, mut begin, mut at, mut has_code) = (Vec::new(), 0, 0, false);
    for line in text.split_inclusive('\n') {
        if has_code && (line.starts_with("--") || line.starts_with("local ")) {
            found.push(&text[begin..at]);
            (begin, has_code) = (at, false);
        }
        has_code |= !line.trim().is_empty() && !line.starts_with("--");
        at += line.len();
    }
    found.push(&text[begin..]);
    found
}

/// The words of a text outside of its comments.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).filter(|word| !word.is_empty())
}

/// The names that a definition gives a value to.
fn names(definition: &str) -> impl Iterator<Item = &str> {
    let line = definition.lines().find_map(|line| line.strip_prefix("local ")).unwrap_or_default();
    let names = line.strip_prefix("function ").map_or_else(
        || line.split_once('=').map_or(line, |(names, _)| names),
        |function| function.split_once('(').map_or(function, |(name, _)| name),
    );
    words(names)
}

/// The definitions of the parts that the last part uses, itself or through others, and the last part. Redis runs a
/// script from its first line at each call, so what a call does not use would be a good part of its time.
fn used(parts: &[&str]) -> String {
    let (body, included) = parts.split_last().expect("a script has a text");
    let (mut known, mut kept): (HashSet<&str>, Vec<&str>) = (words(body).collect(), vec![body]);
    for definition in included.iter().flat_map(|part| definitions(part)).rev().collect::<Vec<_>>() {
        if names(definition).any(|name| known.contains(name)) {
            known.extend(words(definition));
            kept.push(definition);
        }
    }
    kept.into_iter().rev().collect()
}

fn script(name: &'static str, flags: &str, parts: &[&str]) -> Script {
    // Only a submit is refused when Redis is out of memory: all other scripts must work, or no memory would be freed.
    let constants = constants();
    let body = used(&[&[constants.as_str()], parts].concat());
    // Of all parts: a submit of a batch is followed by its items, whose script must not be the first to be refused.
    let text = format!("#!lua{flags}\n{}{body}", permissions::check(&parts.concat()));
    let sha = redis::Script::new(&text).get_hash().to_owned();
    let for_slots = text.replace("'PUBLISH'", "'SPUBLISH'");
    let sharded = redis::Script::new(&for_slots).get_hash().to_owned();
    Script { name, text, sha, sharded: (for_slots, sharded) }
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $flags:expr, [$($part:expr),*];)*) => {
        $(
            $(#[$doc])*
            pub(crate) static $constant: LazyLock<Script> = LazyLock::new(|| {
                script($name, $flags, &[BASE, $($part,)* include_str!(concat!("../lua/", $name, ".lua"))])
            });
        )*
        /// Every script.
        pub(crate) fn all() -> Vec<&'static Script> {
            vec![$(&*$constant),*]
        }
    };
}

const ALLOW_OOM: &str = " flags=allow-oom";
const NO_WRITES: &str = " flags=no-writes";

scripts! {
    SUBMIT = "submit", "", [FINISH, CREATE];
    ITEMS = "items", "", [FINISH];
    CLAIM = "claim", ALLOW_OOM, [TOKENS];
    RENEW = "renew", ALLOW_OOM, [CLOCK, TOKENS];
    SETTLE = "settle", ALLOW_OOM, [FINISH];
    REPORT = "report", ALLOW_OOM, [];
    PROMOTE = "promote", ALLOW_OOM, [];
    RECLAIM = "reclaim", ALLOW_OOM, [FINISH, CLOCK];
    RECOVER = "recover", ALLOW_OOM, [CLOCK];
    CANCEL = "cancel", ALLOW_OOM, [FINISH, CLOCK, include_str!("../lua/cancel_one.lua")];
    PAUSE = "pause", ALLOW_OOM, [];
    FORGET = "forget", ALLOW_OOM, [];
    RETRY = "retry", ALLOW_OOM, [FINISH, include_str!("../lua/retry_one.lua")];
    REMOVE = "remove", ALLOW_OOM, [CLOCK, RETENTION, include_str!("../lua/remove_one.lua")];
    CASCADE = "cascade", ALLOW_OOM, [
        FINISH, include_str!("../lua/cancel_one.lua"), include_str!("../lua/retry_one.lua"),
        include_str!("../lua/remove_one.lua"), LOSE_ONE
    ];
    LOSE = "lose", ALLOW_OOM, [FINISH, LOSE_ONE];
    SWEEP = "sweep", ALLOW_OOM, [CLOCK, RETENTION];
    REPAIR = "repair", ALLOW_OOM, [FINISH];
    MEND = "mend", ALLOW_OOM, [FINISH];
    MIGRATE = "migrate", ALLOW_OOM, [FINISH, LOSE_ONE];
    SCHEDULE = "schedule", ALLOW_OOM, [];
    TICK = "tick", "", [FINISH, CREATE, include_str!("../lua/cancel_one.lua")];
    GET = "get", NO_WRITES, [];
    LIST = "list", NO_WRITES, [PAGE];
    FINISHED = "finished", NO_WRITES, [PAGE];
    QUEUES = "queues", NO_WRITES, [];
    TOTALS = "totals", NO_WRITES, [];
}

/// The SHA-1 by which Redis knows the script of that name (`claim`, `settle`, …), as `redis-cli MONITOR` and a proxy in
/// between see it.
pub fn script_sha(name: &str) -> Option<&'static str> {
    all().into_iter().find(|script| script.name == name).map(|script| script.sha.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_the_definitions_that_it_uses() {
        let base = "-- The head.\nlocal a = 1\n-- Adds.\nlocal function add(x)\n  return x + a\nend\n\nlocal b, c = 2, 3\n\
                    if b then\n  c = a\nend\nlocal TABLE = {\n  'x',\n}\n";
        assert_eq!(definitions(base).concat(), base);
        assert_eq!(used(&[base, "-- b add\nreturn 5\n"]), "-- b add\nreturn 5\n");
        assert_eq!(used(&[base, "return TABLE"]), "local TABLE = {\n  'x',\n}\nreturn TABLE");
        let adds = "-- The head.\nlocal a = 1\n-- Adds.\nlocal function add(x)\n  return x + a\nend\n\nreturn add(1)";
        assert_eq!(used(&[base, "return add(1)"]), adds);
        let conditional = "-- The head.\nlocal a = 1\nlocal b, c = 2, 3\nif b then\n  c = a\nend\nreturn c";
        assert_eq!(used(&[base, "return c"]), conditional);
    }
}
