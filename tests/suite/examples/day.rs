//! A day of all five clients at once, on their own routes, through the deaths of an API, a worker and Redis: each body
//! is what the client's old system would have said.
use leasehold_tests::{Answer, Api, Worker, api::answer, eventually};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::site::Site;
use super::{Five, SOON};

/// What the five clients have submitted.
struct Submitted {
    analysis: String,
    batch: String,
    text: String,
    shots: String,
    recording: String,
}

const TEXT: &str = "The valves were replaced by the night crew. Several gaskets leak.";

#[tokio::test]
async fn five_clients_live_through_a_day_of_deaths() {
    let site = Site::start().await;
    let five = Five::start(&[("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true")]).await;
    let api = five.api().await;
    let workers = [five.worker(&[]), five.worker(&[])];
    let submitted = morning(&api, &site).await;
    eventually(SOON, "an analysis and a page are under way", async || {
        site.asked("/held-paper") > 0 && site.asked("/held-page") > 0
    })
    .await;
    let late = noon(&five, &api, &workers).await;
    site.open_gate();
    evening(&api, &submitted, &site).await;
    night(&api, &submitted).await;
    drop((workers, late));
    five.system.finish().await;
}

/// Each submits what it always has, twice with the same key: the first answer might have been lost.
async fn morning(api: &Api, site: &Site) -> Submitted {
    let mut ids = Vec::new();
    for (path, body, members) in [
        ("/api/v1/gap-analysis/jobs", json!({"url": site.url("/held-paper"), "validation_threshold": 2}), RECORD_000),
        ("/jobs", files(), &["job_id", "status", "total_files"]),
        ("/api/suggestions", json!({"text": TEXT}), &["job_id", "status"]),
        ("/batch/screenshots", pages(site), &["job_id", "status", "total"]),
    ] {
        let send = || answer(api.request(Method::POST, path).header("Idempotency-Key", "morning").json(&body));
        let (first, again) = (send().await, send().await);
        assert_eq!((first.status, again.status), (202, 202), "{path}: {}", first.text);
        has(&first.json, members);
        assert_eq!(first.json["job_id"], again.json["job_id"], "{path}");
        ids.push(first.json["job_id"].as_str().unwrap().to_owned());
    }
    let recording = answer(api.request(Method::POST, "/api/analyze").multipart(tone())).await;
    assert_eq!(recording.status, 200, "{}", recording.text);
    has(&recording.json, &["job_id", "status"]);
    let recording = recording.json["job_id"].as_str().unwrap().to_owned();
    let [analysis, batch, text, shots] = ids.try_into().unwrap();
    Submitted { analysis, batch, text, shots, recording }
}

/// The API dies, a worker dies, Redis dies; what is not theirs to do is started again.
async fn noon(five: &Five, api: &Api, workers: &[Worker; 2]) -> Worker {
    api.kill9();
    api.restart().await;
    workers[0].kill9();
    five.system.redis().kill9();
    five.system.redis().restart().await;
    api.wait_ready().await;
    five.worker(&[])
}

/// Every client finds its work done, in its own words.
async fn evening(api: &Api, submitted: &Submitted, site: &Site) {
    let Submitted { analysis, batch, text, shots, recording } = submitted;
    let record = ended(api, &format!("/api/v1/gap-analysis/jobs/{analysis}"), "completed").await;
    has(&record, RECORD_000);
    assert_eq!(record["request"], json!({"url": site.url("/held-paper"), "max_papers": 10, "validation_threshold": 2}));
    let name = record["result_file"].as_str().unwrap();
    assert!(name.starts_with(&format!("gap_analysis_{analysis}_")) && name.ends_with(".json"), "{name}");
    let result = ok(api, &format!("/api/v1/gap-analysis/jobs/{analysis}/result")).await;
    let gap = &result["gaps"][0];
    assert_eq!((&gap["support"], gap["documents"].as_array().map(Vec::len)), (&json!(2), Some(2)), "{result}");

    let results = ended(api, &format!("/job_results/{batch}"), "Completed").await;
    has(&results, &["job_id", "status", "total_files", "successful_files", "failed_files", "results"]);
    assert_eq!(
        (&results["total_files"], &results["successful_files"], &results["failed_files"]),
        (&json!(6), &json!(2), &json!(2))
    );
    let told: Vec<_> = results["results"].as_array().unwrap().iter().collect();
    told.iter().for_each(|result| has(result, &["filename", "success", "error", "timestamp"]));
    let told: Vec<_> = told.iter().map(|r| (r["filename"].as_str().unwrap(), r["error"].as_str())).collect();
    let missing = Some("File not found");
    assert_eq!(
        told,
        [("night-shift.txt", None), ("harbour-rules.pdf", None), ("none.txt", missing), ("../x", missing)]
    );
    let listed = ok(api, "/jobs").await;
    assert_eq!((&listed["jobs"][0]["job_id"], &listed["jobs"][0]["skipped_files"]), (&json!(batch), &json!(2)));

    let status = ended(api, &format!("/api/job-status/{text}"), "completed").await;
    has(&status, &["job_id", "status", "created_at", "updated_at", "progress", "result"]);
    assert_eq!(status["progress"], 100);
    let characters: Vec<char> = TEXT.chars().collect();
    let suggestions = status["result"]["suggestions"].as_array().unwrap();
    assert!(!suggestions.is_empty());
    for suggestion in suggestions {
        let place = |name: &str| suggestion[name].as_u64().unwrap() as usize;
        assert!(place("start") < place("end") && place("end") <= characters.len(), "{suggestion}");
    }

    let results = ended(api, &format!("/batch/screenshots/{shots}/results"), "completed").await;
    has(&results, &["job_id", "status", "items", "created_at", "completed_at", "total_processing_time"]);
    for id in ["first", "held"] {
        let item = &results["items"][id];
        has(item, &["id", "status", "result", "cached"]);
        assert_eq!((&item["id"], &item["status"]), (&json!(id), &json!("success")), "{item}");
        let image = reqwest::Url::parse(item["result"]["url"].as_str().unwrap()).unwrap();
        let image = api.request(Method::GET, image.path()).send().await.unwrap();
        assert_eq!(image.headers()["content-type"], "image/png");
        assert!(image.bytes().await.unwrap().starts_with(b"\x89PNG"));
    }
    assert_eq!(results["items"]["bad"]["status"], "failed", "{results}");
    assert_eq!(ok(api, &format!("/batch/results/{shots}")).await, results);

    let record = ended(api, &format!("/api/status/{recording}"), "completed").await;
    has(&record, &["job_id", "status", "progress", "created_at", "updated_at", "filename", "result", "error"]);
    assert_eq!((&record["filename"], &record["progress"]), (&json!("tone.wav"), &json!(1.0)));
    let pitch = record["result"]["pitch_hz"].as_f64().unwrap();
    assert!((pitch - 440.0).abs() < 1.0, "{record}");
    let health = ok(api, "/health").await;
    assert_eq!(
        (&health["status"], &health["total_jobs"], &health["jobs_count"]),
        (&json!("healthy"), &json!(1), &json!(1))
    );
}

