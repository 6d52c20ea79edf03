//! Finds processes that a command has started and that have left its process group, for example by `setsid`.
//!
//! They are known by the variable [`MARK`], which they inherit, or by their working directory. A process that hides
//! both is not found.
use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable with the path of an attempt's scratch folder, which no other attempt has.
pub(super) const MARK: &str = "LEASEHOLD_SCRATCH";
/// Bytes of a process's environment that are read.
const ENVIRONMENT_BYTES_MAX: u64 = 4 << 20;
/// How often to look again for processes that were started meanwhile, and how long to wait before.
const ROUNDS_MAX: usize = 100;
const AGAIN_AFTER: Duration = Duration::from_millis(2);
/// For so long no process that was started after another one has a smaller id, unless the ids have begun again at 1.
const IDS_INCREASE_FOR: Duration = Duration::from_secs(10);

/// Kills all processes that an attempt has started in its scratch folder and that still run; returns how many. Blocks.
/// `leader` is the command itself, started at `started_at`.
pub(super) fn kill_all(scratch: &Path, leader: Pid, started_at: Instant) -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let found = find(scratch, leader, started_at);
        if found.is_empty() {
            break;
        }
        for pid in found {
            if kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
                killed.insert(pid);
            }
        }
        std::thread::sleep(AGAIN_AFTER);
    }
    killed.len()
}

fn find(scratch: &Path, leader: Pid, started_at: Instant) -> Vec<i32> {
    let mut mark = [MARK.as_bytes(), b"=", scratch.as_os_str().as_bytes()].concat();
    mark.push(0);
    // Only younger processes can be the command's: most are older, and need not be read.
    let oldest = if started_at.elapsed() < IDS_INCREASE_FOR && last_id().is_some_and(|last| last >= leader.as_raw()) {
        leader.as_raw()
    } else {
        1
    };
    let own = std::process::id().cast_signed();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|pid| *pid > oldest && *pid != own && is_of(*pid, scratch, &mark)).collect()
}

/// The id of the newest process.
fn last_id() -> Option<i32> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().last()?.parse().ok()
}

fn is_of(pid: i32, scratch: &Path, mark: &[u8]) -> bool {
    let mut environment = Vec::new();
    let read = std::fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment));
    let has_mark = || environment.split_inclusive(|byte| *byte == 0).any(|variable| variable == mark);
    let is_within = || std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.starts_with(scratch));
    (read.is_ok() && has_mark()) || is_within()
}
