//! What befalls a bucket while jobs use it: it goes away, loses replies, denies; and clients that break off.
use super::bucket::Shore;
use super::*;

#[tokio::test]
async fn a_lost_reply_is_repeated_and_the_file_is_whole() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let _worker = shore.worker(&[]);
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    // Starting the upload, a part of it, completing it, and a file of a single request; of the input and the output.
    for (method, words) in [("POST", "?uploads"), ("PUT", "partNumber=2"), ("POST", "?uploadId="), ("PUT", "small")] {
        shore.s3.lose_replies(method, words, 1);
    }
    let id = submit(&api, "part", &[("big", &content), ("small", b"s")]).await;
    assert_eq!(shore.s3.replies_to_lose(), 0, "each was met");
    for (method, words) in [("PUT", "partNumber=3"), ("POST", "?uploadId="), ("GET", "/in/big")] {
        shore.s3.lose_replies(method, words, 1);
    }
    shore.ground.completed(&id).await;
    for query in ["?direction=in", "?direction=out"] {
        let got = api.request(Method::GET, &format!("/api/v1/jobs/{id}/files/big{query}")).send().await.unwrap();
        assert!(got.bytes().await.unwrap() == content, "{query}");
        assert_eq!(api.get(&format!("/api/v1/jobs/{id}/files/small{query}")).await.text, "s");
    }
    shore.finish().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_in_the_bucket() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let mut head = body(&[("name=\"job\"", None, b"{\"kind\": \"part\"}"), ("name=\"big\"", None, &[7; 18 << 20])]);
    head.truncate(head.len() - 10_000);
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(1);
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = api.request(Method::POST, "/api/v1/jobs").header("content-type", content_type);
    let sent = tokio::spawn(request.body(reqwest::Body::wrap_stream(Box::pin(stream))).send());
    sender.send(Ok(head)).await.unwrap();
    eventually(SOON, "a part is in the bucket", async || shore.s3.unfinished().len() > 2).await;
    sent.abort();
    drop(sender);
    shore.nothing_is_left().await;
    shore.finish().await;
}

#[tokio::test]
async fn a_bucket_that_is_away_charges_no_attempt_and_loses_nothing() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let worker = shore.worker(&[]);
    let gate = shore.ground.kinds.path().join("gate");
    let id = submit(&api, "gated", &[("a", b"kept")]).await;
    eventually(SOON, "it runs", async || shore.ground.kinds.path().join("gate.reached").exists()).await;
    shore.s3.stop();
    std::fs::write(&gate, "").unwrap();
    let released = "released, no attempt charged: cannot keep the files in out/: the file store failed";
    let noted = eventually(SOON, "the job is released", async || {
        let history = shore.ground.store.history(&id).await.unwrap();
        history.into_iter().find_map(|entry| entry.message.filter(|message| message.contains(released)))
    });
    noted.await;
    let job = shore.ground.store.get(&id).await.unwrap().unwrap();
    assert_eq!((job.attempt, job.error), (1, None));
    let got = api.get(&format!("/api/v1/jobs/{id}/files/a")).await;
    problem(&got, 503, "file_store_failed", "try again later");
    let parts: &[Part<'_>] = &[("name=\"job\"", None, b"{\"kind\": \"part\"}"), ("name=\"a\"", None, b"x")];
    problem(&upload(&api, None, parts).await, 503, "file_store_failed", "nothing was done");
    assert!(worker.is_running() && api.is_running());
    shore.s3.resume();
    shore.ground.completed(&id).await;
    assert_eq!(api.get(&format!("/api/v1/jobs/{id}/files/a?direction=out")).await.text, "kept");
    shore.ground.completed(&id_of(&upload(&api, None, parts).await, 202)).await;
    shore.finish().await;
}

#[tokio::test]
async fn a_bucket_that_denies_later_is_an_error_and_not_a_missing_file() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let id = submit(&api, "note", &[("a", b"kept")]).await;
    shore.s3.deny(&["GetObject", "PutObject", "CreateMultipartUpload"]);
    problem(&api.get(&format!("/api/v1/jobs/{id}/files/a")).await, 503, "file_store_failed", "try again later");
    let large = vec![1; 9 << 20];
    for content in [b"x".as_slice(), &large] {
        let parts: &[Part<'_>] = &[("name=\"job\"", None, b"{\"kind\": \"part\"}"), ("name=\"a\"", None, content)];
        problem(&upload(&api, None, parts).await, 503, "file_store_failed", "nothing was done");
    }
    shore.s3.deny(&["DeleteObject", "DeleteObjects"]);
    assert_eq!(answer(api.request(Method::POST, &format!("/api/v1/jobs/{id}/cancel"))).await.status, 200);
    assert_eq!(answer(api.request(Method::DELETE, &format!("/api/v1/jobs/{id}"))).await.status, 204, "the job goes");
    assert_eq!(shore.left(), [format!("{id}/in/a")], "its files are the sweep's");
    shore.s3.deny(&[]);
    let _worker = shore.worker(&[("LEASEHOLD_FILES__WALK_MS", "200"), ("LEASEHOLD_FILES__ORPHAN_MS", "1000")]);
    shore.nothing_is_left().await;
    shore.finish().await;
}
