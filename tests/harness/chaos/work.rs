//! The work that the run's jobs do: a shell script that writes down each begin and end in a journal outside Redis.
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

/// The file that comes with a job, and the one that its run leaves of it.
pub const INPUT: &str = "input.txt";
pub const OUTPUT: &str = "output.txt";

/// Appends `begin <job> <token> <attempt> <pid> <worker's pid> <uptime>` and `end <the same> <exit code> <uptime>`,
/// each in one write; works for `seconds`, leaves the job's file with its token behind it, and fails its first
/// attempt if told to.
const SCRIPT: &str = r#"
read -r payload
seconds=${payload#*'"seconds":"'}
seconds=${seconds%%'"'*}
number=${payload#*'"number":'}
number=${number%%[,\}]*}
code=0
case $payload in *'"fails":true'*) if [ "$LEASEHOLD_ATTEMPT" = 1 ]; then code=75; fi ;; esac
read -r uptime idle < /proc/uptime
run="$LEASEHOLD_JOB_ID $LEASEHOLD_TOKEN $LEASEHOLD_ATTEMPT $$ $PPID $uptime"
echo "begin $run" >> "$1"
if [ "$seconds" != 0 ]; then sleep "$seconds"; fi
if [ -e in/input.txt ]; then { cat in/input.txt; printf ' %s' "$LEASEHOLD_TOKEN"; } > out/output.txt; fi
printf '{"result": {"number": %s, "token": %s}}\n' "$number" "$LEASEHOLD_TOKEN"
read -r uptime idle < /proc/uptime
echo "end $run $code $uptime" >> "$1"
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
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub job: String,
    pub token: u64,
    pub attempt: u32,
    /// The worker that ran it.
    pub worker_pid: u32,
    /// When it began, by the machine's uptime, s.
    pub begun: f64,
    /// The exit code, if it came so far.
    pub code: Option<u8>,
    /// When it ended, by the machine's uptime, s; infinite: nobody knows.
    pub ended: f64,
}

/// The machine's uptime, s.
pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("the kernel writes a number")
}

fn has_ended_well(line: &str) -> bool {
    line.starts_with("end ") && line.rsplit(' ').nth(1) == Some("0")
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
        let ended = text.lines().filter(|line| has_ended_well(line)).count();
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
            let [job, token, attempt, _, worker_pid, begun] = words[..] else { panic!("not a begin: {line}") };
            let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
            let (token, worker_pid) = (number(token), number(worker_pid) as u32);
            let (attempt, begun) = (number(attempt) as u32, begun.parse().expect("the kernel writes a number"));
            open.insert(this, runs.len());
            let (code, ended) = (None, f64::INFINITY);
            runs.push((this, Run { job: job.to_owned(), token, attempt, worker_pid, begun, code, ended }));
        } else {
            let end = line.strip_prefix("end ").and_then(|this| this.rsplit_once(' '));
            let end = end.and_then(|(this, ended)| Some((this.rsplit_once(' ')?, ended)));
            let ((this, code), ended) = end.unwrap_or_else(|| panic!("not a line of ours: {line}"));
            let at = open.get(this).unwrap_or_else(|| panic!("an end without its begin: {line}"));
            let run = &mut runs[*at].1;
            (run.code, run.ended) = (Some(code.parse().unwrap()), ended.parse().unwrap());
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
    let read = runs("begin a 7 1 100 50 1.5\nbegin b 8 2 101 50 2.5\nend a 7 1 100 50 1.5 75 3.5\n");
    let run = |job: &str, token, attempt, begun, code, ended| Run {
        job: job.into(),
        token,
        attempt,
        worker_pid: 50,
        begun,
        code,
        ended,
    };
    assert_eq!(read, [run("a", 7, 1, 1.5, Some(75), 3.5), run("b", 8, 2, 2.5, None, f64::INFINITY)]);
    assert!(has_ended_well("end a 7 1 100 50 1.5 0 3.5") && !has_ended_well("end a 7 1 100 50 1.5 75 3.5"));
}
