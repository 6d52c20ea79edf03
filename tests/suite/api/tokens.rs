//! Who may do what: `LEASEHOLD_API__TOKENS`.
use std::path::PathBuf;

use leasehold::tokens::{Scope, mint};
use leasehold_tests::api::answer;
use leasehold_tests::{Answer, Api, Process, RedisServer, System, eventually, run};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use super::{LIMIT, id, problem};

/// A system whose API takes the tokens of a file.
struct Guarded {
    system: System,
    api: Api,
    file: PathBuf,
}

impl Guarded {
    async fn start(lines: &[&str], environment: &[(&str, &str)]) -> Guarded {
        let system = System::start(&[]).await;
        let file = system.folder().join("tokens");
        std::fs::write(&file, lines.join("\n")).unwrap();
        let path = file.display().to_string();
        let mut variables = vec![("LEASEHOLD_API__TOKENS", path.as_str())];
        variables.extend_from_slice(environment);
        let api = system.api(&variables).await;
        api.wait_ready().await;
        Guarded { system, api, file }
    }

    async fn ask(&self, token: &str, method: Method, path: &str, body: &Value) -> Answer {
        let mut request = self.api.request(method, path).bearer_auth(token);
        if !body.is_null() {
            request = request.json(body);
        }
        answer(request).await
    }

    async fn get(&self, token: &str) -> u16 {
        self.ask(token, Method::GET, "/api/v1/jobs", &Value::Null).await.status
    }
}

