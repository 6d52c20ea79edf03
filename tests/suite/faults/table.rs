//! The table of docs/faults.md: what each row did, and the tests that hold the rows without a trial.
use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use leasehold_tests::chaos::verdict::Figures;

use super::Row;

/// A folder into which each row writes its line.
const TABLE_VARIABLE: &str = "LEASEHOLD_FAULTS_TABLE";

/// Rows that are held by tests elsewhere in the suite: the row, the fault, the tests.
const ELSEWHERE: [(u8, &str, &[&str]); 21] = [
    (
        3,
        "kill -9 of a worker between reservation and lease",
        &["crash_points::a_worker_killed_between_reservation_and_lease_costs_the_job_nothing"],
    ),
    (
        16,
        "lost reply to a claim",
        &[
            "crash_points::a_pop_whose_reply_was_lost_is_recovered",
            "crash_points::a_claim_whose_reply_was_lost_is_sent_again_and_gets_the_same_job",
        ],
    ),
    (18, "a request that arrives twice", &["crash_points::a_settle_that_reached_redis_twice_has_one_effect"]),
    (
        26,
        "wrong eviction policy at the start, or later",
        &[
            "start::a_redis_that_would_lose_jobs_is_refused",
            "truth::a_redis_that_would_lose_jobs_now_accepts_no_more_of_them",
        ],
    ),
    (31, "CPU-bound handler on all threads", &["crash_points::a_handler_that_hogs_every_thread_loses_no_lease"]),
    (
        32,
        "handler ignores its cancel",
        &["worker_robustness::a_worker_whose_slots_are_all_held_by_what_its_handlers_left_behind_ends"],
    ),
    (38, "`FLUSHALL`", &["crash_points::a_redis_emptied_under_live_processes_is_reported_and_worked_on"]),
    (
        39,
        "keys of another type",
        &["store::wrong_types_are_set_aside_and_stop_nobody", "doctor::reads_go_on_over_keys_of_another_type"],
    ),
    (40, "damaged records", &["doctor::a_record_that_cannot_be_read_is_set_aside_and_its_neighbour_runs"]),
    (40, "records of an unknown version", &["upgrade::two_versions_work_side_by_side"]),
    (
        42,
        "failover, writes lost",
        &[
            "sentinel::every_job_in_sync_completes_whatever_way_the_master_is_lost",
            "lease_tokens::a_redis_that_continues_from_an_earlier_copy_issues_no_token_twice",
        ],
    ),
    (43, "planned failover", &["sentinel::every_job_in_sync_completes_whatever_way_the_master_is_lost"]),
    (46, "rolling upgrade", &["upgrade::two_versions_work_side_by_side"]),
    (47, "SIGTERM with long jobs", &["running_jobs::a_shutdown_gives_back_what_does_not_end_in_time_uncharged"]),
    (
        48,
        "two signals",
        &["running_jobs::a_second_signal_gives_back_at_once", "api::start_stop::a_second_signal_ends_it_at_once"],
    ),
    (49, "stalled event streams", &["api::events::who_does_not_read_is_dropped_and_keeps_nobody_waiting"]),
    (
        50,
        "slow heads and bodies, idle connections, huge bodies",
        &[
            "api::hostile::a_head_that_does_not_come_is_given_up",
            "api::hostile::a_body_that_stops_coming_is_answered_408",
            "api::hostile::idle_connections_keep_nobody_out",
            "api::hostile::large_bodies_at_once_are_bounded_in_memory",
        ],
    ),
    (51, "100 submits of one key at once", &["api::idempotency::a_hundred_concurrent_submits_of_one_key_make_one_job"]),
    (
        52,
        "three schedulers, daylight saving",
        &[
            "schedules::every_second_has_its_job_while_workers_and_apis_are_killed",
            "schedules::fixed_hours_run_once_over_both_changes_of_clocks",
        ],
    ),
    (
        53,
        "file descriptors exhausted",
        &[
            "api::hostile::running_out_of_files_is_survived",
            "worker_robustness::a_worker_that_may_open_no_file_tries_again_and_charges_no_job",
        ],
    ),
    (
        54,
        "several faults at once, by a seed",
        &["chaos::row_54_every_acknowledged_job_ends_once_whatever_is_struck_on_four_partitions"],
    ),
];

/// Writes the line of a row that was tried under load.
pub fn record(row: &Row, figures: &Figures, recovered: Option<Duration>) {
    let Figures { acknowledged, executions, lost, stuck } = *figures;
    line(row.number, row.fault, row.injected, [acknowledged, executions, lost, stuck], recovered);
}

/// Writes a line: jobs, the most executions of one, lost, stuck, and the time until all were final.
pub fn line(number: u8, fault: &str, injected: &str, figures: [usize; 4], recovered: Option<Duration>) {
    let recovery = recovered.map_or("never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
    let [jobs, executions, lost, stuck] = figures;
    write(number, &format!("{fault} | {injected} | {jobs} | {executions} | {lost} | {stuck} | {recovery}"));
}

/// Writes that a row did not run, and for want of what.
pub fn not_run(number: u8, fault: &str, want: &str) {
    println!("row {number} NOT RUN: it needs {want}");
    write(number, &format!("{fault} | NOT RUN: it needs {want} | | | | |"));
}

fn write(number: u8, cells: &str) {
    let Some(folder) = env::var_os(TABLE_VARIABLE) else { return };
    let path = Path::new(&folder).join(format!("{number:02}"));
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("| {number} | {cells} |\n").as_bytes()).unwrap();
}

#[test]
fn the_rows_of_other_tests_are_in_the_table() {
    for (number, fault, tests) in ELSEWHERE {
        let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
        write(number, &format!("{fault} | {} | | | | |", tests.join(", ")));
    }
}

#[test]
fn every_row_has_a_test_or_says_why_not() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("suite");
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (.., tests) in ELSEWHERE {
        for test in tests {
            let (module, name) = test.rsplit_once("::").unwrap();
            let path = suite.join(format!("{}.rs", module.replace("::", "/")));
            assert!(read(&path).contains(&format!("fn {name}(")), "{test} is not there");
        }
    }
    let folder = std::fs::read_dir(suite.join("faults")).unwrap();
    let sources: String = folder.map(|entry| read(&entry.unwrap().path())).collect();
    for number in 1..=54_u8 {
        let is_elsewhere = ELSEWHERE.iter().any(|row| row.0 == number);
        let here = sources.contains(&format!("fn row_{number:02}_"));
        assert!(here || is_elsewhere, "row {number} has no test");
    }
}
