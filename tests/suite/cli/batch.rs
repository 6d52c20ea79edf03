//! `jobs submit --items`: batches from files and pipes, of any length, with bad lines, and cut off half-way.
use std::fmt::Write;
use std::fs;
use std::path::Path;

use leasehold_tests::{Process, System, eventually};
use serde_json::Value;

use super::{SOON, fails, json};

/// Runs a shell script in which `$leasehold` is the command.
async fn shell(system: &System, script: &str) -> Process {
    let (leasehold, url) = (super::leasehold(), system.redis().url());
    let variables = [("LEASEHOLD_REDIS_URL", url.as_str()), ("leasehold", leasehold.as_str())];
    let process = Process::start(Path::new("bash"), &["-c", script], &variables);
    process.wait_exit(SOON).await;
    process
}

#[tokio::test]
async fn twenty_thousand_items_go_in_straight_on_redis_in_little_memory() {
    let system = System::start(&[]).await;
    submit_many(&system, "").await;
    system.finish().await;
}

#[tokio::test]
async fn twenty_thousand_items_go_in_over_http_in_little_memory() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    submit_many(&system, &format!("--api {}", api.url(""))).await;
    drop(api);
    system.finish().await;
}

async fn submit_many(system: &System, door: &str) {
    let mut lines = String::new();
    for n in 0..20_000 {
        writeln!(lines, "{{\"n\": {n}, \"text\": \"{}\"}}", "x".repeat(1_000)).unwrap();
    }
    let file = system.folder().join("items.jsonl").display().to_string();
    fs::write(&file, lines).unwrap();
    // The peak of its memory is read while it waits for a job that nobody runs.
    let script = format!("{} jobs submit --kind count --items {file} {door} --wait 60s", super::leasehold());
    let url = system.redis().url();
    let process = Process::start(Path::new("bash"), &["-c", &script], &[("LEASEHOLD_REDIS_URL", &url)]);
    let id = eventually(SOON, "the batch is complete", async || {
        let id = process.stdout().trim().to_owned();
        (!id.is_empty()).then_some(id).ok_or(process.stderr())
    })
    .await;
    let peak = peak_bytes(process.pid());
    assert!(peak < 60 << 20, "it took {peak} bytes");
    let batch = json(system, &["jobs", "show", &id]).await;
    assert_eq!((&batch["items"]["total"], &batch["items"]["open"]), (&20_000.into(), &false.into()));
    let first = json(system, &["jobs", "ls", "--parent", &id, "--limit", "1"]).await;
    assert_eq!(first["jobs"][0]["payload"]["n"], 0);
    process.kill9();
}

/// The most memory a process, or its only child, has had.
fn peak_bytes(pid: u32) -> u64 {
    let child = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let pid = child.split_whitespace().next().map_or(pid, |child| child.parse().unwrap());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_of_its_file_is_submitted() {
    let system = System::start(&[("LEASEHOLD_LIMITS__PAYLOAD_BYTES", "100")]).await;
    let api = system.api(&[]).await;
    let file = system.folder().join("items.jsonl").display().to_string();
    let submit = ["jobs", "submit", "--kind", "count", "--items", &file];
    for (bad, said) in [("{oops}", "line 3: not valid JSON"), ("\u{0}", "line 3: not valid JSON")] {
        fs::write(&file, format!("1\n\n{bad}\n2\n")).unwrap();
        fails(&system, 2, &submit, said).await;
        fails(&system, 2, &[&submit[..], &["--api", &api.url("")]].concat(), said).await;
    }
    fs::write(&file, b"1\n\xff\n").unwrap();
    fails(&system, 2, &submit, "line 2: it is not UTF-8").await;
    fs::write(&file, format!("1\n\"{}\"\n", "x".repeat(200))).unwrap();
    fails(&system, 2, &submit, "line 2: 202 bytes of compact JSON; at most 100").await;
    fs::write(&file, " \n\n").unwrap();
    fails(&system, 2, &submit, "has no items; nothing was submitted").await;
    fails(&system, 2, &[&submit[..5], &["/no/such"]].concat(), "--items: /no/such: No such file").await;
    assert!(json(&system, &["jobs", "ls"]).await["jobs"].as_array().unwrap().is_empty(), "nothing was submitted");
    // What the command line cannot know, the API refuses by its own limits: the line is named all the same.
    fs::write(&file, format!("1\n\"{}\"\n", "x".repeat(200))).unwrap();
    let said = "line 2: 202 bytes of compact JSON; at most 100";
    let refused = fails(&system, 2, &[&submit[..], &["--api", &api.url("")]].concat(), said).await;
    assert!(refused.stderr.contains("is cancelled"), "{refused:?}");
    drop(api);
    system.finish().await;
}

#[tokio::test]
async fn a_bad_line_from_a_pipe_cancels_what_was_submitted_before_it() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    for door in [String::new(), format!("--api {}", api.url(""))] {
        let script = format!("(seq 1 4500; echo oops) | $leasehold jobs submit --kind count --items - {door}");
        let process = shell(&system, &script).await;
        let said = process.stderr();
        assert!(said.contains("standard input, line 4501: not valid JSON"), "{said}");
        assert!(said.contains("with the lines before it is cancelled"), "{said}");
        assert_eq!(process.exit_status().unwrap().code(), Some(2));
        let id = said.split("; batch ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let batch = json(&system, &["jobs", "show", &id]).await;
        // A large one is still being cancelled.
        let ends = batch["state"] == "cancelled" || batch["cancel_requested"] == true;
        assert!(ends && batch["items"]["open"] == false, "{batch}");
    }
    drop(api);
    system.finish().await;
}

#[tokio::test]
async fn a_batch_that_was_cut_off_goes_on_with_the_same_command() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    let file = system.folder().join("items.jsonl").display().to_string();
    fs::write(&file, (0..9_000).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    for door in [String::new(), format!("--api {}", api.url(""))] {
        let key = format!("key-{}", door.len());
        let submit = format!("$leasehold jobs submit --kind count --idempotency-key {key} -o json {door} --items");
        // The pipe gives two parts and then no more, and the command is killed with the batch open.
        let script = format!("timeout -s KILL 2 {submit} - < <(head -n 5000 {file}; sleep 3)");
        let cut = shell(&system, &script).await;
        assert_eq!(cut.stdout(), "");
        let open = json(&system, &["jobs", "ls", "--kind", "count", "--limit", "1"]).await["jobs"][0].clone();
        assert_eq!((&open["items"]["open"], &open["items"]["total"]), (&true.into(), &2_000.into()), "{open}");
        for _ in 0..2 {
            let process = shell(&system, &format!("{submit} {file}")).await;
            let batch: Value =
                serde_json::from_str(&process.stdout()).unwrap_or_else(|_| panic!("{}", process.stderr()));
            assert_eq!((&batch["id"], &batch["items"]["open"]), (&open["id"], &false.into()));
            assert_eq!(batch["items"]["total"], 9_000);
        }
        fs::write(system.folder().join("longer"), "1\n".repeat(9_001)).unwrap();
        let longer = shell(&system, &format!("{submit} {}/longer", system.folder().display())).await;
        assert!(longer.stderr().contains("the batch is sealed with 9000 items"), "{}", longer.stderr());
        let batch = json(&system, &["jobs", "show", open["id"].as_str().unwrap()]).await;
        assert_eq!(batch["cancel_requested"], false, "a complete batch is left as it is");
    }
    drop(api);
    system.finish().await;
}
