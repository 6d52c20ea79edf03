//! The work that the run's jobs do: a shell script that writes down each begin and end in a journal outside Redis.
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

/// The file that comes with a job, and the one that its run leaves of it.
pub const INPUT: &str = "input.txt";
pub const OUTPUT: &str = "output.txt";

/// Appends `begin <job> <token> <attempt> <pid> <worker's pid>` and `end <the same> <exit code>`, each in one write;
/// works for `seconds`, leaves the job's file with its token behind it, and fails its first attempt if told to.
const SCRIPT: &str = r#"
read -r payload
seconds=${payload#*'"seconds":"'}
seconds=${seconds%%'"'*}
number=${payload#*'"number":'}
number=${number%%[,\}]*}
code=0
case $payload in *'"fails":true'*) if [ "$LEASEHOLD_ATTEMPT" = 1 ]; then code=75; fi ;; esac
run="$LEASEHOLD_JOB_ID $LEASEHOLD_TOKEN $LEASEHOLD_ATTEMPT $$ $PPID"
echo "begin $run" >> "$1"
if [ "$seconds" != 0 ]; then sleep "$seconds"; fi
if [ -e in/input.txt ]; then { cat in/input.txt; printf ' %s' "$LEASEHOLD_TOKEN"; } > out/output.txt; fi
printf '{"result": {"number": %s, "token": %s}}\n' "$number" "$LEASEHOLD_TOKEN"
echo "end $run $code" >> "$1"
exit $code
"#;

const KINDS: &str = r#"
[kinds.chaos]
command = ["sh", "{dir}/work.sh", "{dir}/journal"]
max_attempts = 3
backoff = { first_ms = 50, factor = 1.0, max_ms = 50 }
"#;

/// The kind of the run's jobs.
pub const KIND: &str = "chaos";

/// Writes the kind and its script; returns the path of the kinds file.
pub fn write(folder: &Path) -> String {
    fs::write(folder.join("work.sh"), SCRIPT).unwrap();
    let kinds = folder.join("kinds.toml");
    fs::write(&kinds, KINDS).unwrap();
    kinds.to_string_lossy().into_owned()
}

/// What the script wrote.
pub struct Journal {
    path: PathBuf,
    read: Cell<u64>,
    ended: Cell<usize>,
}

/// One run of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub job: String,
    pub token: u64,
    pub attempt: u32,
    /// The worker that ran it.
    pub worker_pid: u32,
    /// The exit code, if it came so far.
    pub code: Option<u8>,
}

impl Journal {
    pub fn of(folder: &Path) -> Journal {
        Journal { path: folder.join("journal"), read: Cell::default(), ended: Cell::default() }
    }

    /// How many runs have ended well so far, one that was undone by a death included.
    pub fn ended(&self) -> usize {
        use std::os::unix::fs::FileExt;
        let Ok(file) = fs::File::open(&self.path) else { return 0 };
        let mut fresh = vec![0; 1 << 20];
        let count = file.read_at(&mut fresh, self.read.get()).unwrap();
        let whole = fresh[..count].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text = String::from_utf8_lossy(&fresh[..whole]);
        let ended = text.lines().filter(|line| line.starts_with("end ") && line.ends_with(" 0")).count();
        self.read.set(self.read.get() + whole as u64);
        self.ended.set(self.ended.get() + ended);
        self.ended.get()
    }

    /// All runs, in the order of their begins.
    pub fn runs(&self) -> Vec<Run> {
        runs(&fs::read_to_string(&self.path).unwrap())
    }
}

fn runs(text: &str) -> Vec<Run> {
    let mut runs: Vec<(&str, Run)> = Vec::new();
    let mut open = std::collections::HashMap::new();
    for line in text.lines() {
        if let Some(this) = line.strip_prefix("begin ") {
            let words: Vec<&str> = this.split(' ').collect();
            let [job, token, attempt, _, worker_pid] = words[..] else { panic!("no begin: {line}") };
            let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            let (token, worker_pid) = (number(token), number(worker_pid));
            let (attempt, worker_pid) = (number(attempt) as u32, worker_pid as u32);
            open.insert(this, runs.len());
            runs.push((this, Run { job: job.to_owned(), token, attempt, worker_pid, code: None }));
        } else {
            let end = line.strip_prefix("end ").and_then(|this| this.rsplit_once(' '));
            let (this, code) = end.unwrap_or_else(|| panic!("no line of ours: {line}"));
            let at = open.get(this).unwrap_or_else(|| panic!("an end without its begin: {line}"));
            runs[*at].1.code = Some(code.parse().unwrap());
        }
    }
    runs.into_iter().map(|(_, run)| run).collect()
}

/// The living processes whose command line names `word`.
pub fn processes_that_name(word: &str) -> Vec<String> {
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    commands.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(word)).collect()
}

#[test]
fn runs_are_read_with_their_ends() {
    let read = runs("begin a 7 1 100 50\nbegin b 8 2 101 50\nend a 7 1 100 50 75\n");
    let run = |job: &str, token, attempt, code| Run { job: job.into(), token, attempt, worker_pid: 50, code };
    assert_eq!(read, [run("a", 7, 1, Some(75)), run("b", 8, 2, None)]);
}
