//! What bad input gets: a problem that names the field and the fix, and no change.
use leasehold_tests::Api;
use leasehold_tests::api::answer;
use reqwest::Method;
use serde_json::json;

use super::{Hand, ask, id, problem, send, start};

/// A body, what it is refused with, where, and what the problem says.
type Row<'a> = (&'a str, u16, &'a str, &'a str);

const SUBMITS: &[Row<'_>] = &[
    ("", 400, "", "empty"),
    ("{\"kind\": \"echo\",", 400, "", "line 1 column"),
    ("{\"kind\": \"echo\"} x", 400, "", "trailing"),
    ("[]", 400, "", "expected an object, got an array"),
    ("{}", 400, "/kind", "required"),
    ("{\"kind\": 5}", 400, "/kind", "expected a string, got a number"),
    ("{\"kind\": \"Echo!\"}", 400, "/kind", "a-z 0-9"),
    ("{\"kind\": \"echo\", \"kind\": \"echo\"}", 400, "/kind", "more than once"),
    ("{\"kind\": \"echo\", \"queue\": \"a b\"}", 400, "/queue", "a-z 0-9"),
    ("{\"kind\": \"echo\", \"paylaod\": 1}", 400, "/paylaod", "did you mean \"payload\""),
    ("{\"kind\": \"echo\", \"callback_url\": \"http://x\"}", 400, "/callback_url", "unknown field"),
    ("{\"kind\": \"echo\", \"priority\": 1}", 400, "/priority", "expected a string"),
    ("{\"kind\": \"echo\", \"priority\": \"now\"}", 400, "/priority", "high, normal or low"),
    ("{\"kind\": \"echo\", \"run_at\": \"tomorrow\"}", 400, "/run_at", "RFC 3339"),
    ("{\"kind\": \"echo\", \"run_at\": \"2030-01-01T00:00:00Z\", \"delay_ms\": 5}", 400, "/delay_ms", "run_at"),
    ("{\"kind\": \"echo\", \"delay_ms\": -5}", 400, "/delay_ms", "from 0"),
    ("{\"kind\": \"echo\", \"max_attempts\": 0}", 400, "/max_attempts", "from 1"),
    ("{\"kind\": \"echo\", \"timeout_ms\": 0}", 400, "/timeout_ms", "from 1"),
    ("{\"kind\": \"echo\", \"items\": 5}", 400, "/items", "expected an array"),
    ("{\"kind\": \"echo\", \"items_open\": 1}", 400, "/items_open", "expected a boolean"),
    ("{\"kind\": \"echo\", \"then\": \"x\"}", 400, "/then", "items"),
];

#[tokio::test]
async fn a_bad_submit_is_refused_by_name_and_changes_nothing() {
    let (system, api) = start(&[]).await;
    let before: Vec<String> = system.redis().command(&["KEYS", "*"]).await;
    let deep = format!("{{\"kind\": \"echo\", \"payload\": {}{}}}", "[".repeat(65), "]".repeat(65));
    let bomb = format!("{{\"kind\": \"echo\", \"payload\": {}", "[".repeat(1_000_000));
    let long = format!("{{\"kind\": \"echo\", \"payload\": \"{}\"}}", "x".repeat(256 << 10));
    let wide: String = (0..100_000).map(|n| format!(", \"f{n}\": 0")).collect();
    let wide = format!("{{\"kind\": \"echo\"{wide}}}");
    let large = [
        (deep.as_str(), 400, "/payload", "deeper than 64"),
        (&bomb, 400, "", "line 1"),
        (&long, 413, "/payload", "262144"),
        (&wide, 400, "", "more than 64 fields"),
    ];
    for (body, status, pointer, said) in SUBMITS.iter().copied().chain(large) {
        let shown = &body[..body.len().min(100)];
        let refused = send(&api, "/api/v1/jobs", &[], body).await;
        let code = refused.json["code"].as_str().unwrap_or_default().to_owned();
        let problem = problem(&refused, status, &code);
        assert!(problem["detail"].as_str().unwrap().contains(said), "{shown}: {problem}");
        if code != "invalid_json" {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{shown}: {problem}");
        }
    }
    let after: Vec<String> = system.redis().command(&["KEYS", "*"]).await;
    assert_eq!(before, after, "nothing was written");
    system.finish().await;
}

