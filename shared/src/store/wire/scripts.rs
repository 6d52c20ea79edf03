//! The scripts: each verb's Lua, together with the parts it includes.
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
const PAGE: &str = include_str!("../lua/page.lua");
const TOKENS: &str = include_str!("../lua/tokens.lua");
const CLOCK: &str = include_str!("../lua/clock.lua");
const LOSE_ONE: &str = include_str!("../lua/lose_one.lua");

/// The constants of `limits.rs` that the scripts need.
fn constants() -> String {
    let kept = Retention::default();
    format!(
        "local RESENT_MS = {}\n\
         local HISTORY_MAX, OPEN_MS, RECORD_VERSION, CLAIMED_MAX, WORKER_FORGET_MS, BATCH_BYTES_MAX, DEAD_WINDOW = {}, {}, {}, {}, {}, {}, {}\n\
         local TOKEN_MAX, NAMES_MAX, KINDS_WINDOW = {}, {}, {}\n\
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

fn script(name: &'static str, flags: &str, parts: &[&str]) -> Script {
    // Only a submit is refused when Redis is out of memory: all other scripts must work, or no memory would be freed.
    let body = parts.concat();
    let text = format!("#!lua{flags}\n{}{}{body}", permissions::check(&body), constants());
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
    SUBMIT = "submit", "", [FINISH];
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
