//! Schedules: each tick once, in time, whoever dies; and what is done with late ticks and with jobs that take long.
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use leasehold::schedule::{DeclaredIn, Plan};
use leasehold::store::{ListQuery, Ticked, script_sha};
use leasehold::{Error, Job, JobId, Kinds, Refusal, Schedule, ScheduleName, State, Store, Timestamp};
use leasehold_tests::proxy::Command;
use leasehold_tests::{Proxy, System, Then, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::clocked_store::*;

const LIMIT: Duration = Duration::from_secs(60);

fn name(text: &str) -> ScheduleName {
    ScheduleName::parse(text).unwrap()
}

fn plan(mut fields: Value) -> Plan {
    let missing = [("kind", json!("work")), ("payload", json!({"n": 1}))];
    for (field, value) in missing {
        fields.as_object_mut().unwrap().entry(field).or_insert(value);
    }
    serde_json::from_str(&fields.to_string()).unwrap()
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

impl Ground {
    fn set(&self, to: Timestamp) {
        self.advance(to.0 - self.now());
    }

    async fn schedule(&self, of: &str, fields: Value) -> Schedule {
        self.store.put_schedule(&name(of), &plan(fields), false, DeclaredIn::Api, &Kinds::default()).await.unwrap().0
    }

    /// What a look of every sweeper at the schedules does.
    async fn tick(&self) -> Ticked {
        let mut all = Ticked::default();
        for partition in 0..self.store.partitions() {
            let ticked = self.store.tick(partition, &Kinds::default()).await.unwrap();
            all.submitted.extend(ticked.submitted);
            all.skipped += ticked.skipped;
            all.next_in = [all.next_in, ticked.next_in].into_iter().flatten().min();
        }
        all
    }

    /// The ticks for which there are jobs now, as hours and minutes of a day.
    async fn ticked(&self) -> Vec<String> {
        let jobs = self.jobs(&self.tick().await.submitted).await;
        jobs.iter().map(|job| job.scheduled_for.unwrap().to_string()[..16].to_owned()).collect()
    }

    async fn next_of(&self, of: &str) -> Option<Timestamp> {
        self.store.schedule(&name(of)).await.unwrap().unwrap().standing.next_run_at
    }

    async fn jobs(&self, ids: &[JobId]) -> Vec<Job> {
        self.store.get_many(ids).await.unwrap().into_iter().map(Option::unwrap).collect()
    }

    /// Completes every job that is queued.
    async fn complete_all(&self) {
        for job in self.claim("w1", 200).await {
            self.store.settle(&worker("w1"), complete(&job.held)).await.unwrap();
        }
    }
}

on_ground! {
    async fn each_tick_is_one_job_however_many_sweep(g: &Ground) {
        g.set(time("2027-03-01T00:00:10Z"));
        let made = g.schedule("by-the-minute", json!({"cron": "* * * * *", "overlap": "allow"})).await;
        assert_eq!(made.standing.next_run_at, Some(time("2027-03-01T00:01:00Z")));
        assert_eq!(g.tick().await.submitted, []);
        for minute in 1..=3 {
            g.set(time(&format!("2027-03-01T00:0{minute}:00Z")));
            let looks = join_all((0..20).map(|_| g.tick())).await;
            let submitted: Vec<JobId> = looks.into_iter().flat_map(|ticked| ticked.submitted).collect();
            assert_eq!(submitted.len(), 1);
            let job = &g.jobs(&submitted).await[0];
            assert_eq!(job.scheduled_for, Some(time(&format!("2027-03-01T00:0{minute}:00Z"))));
            assert_eq!((job.schedule.clone(), job.state), (Some(name("by-the-minute")), State::Queued));
            assert_eq!(job.payload.as_str(), "{\"n\":1}");
            let now = g.store.schedule(&name("by-the-minute")).await.unwrap().unwrap().standing;
            assert_eq!((now.last_job, now.last_run_at), (Some(submitted[0].clone()), job.scheduled_for));
            assert_eq!(now.next_run_at, Some(time(&format!("2027-03-01T00:0{}:00Z", minute + 1))));
        }
    }

    async fn a_tick_whose_reply_was_lost_is_not_done_again(g: &Ground) {
        g.schedule("hourly", json!({"every_ms": 60_000, "overlap": "allow"})).await;
        g.advance(60_000);
        let submitted = g.tick().await.submitted;
        // The schedule as an older copy of Redis has it; its job exists already.
        let partition = g.store.partition_of(&submitted[0]);
        let tick = g.jobs(&submitted).await[0].scheduled_for.unwrap().0.to_string();
        for command in [
            ["HSET", &format!("lh:{{{partition}}}:schedule:hourly"), "next", &tick],
            ["ZADD", &format!("lh:{{{partition}}}:schedules"), &tick, "hourly"],
        ] {
            let () = g.redis.command(&command).await;
        }
        assert_eq!(g.tick().await.submitted, []);
        g.advance(60_000);
        assert_eq!(g.tick().await.submitted.len(), 1);
    }

    async fn fixed_hours_run_once_over_both_changes_of_clocks(g: &Ground) {
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
        g.set(time("2027-10-01T00:00:00Z"));
        for (number, zone) in zones.iter().enumerate() {
            let fields = json!({"cron": "30 2 * * *", "time_zone": zone, "overlap": "allow", "catch_up": "all"});
            g.schedule(&format!("zone{number}"), fields).await;
        }
        let mut days: BTreeMap<String, usize> = BTreeMap::new();
        // 200 days, over both changes of all of them.
        for _ in 0..400 {
            g.advance(43_200_000);
            for job in g.jobs(&g.tick().await.submitted).await {
                *days.entry(job.schedule.unwrap().to_string()).or_default() += 1;
            }
        }
        let counts: Vec<usize> = days.into_values().collect();
        assert_eq!(counts, [200; 3]);
    }

    async fn a_job_that_takes_long_is_skipped_run_beside_or_replaced(g: &Ground) {
        for overlap in ["skip", "allow", "replace"] {
            g.schedule(overlap, json!({"every_ms": 60_000, "overlap": overlap})).await;
        }
        g.advance(60_000);
        let first = g.tick().await.submitted;
        assert_eq!(first.len(), 3);
        g.advance(60_000);
        let second = g.tick().await;
        assert_eq!((second.submitted.len(), second.skipped), (2, 1));
        let states = join_all(first.iter().map(|id| g.state(id))).await;
        assert_eq!(states.iter().filter(|state| **state == State::Cancelled).count(), 1, "that of `replace`");
        let skip = g.store.schedule(&name("skip")).await.unwrap().unwrap().standing;
        assert_eq!(skip.last_skipped_at.map(|at| at.0), skip.last_run_at.map(|at| at.0 + 60_000));
        g.complete_all().await;
        g.advance(60_000);
        assert_eq!(g.tick().await.submitted.len(), 3);
    }

    async fn late_ticks_are_done_as_catch_up_says(g: &Ground) {
        g.set(time("2027-03-01T00:30:00Z"));
        for catch_up in ["one", "none", "all"] {
            g.schedule(catch_up, json!({"cron": "0 * * * *", "catch_up": catch_up, "overlap": "allow"})).await;
        }
        g.set(time("2027-03-01T04:20:00Z"));
        let mut ticked = g.ticked().await;
        ticked.sort();
        let all = ["01", "02", "03", "04", "04"].map(|hour| format!("2027-03-01T{hour}:00"));
        assert_eq!(ticked, all);
        g.set(time("2027-03-01T05:00:09Z"));
        assert_eq!(g.ticked().await.len(), 3, "it is on time");
        g.set(time("2027-03-09T00:00:00Z"));
        assert_eq!(g.ticked().await.len(), 100 + 1 + 1, "of `all` the last hundred; midnight is on time");
    }

    async fn a_schedule_is_paused_resumed_written_again_and_removed(g: &Ground) {
        let every = json!({"every_ms": 60_000, "overlap": "allow"});
        let made = g.schedule("s", every.clone()).await.standing;
        g.advance(30_000);
        let again = g.schedule("s", every.clone()).await.standing;
        assert_eq!((again.next_run_at, again.created_at), (made.next_run_at, made.created_at), "the same ticks");
        g.advance(30_000);
        // A tick that is due is kept when the schedule is written just then.
        g.schedule("s", json!({"every_ms": 60_000, "overlap": "allow", "payload": 2})).await;
        let due = g.tick().await.submitted;
        assert_eq!(g.jobs(&due).await[0].payload.as_str(), "2");
        let paused = g.store.pause_schedule(&name("s"), true).await.unwrap().standing;
        assert_eq!((paused.paused, paused.next_run_at, paused.next_runs), (true, None, vec![]));
        g.advance(600_000);
        assert_eq!(g.tick().await, Ticked::default());
        let resumed = g.store.pause_schedule(&name("s"), false).await.unwrap().standing;
        let expected = made.next_run_at.map(|at| at.0 + 11 * 60_000);
        assert_eq!(resumed.next_run_at.map(|at| at.0), expected, "no tick of the pause");
        let triggered = g.store.trigger_schedule(&name("s"), &Kinds::default()).await.unwrap();
        let job = &g.jobs(std::slice::from_ref(&triggered)).await[0];
        assert_eq!((job.schedule.clone(), job.scheduled_for), (Some(name("s")), None));
        g.store.remove_schedule(&name("s"), DeclaredIn::Api).await.unwrap();
        g.advance(600_000);
        assert_eq!(g.tick().await, Ticked::default());
        assert_eq!(g.store.schedules().await.unwrap(), []);
        assert_eq!(g.state(&triggered).await, State::Queued);
        let missing = g.store.remove_schedule(&name("s"), DeclaredIn::Api).await.unwrap_err();
        assert_eq!(missing, Error::Refused(Refusal::NoSchedule(name("s"))));
    }

    async fn what_a_file_declares_is_changed_there_alone(g: &Ground) {
        let own = plan(json!({"every_ms": 60_000}));
        g.store.put_schedule(&name("f"), &own, false, DeclaredIn::File, &Kinds::default()).await.unwrap();
        let refused = Error::Refused(Refusal::DeclaredInFile(name("f")));
        let put = g.store.put_schedule(&name("f"), &own, false, DeclaredIn::Api, &Kinds::default()).await;
        assert_eq!(put.unwrap_err(), refused);
        assert_eq!(g.store.pause_schedule(&name("f"), true).await.unwrap_err(), refused);
        assert_eq!(g.store.remove_schedule(&name("f"), DeclaredIn::Api).await.unwrap_err(), refused);
        g.store.remove_schedule(&name("f"), DeclaredIn::File).await.unwrap();
    }

    async fn a_damaged_schedule_stops_no_other_and_can_be_written_again_or_removed(g: &Ground) {
        let fields = || json!({"every_ms": 60_000, "overlap": "allow"});
        for of in ["a", "b", "c"] {
            g.schedule(of, fields()).await;
        }
        for partition in 0..g.store.partitions() {
            let damage: [&[&str]; 2] = [&["HSET", "a", "plan", "{}"], &["DEL", "b"]];
            for command in damage {
                let key = format!("lh:{{{partition}}}:schedule:{}", command[1]);
                if g.redis.command::<u8>(&["EXISTS", &key]).await == 1 {
                    let () = g.redis.command(&[&[command[0], &key], &command[2..]].concat()).await;
                }
            }
        }
        g.advance(60_000);
        assert_eq!(g.tick().await.submitted.len(), 1, "that of c");
        assert_eq!(g.store.schedules().await.unwrap().len(), 1);
        let unreadable = g.store.schedule(&name("a")).await.unwrap_err();
        assert!(matches!(unreadable, Error::Corrupt { .. }), "{unreadable}");
        g.schedule("a", fields()).await;
        g.store.remove_schedule(&name("a"), DeclaredIn::Api).await.unwrap();
    }

    async fn many_that_are_due_at_once_are_all_done(g: &Ground) {
        for n in 0..230 {
            g.schedule(&format!("s{n}"), json!({"cron": "0 * * * *", "catch_up": "none"})).await;
        }
        g.set(Timestamp((g.now() / 3_600_000 + 1) * 3_600_000));
        let ticked = g.tick().await;
        assert_eq!((ticked.submitted.len(), ticked.next_in), (230, Some(Duration::from_secs(3_600))));
    }

    async fn a_large_payload_is_submitted_in_parts(g: &Ground) {
        let text = "x".repeat(200_000);
        g.schedule("large", json!({"every_ms": 1_000, "catch_up": "all", "overlap": "allow", "payload": text})).await;
        g.advance(60_000);
        assert_eq!(g.tick().await.submitted.len(), 60);
    }

    async fn a_job_that_was_asked_for_hides_none_that_runs(g: &Ground) {
        g.schedule("s", json!({"every_ms": 60_000})).await;
        g.advance(60_000);
        let first = g.tick().await.submitted.remove(0);
        let asked = g.store.trigger_schedule(&name("s"), &Kinds::default()).await.unwrap();
        let standing = g.store.schedule(&name("s")).await.unwrap().unwrap().standing;
        assert_eq!(standing.last_job, Some(first));
        g.store.cancel(&[asked]).await.unwrap().remove(0).unwrap();
        g.advance(60_000);
        assert_eq!(g.tick().await.skipped, 1);
        g.complete_all().await;
        let asked = g.store.trigger_schedule(&name("s"), &Kinds::default()).await.unwrap();
        g.advance(60_000);
        assert_eq!(g.tick().await.skipped, 1, "nor does one that was asked for run beside a tick's");
        g.store.cancel(&[asked]).await.unwrap().remove(0).unwrap();
        g.advance(60_000);
        assert_eq!(g.tick().await.submitted.len(), 1);
    }

    async fn a_clock_that_was_ahead_is_no_reason_to_wait(g: &Ground) {
        let fields = || json!({"cron": "* * * * *", "overlap": "allow"});
        let begin = g.now();
        g.schedule("s", fields()).await;
        g.advance(365 * 86_400_000);
        g.tick().await;
        g.set(Timestamp(begin));
        let next = g.schedule("s", fields()).await.standing.next_run_at.unwrap();
        assert!(next.0 - begin <= 60_000, "{next}");
    }

    async fn jobs_have_the_defaults_that_were_published(g: &Ground) {
        let kinds = Kinds::parse("[kinds.work]\nqueue = \"reports\"\nmax_attempts = 2\n", "/".into()).unwrap();
        g.store.register_kinds(&kinds).await.unwrap();
        g.schedule("s", json!({"every_ms": 60_000})).await;
        g.advance(60_000);
        // By a worker without a kinds file.
        let job = g.jobs(&g.tick().await.submitted).await.remove(0);
        assert_eq!((job.queue.as_str(), job.max_attempts), ("reports", 2));
    }

    async fn a_kinds_file_declares_changes_and_removes_its_schedules(g: &Ground) {
        let file = |text: &str| Kinds::parse(text, "/x".into()).unwrap();
        g.schedule("own", json!({"every_ms": 60_000})).await;
        let minutely = "[schedules.a]\ncron = \"* * * * *\"\nkind = \"work\"\n";
        let both = format!("{minutely}[schedules.b]\nevery = \"5s\"\nkind = \"work\"\n");
        g.store.declare_schedules(&file(&both)).await.unwrap();
        let names = async || {
            let all = g.store.schedules().await.unwrap();
            all.into_iter().map(|s| (s.name.to_string(), s.standing.declared_in.as_str())).collect::<Vec<_>>()
        };
        let named = |list: &[(&'static str, &'static str)]| {
            list.iter().map(|(name, by)| ((*name).to_owned(), *by)).collect::<Vec<_>>()
        };
        assert_eq!(names().await, named(&[("a", "file"), ("b", "file"), ("own", "api")]));
        g.store.declare_schedules(&file(minutely)).await.unwrap();
        assert_eq!(names().await, named(&[("a", "file"), ("own", "api")]));
        // One that has no times any more does not go on with those that it had.
        g.store.declare_schedules(&file(&format!("{minutely}end_at = 2020-01-01T00:00:00Z\n"))).await.unwrap();
        assert_eq!(names().await, named(&[("own", "api")]));
        g.store.declare_schedules(&file(minutely)).await.unwrap();
        g.store.declare_schedules(&file("")).await.unwrap();
        g.store.declare_schedules(&Kinds::default()).await.unwrap();
        assert_eq!(names().await, named(&[("own", "api")]));
    }

    async fn many_writers_and_sweepers_lose_nothing(g: &Ground) {
        g.schedule("busy", json!({"every_ms": 1_000, "overlap": "allow"})).await;
        let mut ticks = Vec::new();
        for n in 0..50 {
            g.advance(1_000);
            let fields = json!({"every_ms": 1_000, "overlap": "allow", "payload": n});
            let (looks, ..) = tokio::join!(join_all((0..4).map(|_| g.tick())), g.schedule("busy", fields));
            let mut submitted: Vec<JobId> = looks.into_iter().flat_map(|ticked| ticked.submitted).collect();
            // A look that lost the race to the writer left the tick to the next one.
            submitted.extend(g.tick().await.submitted);
            ticks.extend(g.jobs(&submitted).await.into_iter().map(|job| job.scheduled_for.unwrap().0));
        }
        let first = ticks[0];
        assert_eq!(ticks, (0..50).map(|n| first + n * 1_000).collect::<Vec<_>>());
    }
}

/// A system with a second process, whose calls go through a proxy.
async fn with_another() -> (Ground, Proxy, Store) {
    let g = Ground::new(1).await;
    let proxy = Proxy::start(g.redis.port()).await;
    let other = g.store_at(proxy.url()).await.unwrap();
    (g, proxy, other)
}

fn runs(name: &str) -> impl Fn(&Command) -> bool + Send + Sync + 'static {
    let sha = script_sha(name).unwrap();
    move |command| command.runs(sha)
}

#[tokio::test]
async fn a_plan_that_is_replaced_before_its_tick_submits_nothing() {
    let (g, proxy, sweeper) = with_another().await;
    g.schedule("s", json!({"every_ms": 60_000, "payload": "old"})).await;
    g.advance(60_000);
    let held = proxy.hold(runs("tick"), 1);
    let late = tokio::spawn(async move { sweeper.tick(0, &Kinds::default()).await.unwrap() });
    held.fired().await;
    g.schedule("s", json!({"every_ms": 60_000, "payload": "new"})).await;
    held.release();
    assert_eq!(late.await.unwrap().submitted, []);
    let job = g.jobs(&g.tick().await.submitted).await.remove(0);
    assert_eq!(job.payload.as_str(), "\"new\"");
    g.end().await;
}

#[tokio::test]
async fn a_sweeper_that_comes_late_moves_no_schedule_back() {
    let (g, proxy, sweeper) = with_another().await;
    g.schedule("s", json!({"every_ms": 60_000, "overlap": "allow"})).await;
    g.advance(60_000);
    let held = proxy.hold(runs("tick"), 1);
    let late = tokio::spawn(async move { sweeper.tick(0, &Kinds::default()).await.unwrap() });
    held.fired().await;
    for _ in 0..2 {
        assert_eq!(g.tick().await.submitted.len(), 1);
        g.advance(60_000);
    }
    let next = g.next_of("s").await;
    held.release();
    assert_eq!(late.await.unwrap().submitted, []);
    assert_eq!(g.next_of("s").await, next);
    g.end().await;
}

#[tokio::test]
async fn a_write_that_comes_late_undoes_no_tick_and_no_declaration() {
    let (g, proxy, other) = with_another().await;
    let fields = || json!({"every_ms": 60_000, "overlap": "allow"});
    for declare in [false, true] {
        g.schedule("s", fields()).await;
        g.advance(60_000);
        let (held, other) = (proxy.hold(runs("schedule"), 1), other.clone());
        let late = tokio::spawn(async move {
            other.put_schedule(&name("s"), &plan(fields()), false, DeclaredIn::Api, &Kinds::default()).await
        });
        held.fired().await;
        assert_eq!(g.tick().await.submitted.len(), 1);
        let next = g.next_of("s").await;
        if declare {
            let (own, kinds) = (plan(fields()), Kinds::default());
            g.store.put_schedule(&name("s"), &own, false, DeclaredIn::File, &kinds).await.unwrap();
        }
        held.release();
        match late.await.unwrap() {
            Ok((schedule, _)) => assert!(!declare && schedule.standing.declared_in == DeclaredIn::Api),
            Err(e) => assert!(declare && e == Error::Refused(Refusal::DeclaredInFile(name("s"))), "{e}"),
        }
        assert_eq!(g.next_of("s").await, next);
    }
    g.end().await;
}

#[tokio::test]
async fn a_trigger_whose_reply_was_lost_is_one_job_though_the_schedule_goes() {
    let (g, proxy, other) = with_another().await;
    g.schedule("s", json!({"every_ms": 60_000})).await;
    let held = proxy.hold(runs("tick"), 2);
    let lost = proxy.drop_reply_to(runs("tick"), 1, Then::Cut);
    let asked = tokio::spawn(async move { other.trigger_schedule(&name("s"), &Kinds::default()).await.unwrap() });
    lost.fired().await;
    held.fired().await;
    g.store.remove_schedule(&name("s"), DeclaredIn::Api).await.unwrap();
    held.release();
    let id = asked.await.unwrap();
    let jobs = g.store.list(&ListQuery { limit: 10, ..ListQuery::default() }).await.unwrap().jobs;
    assert_eq!(jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(), [id]);
    g.end().await;
}

#[tokio::test]
async fn the_last_of_several_that_replace_each_other_is_where_idle_workers_wait() {
    let g = Ground::new(1).await;
    let fields = json!({"every_ms": 1_000, "overlap": "replace", "catch_up": "all", "priority": "high"});
    g.schedule("s", fields).await;
    g.advance(3_000);
    assert_eq!(g.tick().await.submitted.len(), 3);
    assert_eq!([g.length(0, "queue:default").await, g.length(0, "queue:default:high").await], [1, 0]);
    g.end().await;
}

/// All jobs of a schedule that are there.
async fn jobs_of(api: &leasehold_tests::Api, kind: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/api/v1/jobs?kind={kind}&limit=500{cursor}")).await.json;
        all.extend(page["jobs"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn every_second_has_its_job_while_workers_and_apis_are_killed() {
    let system = System::start(&[("LEASEHOLD_PARTITIONS", "4"), ("LEASEHOLD_LEASE_MS", "3000")]).await;
    let kinds = system.folder().join("kinds.toml");
    let script = r#"echo "{\"result\": \"$LEASEHOLD_SCHEDULED_FOR\"}""#;
    std::fs::write(&kinds, format!("[kinds.tick]\ncommand = ['sh', '-c', '{script}']\n")).unwrap();
    let path = kinds.display().to_string();
    let environment = [("LEASEHOLD_KINDS", path.as_str())];
    let (mut api, other) = (system.api(&environment).await, system.api(&environment).await);
    api.wait_ready().await;
    other.wait_ready().await;
    let mut workers = [system.worker(&environment), system.worker(&environment)];
    let body = json!({"every_ms": 1_000, "kind": "tick", "overlap": "allow", "catch_up": "all"});
    let put = |body: Value| api.request(Method::PUT, "/api/v1/schedules/seconds").json(&body);
    assert_eq!(put(body.clone()).send().await.unwrap().status(), 201);
    assert_eq!(put(body).send().await.unwrap().status(), 200);
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(2_300)).await;
        if round % 3 == 2 {
            api.kill9();
            api = system.api(&environment).await;
        } else {
            let at = round % 2;
            workers[at].kill9();
            workers[at] = system.worker(&environment);
        }
    }
    let paused = other.post("/api/v1/schedules/seconds/pause", &json!({})).await;
    assert_eq!((paused.status, &paused.json["paused"]), (200, &json!(true)));
    let done = eventually(LIMIT, "all have ended", async || {
        let jobs = jobs_of(&other, "tick").await;
        jobs.iter().all(|job| job["state"] == "completed").then_some(jobs)
    })
    .await;
    let mut ticks: Vec<i64> = Vec::new();
    for job in &done {
        assert_eq!(job["result"], job["scheduled_for"], "{job}");
        let tick = time(job["scheduled_for"].as_str().unwrap()).0;
        let late = time(job["created_at"].as_str().unwrap()).0 - tick;
        assert!((0..10_000).contains(&late), "{late} ms late: {job}");
        ticks.push(tick);
    }
    ticks.sort_unstable();
    assert!(ticks.len() >= 12, "{}", ticks.len());
    assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "{ticks:?}");
    system.finish().await;
}