#[tokio::test]
async fn a_body_must_be_json_in_utf_8() {
    let (system, api) = start(&[]).await;
    let submit = || api.request(Method::POST, "/api/v1/jobs").body("{\"kind\": \"echo\"}");
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
        let refused = answer(submit().header("content-type", content_type)).await;
        let detail = problem(&refused, 415, "unsupported_media_type")["detail"].as_str().unwrap();
        assert!(detail.contains("application/json"), "{detail}");
    }
    problem(&answer(submit()).await, 415, "unsupported_media_type");
    let zipped = submit().header("content-type", "application/json").header("content-encoding", "gzip");
    problem(&answer(zipped).await, 415, "unsupported_media_type");
    let latin = api.request(Method::POST, "/api/v1/jobs").header("content-type", "application/json");
    let latin = answer(latin.body(b"{\"kind\": \"caf\xe9\"}".to_vec())).await;
    assert!(problem(&latin, 400, "invalid_json")["detail"].as_str().unwrap().contains("byte 13"));
    let fine = answer(submit().header("content-type", "Application/JSON; charset=UTF-8")).await;
    assert_eq!(fine.status, 202, "{}", fine.text);
    system.finish().await;
}

#[tokio::test]
async fn an_id_that_cannot_be_one_is_told_from_one_that_is_nobodys() {
    let (system, api) = start(&[]).await;
    for (method, verb) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/history"),
        (Method::GET, "/items"),
        (Method::POST, "/items"),
        (Method::POST, "/cancel"),
        (Method::POST, "/retry"),
    ] {
        let ask = async |id: &str| {
            let request = api.request(method.clone(), &format!("/api/v1/jobs/{id}{verb}"));
            let request = request.header("content-type", "application/json");
            answer(if method == Method::POST { request.body("{\"first\": 0, \"items\": [1]}") } else { request }).await
        };
        for bad in ["a.b", "a%20b", "%ff", &"x".repeat(65)] {
            let refused = ask(bad).await;
            assert_eq!(problem(&refused, 400, "invalid_request")["status"], 400, "{method} {bad}{verb}");
        }
        problem(&ask("0193a7b2-0000-7000-8000-000000000000").await, 404, "no_such_job");
    }
    system.finish().await;
}

#[tokio::test]
async fn a_bad_query_is_refused_by_name() {
    let (system, api) = start(&[]).await;
    for kind in ["a", "b"] {
        for _ in 0..2 {
            api.post("/api/v1/jobs", &json!({"kind": kind})).await;
        }
    }
    let page = api.get("/api/v1/jobs?kind=a&limit=1").await;
    let foreign = format!("kind=b&cursor={}", page.json["next_cursor"].as_str().expect("there is a second page"));
    // One that is written to look like ours, with an offset that no list has.
    let ours = api.get("/api/v1/jobs?state=queued&limit=1").await;
    let digest = ours.json["next_cursor"].as_str().unwrap().split_once('.').unwrap().0.to_owned();
    let position = format!("{{\"l\":[0,\"queue:default\",{}]}}", i64::MIN);
    let hex: String = position.bytes().map(|byte| format!("{byte:02x}")).collect();
    let crafted = format!("state=queued&cursor={digest}.{hex}");
    for (query, parameter, said) in [
        ("limit=0", "limit", "1 to 1000"),
        ("limit=1001", "limit", "1 to 1000"),
        ("limit=-1", "limit", "1 to 1000"),
        ("limit=ten", "limit", "1 to 1000"),
        ("limit=5&limit=6", "limit", "more than once"),
        ("state=done", "state", "completed"),
        ("kind=A", "kind", "a-z"),
        ("queue=%ff", "queue", "a-z"),
        ("parent=a.b", "parent", "A-Z"),
        ("cursor=abc", "cursor", "not from a page"),
        ("cursor=", "cursor", "not from a page"),
        (&foreign, "cursor", "not from a page"),
        (&crafted, "cursor", "not from a page"),
        ("limt=5", "limt", "unknown parameter"),
    ] {
        let refused = api.get(&format!("/api/v1/jobs?{query}")).await;
        let problem = problem(&refused, 400, "invalid_request");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{query}: {problem}");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(said), "{query}: {problem}");
    }
    system.finish().await;
}

#[tokio::test]
async fn a_header_out_of_its_form_is_refused_by_name() {
    let (system, api) = start(&[]).await;
    for key in ["", "\"", "\"a\"b", &"k".repeat(256)] {
        let refused = send(&api, "/api/v1/jobs", &[("idempotency-key", key)], "{\"kind\": \"echo\"}").await;
        assert_eq!(problem(&refused, 400, "invalid_request")["errors"][0]["header"], "Idempotency-Key", "{key}");
    }
    let bulk = send(&api, "/api/v1/jobs/bulk", &[("idempotency-key", "k")], "{\"jobs\": []}").await;
    assert!(problem(&bulk, 400, "invalid_request")["detail"].as_str().unwrap().contains("idempotency_key"));
    system.finish().await;
}

