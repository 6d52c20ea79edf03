//! Rows in which the append-only file is damaged.
use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use super::*;
use crate::steered_command::{Work, submit};

/// The file that Redis appends to.
fn appended(redis: &RedisServer) -> PathBuf {
    let folder = redis.process().folder().join("appendonlydir");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".incr.aof"));
    files.sort();
    files.pop().expect("Redis appends to a file")
}

/// Writes the append-only file anew.
async fn rewrite(redis: &RedisServer) {
    redis.command::<String>(&["BGREWRITEAOF"]).await;
    eventually(STALL, "the file is written anew", async || {
        let info: String = redis.command(&["INFO", "persistence"]).await;
        let is_done = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_last_bgrewrite_status:ok"];
        is_done.iter().all(|line| info.contains(line)).then_some(()).ok_or(info)
    })
    .await;
}

#[tokio::test]
async fn row_23_the_tail_of_the_aof_is_lost() {
    let injected = "SIGKILL, `truncate` by 1, 100 and 5,000 bytes, start";
    let row = Row { number: 23, fault: "tail of the AOF cut off", injected, load_s: 8, ..Row::default() };
    let faults = async |fleet: &Fleet, begun: Instant| {
        let (redis, mut struck) = (fleet.system.redis(), Vec::new());
        for bytes in [1, 100, 5_000] {
            let at = begun.elapsed();
            redis.kill9();
            let path = appended(redis);
            let length = fs::metadata(&path).unwrap().len();
            OpenOptions::new().write(true).open(path).unwrap().set_len(length - bytes).unwrap();
            redis.restart().await;
            // Else the next start applies what is left of the script that was cut, as docs/operating.md says.
            rewrite(redis).await;
            let fault = Fault { at, row: 23, way: Way::Kill, target: Target::Redis, lasts: Duration::ZERO };
            struck.push(Struck { fault, workers: Vec::new(), at, back_at: begun.elapsed() });
            sleep(Duration::from_millis(1_500)).await;
        }
        struck
    };
    let (evidence, _) = row.measure(&[], None, faults).await;
    let violations = evidence.violations_after_a_rollback();
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(evidence.lost().len() <= 40, "5,101 bytes were lost, and {} jobs", evidence.lost().len());
}

#[tokio::test]
async fn the_doctor_mends_a_job_whose_submit_was_cut_in_the_file() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    let id = submit(&api, "step").await;
    let redis = work.system.redis();
    redis.kill9();
    let path = appended(redis);
    let bytes = fs::read(&path).unwrap();
    let cut = bytes.windows(5).rposition(|window| window == b"LPUSH").expect("the submit pushes the id");
    fs::write(&path, &bytes[..cut]).unwrap();
    redis.restart().await;
    eventually(STALL, "the job is gone", async || {
        let answer = api.get(&format!("/api/v1/jobs/{id}")).await;
        (answer.status == 404).then_some(()).ok_or(answer.text)
    })
    .await;
    let worker = work.system.worker(&[]);
    work.completed(&submit(&api, "step").await).await;
    redis.kill9();
    redis.restart().await;
    work.completed(&submit(&api, "step").await).await;
    // Whether Redis applies the half is up to its version; the doctor leaves it in no case.
    work.system.command(&["doctor", "--repair"], &[]).await;
    let exists: bool = redis.command(&["EXISTS", &format!("lh:{{0}}:job:{id}")]).await;
    if exists {
        work.completed(&id).await;
    }
    drop(worker);
    work.system.finish().await;
}

#[tokio::test]
async fn row_24_the_middle_of_the_aof_is_corrupted() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(submit(&api, "step").await);
    }
    for id in &ids {
        work.completed(id).await;
    }
    let redis = work.system.redis();
    redis.kill9();
    let (path, is_length) = (appended(redis), |window: &[u8]| window == b"\r\n$");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2 + bytes[bytes.len() / 2..].windows(3).position(is_length).unwrap() + 2;
    bytes[at] = b'#';
    fs::write(&path, &bytes).unwrap();
    redis.process().restart();
    let status = redis.process().wait_exit(TRUTH + STALL).await;
    assert!(!status.success() && redis.process().stdout().contains("Bad file format"), "{status}");
    says(&api, 503, "redis_unavailable").await;
    // As from a copy of the file.
    bytes[at] = b'$';
    fs::write(&path, &bytes).unwrap();
    let begun = Instant::now();
    redis.restart().await;
    for id in &ids {
        assert_eq!((work.completed(id).await.attempt, work.count("begin", id)), (1, 1));
    }
    let injected = "a byte of its middle changed; Redis refuses to start until the file is restored";
    table::line(24, "AOF corrupted in the middle", injected, [20, 1, 0, 0], Some(begun.elapsed()));
    work.system.finish().await;
}