/// They clear up, and find nothing of each other's.
async fn night(api: &Api, submitted: &Submitted) {
    let Submitted { analysis, batch, text, shots, recording } = submitted;
    for foreign in [
        format!("/api/v1/gap-analysis/jobs/{batch}"),
        format!("/job_results/{shots}"),
        format!("/api/job-status/{analysis}"),
        format!("/batch/screenshots/{text}/results"),
        format!("/api/status/{text}"),
    ] {
        let refused = api.get(&foreign).await;
        assert_eq!((refused.status, &refused.json["error"]), (404, &json!("Job not found")), "{foreign}");
        has(&refused.json, &["error", "timestamp", "path"]);
        assert_eq!(refused.json["path"], foreign);
    }
    assert_eq!(api.delete("/api/jobs/cleanup?days=7").await.json, json!({"deleted": 0}));
    assert_eq!(api.delete(&format!("/api/jobs/{recording}")).await.json, json!({"deleted": 1}));
    assert_eq!(api.delete(&format!("/api/v1/gap-analysis/jobs/{analysis}")).await.status, 204);
    assert_eq!(api.get(&format!("/api/v1/gap-analysis/jobs/{analysis}")).await.status, 404);
}

const RECORD_000: &[&str] = &[
    "job_id",
    "request",
    "status",
    "created_at",
    "progress_message",
    "result_file",
    "started_at",
    "completed_at",
    "error_message",
];

fn files() -> Value {
    json!({"files": ["night-shift.txt", "harbour-rules.pdf", "none.txt", "night-shift.txt", "", "../x"]})
}

fn pages(site: &Site) -> Value {
    json!({
        "items": [
            {"id": "first", "url": site.url("/first")},
            {"id": "held", "url": site.url("/held-page")},
            {"id": "bad", "url": "http://127.0.0.1:1/"},
        ],
        "config": {"width": 320, "height": 200},
    })
}

/// A second of 440 Hz, as a WAV.
fn tone() -> Form {
    let rate = 8_000_u32;
    let samples = (0..rate).map(|n| (f64::from(n) * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin() * 16_000.0);
    let data: Vec<u8> = samples.flat_map(|sample| (sample as i16).to_le_bytes()).collect();
    let length = data.len() as u32;
    let mut wav = Vec::new();
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + length).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend_from_slice(&rate.to_le_bytes());
    wav.extend_from_slice(&(2 * rate).to_le_bytes());
    wav.extend_from_slice(b"\x02\0\x10\0data");
    wav.extend_from_slice(&length.to_le_bytes());
    wav.extend(data);
    Form::new().part("file", Part::bytes(wav).file_name("tone.wav"))
}

/// Asserts that an object has these members and no others.
#[track_caller]
fn has(object: &Value, members: &[&str]) {
    let mut there: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = members.to_vec();
    there.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(there, wanted, "{object}");
}

async fn ok(api: &Api, path: &str) -> Value {
    let Answer { status, json, text, .. } = api.get(path).await;
    assert_eq!(status, 200, "{path}: {text}");
    json
}

/// Waits until a record has this status, and returns it.
async fn ended(api: &Api, path: &str, status: &str) -> Value {
    eventually(SOON, path, async || {
        let answer = api.get(path).await;
        if answer.json["status"] == status { Ok(answer.json) } else { Err(answer.text) }
    })
    .await
}