#[tokio::test]
async fn what_a_state_forbids_is_refused_with_advice() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    let conflict = async |api: &Api, verb: &str, state: &str| {
        let refused =
            if verb == "delete" { api.delete(&path).await } else { ask(api, &format!("{path}/{verb}")).await };
        let detail = problem(&refused, 409, "wrong_state")["detail"].as_str().unwrap();
        assert!(detail.contains(state) && detail.contains("only a"), "{verb}: {detail}");
    };
    conflict(&api, "retry", "queued").await;
    conflict(&api, "delete", "queued").await;
    let hand = Hand::of(&system).await;
    let held = hand.claim().await;
    conflict(&api, "retry", "running").await;
    conflict(&api, "delete", "running").await;
    hand.complete(held).await;
    conflict(&api, "cancel", "completed").await;
    conflict(&api, "retry", "completed").await;
    assert_eq!(api.get(&path).await.json["state"], "completed", "nothing was changed");
    system.finish().await;
}

#[tokio::test]
async fn items_that_do_not_fit_are_refused() {
    let (system, api) = start(&[]).await;
    let plain = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let parent = api.post("/api/v1/jobs", &json!({"kind": "echo", "items": [0]})).await;
    let part = json!({"first": 1, "items": [1], "last": true});
    for job in [&plain, &parent] {
        problem(&api.post(&format!("/api/v1/jobs/{}/items", id(job)), &part).await, 409, "batch_conflict");
    }
    let open = api.post("/api/v1/jobs", &json!({"kind": "echo", "items_open": true})).await;
    let path = format!("/api/v1/jobs/{}/items", id(&open));
    problem(&api.post(&path, &part).await, 409, "batch_conflict");
    let faulty = api.post(&path, &json!({"items": {}, "lst": true})).await;
    let pointers: Vec<_> = faulty.json["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/items", "/first", "/lst"]);
    let many = api.post(&path, &json!({"first": 0, "items": vec![0; 10_001]})).await;
    assert!(problem(&many, 400, "invalid_request")["detail"].as_str().unwrap().contains("10000"));
    let item = format!("/api/v1/jobs/{}-0", id(&parent));
    assert_eq!(ask(&api, &format!("{item}/cancel")).await.status, 200);
    problem(&ask(&api, &format!("{item}/retry")).await, 409, "batch_conflict");
    problem(&api.delete(&item).await, 409, "batch_conflict");
    ask(&api, &format!("/api/v1/jobs/{}/cancel", id(&open))).await;
    system.finish().await;
}

#[tokio::test]
async fn a_bulk_submits_the_good_and_names_the_bad() {
    let (system, api) = start(&[]).await;
    let jobs =
        json!({"jobs": [{"kind": "echo"}, {"kind": "E"}, 5, {"kind": "echo", "idempotency_key": ""}, {"kind": "x"}]});
    let bulk = api.post("/api/v1/jobs/bulk", &jobs).await;
    assert_eq!(bulk.status, 200, "{}", bulk.text);
    let results = &bulk.json["results"];
    assert_eq!((&results[0]["job"]["kind"], &results[4]["job"]["kind"]), (&json!("echo"), &json!("x")));
    for (at, pointer) in [(1, "/jobs/1/kind"), (2, "/jobs/2"), (3, "/jobs/3/idempotency_key")] {
        let error = &results[at]["error"];
        assert_eq!((&error["status"], &error["errors"][0]["pointer"]), (&json!(400), &json!(pointer)), "{error}");
    }
    let many = api.post("/api/v1/jobs/bulk", &json!({"jobs": vec![json!({"kind": "echo"}); 1_001]})).await;
    assert!(problem(&many, 400, "invalid_request")["detail"].as_str().unwrap().contains("1000"));
    problem(&api.post("/api/v1/jobs/bulk", &json!({})).await, 400, "invalid_request");
    assert_eq!(api.get("/api/v1/jobs").await.json["jobs"].as_array().map(Vec::len), Some(2));
    system.finish().await;
}

#[tokio::test]
async fn a_route_or_method_that_is_none_is_a_problem_too() {
    let (system, api) = start(&[]).await;
    for path in ["/nowhere", "/api/v1", "/api/v1/jobs/", "/api/v2/jobs"] {
        problem(&api.get(path).await, 404, "no_such_route");
    }
    let refused = answer(api.request(Method::PUT, "/api/v1/jobs")).await;
    problem(&refused, 405, "method_not_allowed");
    assert!(refused.headers["allow"].to_str().unwrap().contains("POST"));
    let unused = api.get("/api/v1/queues/nope").await;
    assert_eq!((unused.status, &unused.json["demand"], &unused.json["served"]), (200, &json!(0), &json!(false)));
    problem(&api.get("/api/v1/queues/NOPE").await, 400, "invalid_request");
    system.finish().await;
}