#[tokio::test]
async fn each_scope_allows_its_own_and_what_is_below() {
    let [reads, submits, administers] = Scope::ALL.map(|scope| mint(scope.as_str(), scope).unwrap());
    let guarded = Guarded::start(&[&reads.1, &submits.1, &administers.1], &[]).await;
    let echo = json!({"kind": "echo"});
    let batch = json!({"kind": "echo", "items": [], "items_open": true});
    let job = id(&guarded.ask(&administers.0, Method::POST, "/api/v1/jobs", &echo).await);
    let parent = id(&guarded.ask(&administers.0, Method::POST, "/api/v1/jobs", &batch).await);
    let (path, items) = (format!("/api/v1/jobs/{job}"), format!("/api/v1/jobs/{parent}/items"));
    let calls: Vec<(Scope, Method, String, Value, u16)> = vec![
        (Scope::Read, Method::GET, "/api/v1/jobs".into(), Value::Null, 200),
        (Scope::Read, Method::HEAD, "/api/v1/jobs".into(), Value::Null, 200),
        (Scope::Read, Method::GET, path.clone(), Value::Null, 200),
        (Scope::Read, Method::GET, format!("{path}/history"), Value::Null, 200),
        (Scope::Read, Method::GET, "/api/v1/queues".into(), Value::Null, 200),
        (Scope::Read, Method::GET, "/api/v1/workers".into(), Value::Null, 200),
        (Scope::Submit, Method::POST, "/api/v1/jobs".into(), echo.clone(), 202),
        (Scope::Submit, Method::POST, "/api/v1/jobs/bulk".into(), json!({"jobs": [echo]}), 200),
        (Scope::Submit, Method::POST, items, json!({"first": 0, "items": [1]}), 200),
        (Scope::Admin, Method::POST, "/api/v1/queues/default/pause".into(), Value::Null, 200),
        (Scope::Admin, Method::POST, "/api/v1/queues/default/resume".into(), Value::Null, 200),
        (Scope::Admin, Method::DELETE, "/api/v1/queues/unused".into(), Value::Null, 404),
        (Scope::Admin, Method::POST, format!("{path}/cancel"), Value::Null, 200),
        (Scope::Admin, Method::POST, format!("{path}/retry"), Value::Null, 200),
        (Scope::Admin, Method::POST, format!("{path}/cancel"), Value::Null, 200),
        (Scope::Admin, Method::DELETE, path.clone(), Value::Null, 204),
    ];
    for (needed, method, path, body, status) in &calls {
        let absent = answer(guarded.api.request(method.clone(), path)).await;
        assert_eq!(absent.status, 401, "{method} {path}");
        assert!(absent.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        for (scope, token) in Scope::ALL.iter().zip([&reads.0, &submits.0, &administers.0]) {
            // What is allowed changes things, so it is done once: by the least token that may.
            if scope < needed {
                let refused = guarded.ask(token, method.clone(), path, body).await;
                let detail = problem(&refused, 403, "forbidden")["detail"].as_str().unwrap().to_owned();
                assert!(detail.contains(&format!("scope {needed}")), "{detail}");
                assert!(refused.headers.contains_key("www-authenticate"));
            }
        }
        let least = &[&reads, &submits, &administers][*needed as usize].0;
        assert_eq!(guarded.ask(least, method.clone(), path, body).await.status, *status, "{method} {path}");
    }
    for allowed in calls.iter().take(9) {
        let answered = guarded.ask(&administers.0, allowed.1.clone(), &allowed.2, &allowed.3).await;
        assert!(![401, 403].contains(&answered.status), "{} {}", allowed.1, allowed.2);
    }
    guarded.system.finish().await;
}

#[tokio::test]
async fn a_token_that_is_wrong_or_absent_is_told_from_one_too_weak() {
    let (token, line) = mint("eye", Scope::Read).unwrap();
    let guarded = Guarded::start(&[&line], &[]).await;
    for open in ["/livez", "/readyz"] {
        assert_eq!(guarded.api.get(open).await.status, 200);
    }
    problem(&guarded.api.get("/nowhere").await, 404, "no_such_route");
    let absent = guarded.api.get("/api/v1/jobs").await;
    assert!(problem(&absent, 401, "unauthorized")["detail"].as_str().unwrap().contains("Authorization: Bearer"));
    let wrong = guarded.ask("lh_0000", Method::GET, "/api/v1/jobs", &Value::Null).await;
    assert!(problem(&wrong, 401, "unauthorized")["detail"].as_str().unwrap().contains("not known"));
    let digest = line.rsplit(' ').next().unwrap();
    assert_eq!(guarded.get(digest).await, 401, "what the file holds opens nothing");
    let basic = answer(guarded.api.request(Method::GET, "/api/v1/jobs").basic_auth("eye", Some(&token))).await;
    problem(&basic, 401, "unauthorized");
    let weak = guarded.ask(&token, Method::POST, "/api/v1/jobs", &json!({"kind": "echo"})).await;
    problem(&weak, 403, "forbidden");
    assert_eq!(guarded.ask(&token, Method::GET, "/api/v1/jobs", &Value::Null).await.json["jobs"], json!([]));
    guarded.system.finish().await;
}

#[tokio::test]
async fn tokens_are_replaced_without_a_restart_and_a_bad_file_changes_nothing() {
    let (old, old_line) = mint("ci", Scope::Read).unwrap();
    let (new, new_line) = mint("ci", Scope::Read).unwrap();
    let guarded = Guarded::start(&[&old_line], &[("LEASEHOLD_LOG__FILTER", "trace")]).await;
    assert_eq!((guarded.get(&old).await, guarded.get(&new).await), (200, 401));
    std::fs::write(&guarded.file, format!("{old_line}\n{new_line}\n")).unwrap();
    eventually(LIMIT, "the new token is taken", async || guarded.get(&new).await == 200).await;
    assert_eq!(guarded.get(&old).await, 200);
    std::fs::write(&guarded.file, format!("{new_line}\nci reed {old}\n")).unwrap();
    guarded.api.signal(Signal::SIGHUP);
    eventually(LIMIT, "the bad file is told of", async || guarded.api.stderr().contains("line 2: the scope")).await;
    assert_eq!((guarded.get(&old).await, guarded.get(&new).await), (200, 200));
    std::fs::remove_file(&guarded.file).unwrap();
    guarded.api.signal(Signal::SIGHUP);
    eventually(LIMIT, "the lost file is told of", async || guarded.api.stderr().contains("No such file")).await;
    assert_eq!(guarded.get(&new).await, 200);
    std::fs::write(&guarded.file, new_line).unwrap();
    guarded.api.signal(Signal::SIGHUP);
    eventually(LIMIT, "the old token is gone", async || guarded.get(&old).await == 401).await;
    assert_eq!(guarded.get(&new).await, 200);
    let log = guarded.api.stderr();
    assert!(log.contains("token=\"ci\""), "a request's line has the name of its token");
    assert!(!log.contains(&old) && !log.contains(&new), "a token stands in the log");
    guarded.system.finish().await;
}

#[tokio::test]
async fn it_listens_beyond_loopback_with_tokens_only() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let path = file.display().to_string();
    let listen = [("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_API__LISTEN", "0.0.0.0:0")];
    let open = run("leasehold-api", &[], &listen, LIMIT).await;
    assert!(open.status.code() == Some(1) && open.stderr.contains("LEASEHOLD_API__TOKENS"), "{}", open.stderr);
    let environment = [listen[0], listen[1], ("LEASEHOLD_API__TOKENS", path.as_str())];
    let (token, line) = mint("ci", Scope::Admin).unwrap();
    let digest = line.rsplit(' ').next().unwrap();
    for (text, said) in [
        (None, "No such file"),
        (Some("\n# nobody\n".to_owned()), "there are no tokens"),
        (Some(format!("{line}\n\nci admin")), "line 3: it has 2 words"),
        (Some(format!("ci root {digest}")), "line 1: the scope"),
        (Some(format!("ci admin {token}")), "line 1: the last word"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let refused = run("leasehold-api", &[], &environment, LIMIT).await;
        assert!(refused.status.code() == Some(1) && refused.stderr.contains(said), "{said}: {}", refused.stderr);
        assert!(refused.stderr.contains(&path) && !refused.stderr.contains(&token), "{}", refused.stderr);
    }
    std::fs::write(&file, line).unwrap();
    let api = Process::ours("leasehold-api", &[], &environment);
    eventually(LIMIT, "it is connected", async || api.stderr().contains("connected")).await;
    api.sigterm();
    assert!(api.wait_exit(LIMIT).await.success());
}

#[tokio::test]
async fn a_token_that_the_command_makes_opens_the_api() {
    let made = run("leasehold", &["tokens", "new", "ci", "submit"], &[], LIMIT).await;
    assert!(made.status.success(), "{}", made.stderr);
    let token = made.stderr.trim().rsplit(' ').next().unwrap();
    assert!(made.stdout.starts_with("ci submit ") && !made.stdout.contains(token), "{}", made.stdout);
    let guarded = Guarded::start(&[&made.stdout], &[]).await;
    assert_eq!(guarded.ask(token, Method::POST, "/api/v1/jobs", &json!({"kind": "echo"})).await.status, 202);
    let refused = run("leasehold", &["tokens", "new", "two words", "read"], &[], LIMIT).await;
    assert!(refused.status.code() == Some(2) && refused.stderr.contains("a-z"), "{}", refused.stderr);
    guarded.system.finish().await;
}
