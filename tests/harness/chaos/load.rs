//! The load: clients that submit with Idempotency-Keys, write down what they asked and what they heard, and ask again
//! with the same key until they are answered.
use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use leasehold::State;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::work::{INPUT, Journal};
use crate::api::client;

const CLIENTS: usize = 4;
/// Between two submits of a client, ms.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 0..=40;
/// Between two tries of one submit.
const AGAIN_MS: std::ops::RangeInclusive<u64> = 20..=200;
/// Jobs that may be unfinished before clients hold off: a backlog says nothing about recovery.
const OPEN_MAX: usize = 100;
/// A run of this length has jobs that take seconds; a shorter one would only wait for them.
const HAS_LONG_JOBS: Duration = Duration::from_secs(15);
/// A client gives a request up after this; it may have been done.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// A submit that nobody answers for so long is a violation.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);
/// 503s that say that nothing was done.
const NOTHING_DONE: [&str; 4] = ["redis_unavailable", "redis_full", "busy", "shutting_down"];

/// What a client heard to one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// 202: this try made the job.
    Made(String),
    /// 200: an earlier try had made it.
    Known(String),
    /// 503, and nothing was done.
    NotDone(String),
    /// Nobody knows: no answer, or one that says so.
    Unknown(String),
    /// What no client should hear.
    Odd(String),
}

/// One submit and its tries, each with the times of its asking and its answer.
#[derive(Debug, Clone)]
pub struct Submit {
    pub key: String,
    pub body: Value,
    /// What is in the file that comes with it.
    pub file: Option<String>,
    pub tries: Vec<(Duration, Duration, Heard)>,
    /// What was asked of the job afterwards.
    pub steps: Vec<Step>,
}

/// A cancel or a retry of a job that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A cancel was asked for, until it was answered.
    Cancel,
    /// The client has seen the job cancelled.
    SeenCancelled,
    /// A retry was asked for.
    Retry,
    /// A retry was answered 200.
    Retried,
    /// What no client should hear.
    Odd(String),
}

impl Submit {
    /// How its jobs may end.
    pub fn ends(&self) -> &'static [State] {
        let has = |step: Step| self.steps.contains(&step);
        match () {
            () if !has(Step::Cancel) || has(Step::Retried) => &[State::Completed],
            () if has(Step::SeenCancelled) && !has(Step::Retry) => &[State::Cancelled],
            () => &[State::Completed, State::Cancelled],
        }
    }

    /// The job that the client knows of.
    pub fn id(&self) -> Option<&str> {
        self.tries.iter().find_map(|(.., heard)| match heard {
            Heard::Made(id) | Heard::Known(id) => Some(id.as_str()),
            _ => None,
        })
    }

    /// The request that asks for it, once more.
    fn request(&self, http: &Client, url: &str) -> RequestBuilder {
        let request = http.post(format!("{url}/api/v1/jobs")).header("idempotency-key", &self.key);
        let Some(file) = &self.file else { return request.json(&self.body) };
        let file = Part::text(file.clone()).file_name(INPUT);
        request.multipart(Form::new().text("job", self.body.to_string()).part("file", file))
    }

    /// Jobs that run, its items if it has any.
    pub fn payloads(&self) -> Vec<&Value> {
        self.body["items"].as_array().map_or_else(|| vec![&self.body["payload"]], |items| items.iter().collect())
    }
}

pub struct Load {
    urls: Vec<String>,
    begun_at: Instant,
    length: Duration,
    acknowledged: Cell<usize>,
}

impl Load {
    pub fn new(urls: Vec<String>, begun_at: Instant, length: Duration) -> Load {
        Load { urls, begun_at, length, acknowledged: Cell::new(0) }
    }

    /// All clients until `length` has passed and every submit is answered.
    pub async fn run(&self, seed: u64, journal: &Journal) -> Vec<Submit> {
        let clients = (0..CLIENTS).map(|number| self.client(number, seed, journal));
        join_all(clients).await.into_iter().flatten().collect()
    }

    async fn client(&self, number: usize, seed: u64, journal: &Journal) -> Vec<Submit> {
        let http = client().timeout(REQUEST_LIMIT).build().unwrap();
        let mut random = StdRng::seed_from_u64(seed ^ (number as u64 + 1).rotate_right(8));
        let (mut submits, mut replica) = (Vec::<Submit>::new(), number);
        while self.begun_at.elapsed() < self.length {
            sleep(Duration::from_millis(random.random_range(PAUSE_MS))).await;
            if self.acknowledged.get() > journal.ended() + OPEN_MAX {
                continue;
            }
            let key = format!("client-{number}-{}", submits.len());
            let body = body(&mut random, number, submits.len(), self.length >= HAS_LONG_JOBS);
            let has_file = body["items"].is_null() && random.random_ratio(1, 8);
            let file = has_file.then(|| key.repeat(random.random_range(1..=2_000)));
            let mut submit = Submit { key, body, file, tries: Vec::new(), steps: Vec::new() };
            self.submit(&http, &mut replica, &mut submit, &mut random).await;
            if submit.id().is_some() {
                self.acknowledged.set(self.acknowledged.get() + submit.payloads().len());
                if submit.body["items"].is_null() && random.random_ratio(1, 20) {
                    let retries = random.random_ratio(1, 2);
                    submit.steps = self.change_its_mind(&http, replica, submit.id().unwrap_or_default(), retries).await;
                }
            }
            submits.push(submit);
            // A client that lost its own notes asks again for what it knows already, and another replica at that.
            if random.random_ratio(1, 20) {
                let at = random.random_range(0..submits.len());
                let heard = self.ask(&http, replica + 1, &submits[at]).await;
                submits[at].tries.push(heard);
            }
        }
        submits
    }

