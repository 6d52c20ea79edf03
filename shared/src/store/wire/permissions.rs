//! What the user of `redis_url` must be allowed. A script cannot take back what it has written, so each checks before
//! its first command whether the user may run all of its commands.
//!
//! Messages are an exception: they are hints, and a script goes on without them. [`REQUIRED`] checks them at the start.
use std::sync::LazyLock;

use super::keys;

/// How many keys a command is checked with.
const WITH_TWO_KEYS: [&str; 2] = ["RENAME", "RPOPLPUSH"];

/// Every command of the scripts, except those that publish.
pub(super) const COMMANDS: [&str; 45] = [
    "DEL",
    "EXISTS",
    "GET",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HINCRBY",
    "HLEN",
    "HMGET",
    "HRANDFIELD",
    "HSET",
    "HSETNX",
    "HSTRLEN",
    "LINDEX",
    "LLEN",
    "LPOS",
    "LPUSH",
    "LRANGE",
    "LREM",
    "LTRIM",
    "PEXPIRE",
    "RENAME",
    "RPOPLPUSH",
    "RPUSH",
    "SADD",
    "SCARD",
    "SET",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SREM",
    "SUNION",
    "TIME",
    "TYPE",
    "ZADD",
    "ZCARD",
    "ZCOUNT",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZREM",
    "ZREMRANGEBYSCORE",
    "ZREVRANGE",
    "ZSCORE",
    "SRANDMEMBER",
];

/// The Lua at the head of a script: it ends the script with NOPERM when the user lacks one of the commands in `text`.
pub(super) fn check(text: &str) -> String {
    let used = COMMANDS.iter().filter(|command| text.contains(&format!("'{command}'")));
    let each: Vec<String> = used.map(|command| arguments(command, "KEYS[1]")).collect();
    let all: Vec<String> = each.iter().map(|arguments| format!("may({arguments})")).collect();
    format!(
        "local may = redis.acl_check_cmd\n\
         if may and not ({}) then\n\
         for _, command in ipairs({{ {{ {} }} }}) do\n\
         if not may(unpack(command)) then\n\
         return redis.error_reply('NOPERM it may not run ' .. command[1] .. ' on ' .. KEYS[1])\n\
         end\n\
         end\nend\n",
        all.join(" and "),
        each.join(" }, { ")
    )
}

fn arguments(command: &str, key: &str) -> String {
    match command {
        "TIME" => "'TIME'".to_owned(),
        _ if WITH_TWO_KEYS.contains(&command) => format!("'{command}', {key}, {key}"),
        _ => format!("'{command}', {key}"),
    }
}

/// A script without keys that returns what the user lacks, as the commands it may not run.
pub(crate) static REQUIRED: LazyLock<String> = LazyLock::new(|| {
    let (key, channel) = (&format!("'{}'", keys::prefix(0)), format!("'{}'", keys::fixed(0, "hints")));
    let mut each: Vec<String> = COMMANDS.iter().map(|command| arguments(command, key)).collect();
    each.push(format!("'BRPOPLPUSH', {key}, {key}, '0'"));
    each.push("'SCAN', '0'".to_owned());
    each.extend(["HSCAN", "SSCAN", "ZSCAN"].map(|command| format!("'{command}', {key}, '0'")));
    each.extend(["PUBLISH", "SPUBLISH"].map(|command| format!("'{command}', {channel}, ''")));
    each.extend(["SUBSCRIBE", "SSUBSCRIBE"].map(|command| format!("'{command}', {channel}")));
    format!(
        "local lacking = {{}}\n\
         for _, command in ipairs(redis.acl_check_cmd and {{ {{ {} }} }} or {{}}) do\n\
         if not redis.acl_check_cmd(unpack(command)) then\n\
         lacking[#lacking + 1] = command[1] .. ' ' .. (command[2] or '')\n\
         end\n\
         end\nreturn lacking",
        each.join(" }, { ")
    )
});

#[cfg(test)]
mod tests {
    use super::COMMANDS;
    use crate::store::wire::scripts;

    #[test]
    fn every_command_of_every_script_is_checked() {
        let words = [
            "LIMIT",
            "WITHSCORES",
            "WITHVALUES",
            "WRONGTYPE",
            "REV",
            "BYSCORE",
            "PUBLISH",
            "NX",
            "PX",
            "TYPE",
            "RANK",
            "MAXLEN",
        ];
        for script in scripts::all() {
            for word in script.text.split('\'').skip(1).step_by(2) {
                let is_command = !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
                assert!(!is_command || COMMANDS.contains(&word) || words.contains(&word), "{}: {word}", script.name);
            }
        }
    }
}