    /// Asks until there is an answer, the other replica after each failure.
    async fn submit(&self, http: &Client, replica: &mut usize, submit: &mut Submit, random: &mut StdRng) {
        let begun = Instant::now();
        while begun.elapsed() < ANSWER_LIMIT {
            let heard = self.ask(http, *replica, submit).await;
            submit.tries.push(heard);
            match submit.tries.last() {
                Some((.., Heard::NotDone(_) | Heard::Unknown(_))) => *replica += 1,
                _ => return,
            }
            sleep(Duration::from_millis(random.random_range(AGAIN_MS))).await;
        }
    }

    /// Cancels a job, sees it end, and retries it if it was cancelled and `retries`.
    async fn change_its_mind(&self, http: &Client, mut replica: usize, id: &str, retries: bool) -> Vec<Step> {
        let mut steps = vec![Step::Cancel];
        let limit = Instant::now() + ANSWER_LIMIT;
        let mut ask = async |method: Method, path: String| loop {
            replica += 1;
            let url = format!("{}/api/v1/jobs/{id}{path}", self.urls[replica % self.urls.len()]);
            let answer = async {
                let response = http.request(method.clone(), url).send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.json::<Value>().await?))
            };
            match answer.await {
                Ok((status @ (200 | 202 | 409), json)) => return Ok((status, json["state"].clone())),
                Err(_) | Ok((503, _)) if Instant::now() < limit => sleep(Duration::from_millis(100)).await,
                other => return Err(format!("{other:?}")),
            }
        };
        let outcome: Result<(), String> = async {
            ask(Method::POST, "/cancel".into()).await?;
            let state = loop {
                let (_, state) = ask(Method::GET, String::new()).await?;
                match state.as_str().and_then(State::parse) {
                    Some(state) if state.is_final() => break state,
                    _ if Instant::now() >= limit => return Ok(()),
                    _ => sleep(Duration::from_millis(50)).await,
                }
            };
            if state == State::Cancelled {
                steps.push(Step::SeenCancelled);
                self.acknowledged.set(self.acknowledged.get().saturating_sub(1));
                if retries {
                    steps.push(Step::Retry);
                    let (status, _) = ask(Method::POST, "/retry".into()).await?;
                    self.acknowledged.set(self.acknowledged.get() + 1);
                    steps.extend((status == 200).then_some(Step::Retried));
                }
            }
            Ok(())
        }
        .await;
        steps.extend(outcome.err().map(Step::Odd));
        steps
    }

    async fn ask(&self, http: &Client, replica: usize, submit: &Submit) -> (Duration, Duration, Heard) {
        let request = submit.request(http, &self.urls[replica % self.urls.len()]);
        let asked_at = self.begun_at.elapsed();
        let answer = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
        };
        let heard = match answer.await {
            Ok((status, text)) => heard(status, &text),
            // Nothing listened, so nothing was sent.
            Err(e) if e.is_connect() => Heard::NotDone(format!("no connection: {e}")),
            Err(e) => Heard::Unknown(e.to_string()),
        };
        (asked_at, self.begun_at.elapsed(), heard)
    }
}

fn heard(status: u16, text: &str) -> Heard {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let (id, code) = (json["id"].as_str().map(str::to_owned), json["code"].as_str().unwrap_or_default());
    match (status, id) {
        (202, Some(id)) => Heard::Made(id),
        (200, Some(id)) => Heard::Known(id),
        (503, _) if NOTHING_DONE.contains(&code) => Heard::NotDone(code.to_owned()),
        (503, _) => Heard::Unknown(code.to_owned()),
        _ => Heard::Odd(format!("{status}: {text}")),
    }
}

/// A submit as the generator draws it: most plain, some urgent, late, failing at first, or a batch.
fn body(random: &mut StdRng, client: usize, submit: usize, has_long: bool) -> Value {
    let mut number = (client * 1_000_000 + submit) * 10;
    let mut payload = |random: &mut StdRng| {
        number += 1;
        let ms = match random.random_range(0..100) {
            0..25 => 0,
            // Longer than a lease: two runs may be under way at once.
            25..29 if has_long => random.random_range(1_000..=5_000),
            _ => random.random_range(1..=150),
        };
        let seconds = if ms == 0 { "0".to_owned() } else { format!("{}.{:03}", ms / 1_000, ms % 1_000) };
        json!({"number": number, "seconds": seconds, "fails": random.random_ratio(1, 12)})
    };
    let mut body = json!({"kind": "chaos"});
    if random.random_ratio(1, 40) {
        let count = random.random_range(2..=5);
        body["items"] = (0..count).map(|_| payload(random)).collect();
        return body;
    }
    body["payload"] = payload(random);
    match random.random_range(0..10) {
        0 => body["priority"] = json!("high"),
        1 => body["priority"] = json!("low"),
        2 => body["delay_ms"] = json!(random.random_range(50..2_000)),
        _ => {}
    }
    body
}
