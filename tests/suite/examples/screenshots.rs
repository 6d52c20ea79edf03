//! `screenshots`: pages rendered by Chromium, each once, whatever dies.
use leasehold::State;
use leasehold_tests::Api;

use super::site::Site;
use super::*;

const PRIVATE: (&str, &str) = ("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true");

/// Submits a batch to the route of the old service; its items are called by their paths.
async fn batch(api: &Api, site: &Site, paths: &[&str], config: Value) -> String {
    let items: Vec<Value> = paths.iter().map(|path| json!({"id": path, "url": site.url(path)})).collect();
    let answer = api.post("/batch/screenshots", &json!({"items": items, "config": config})).await;
    assert_eq!((answer.status, answer.json["total"].as_u64()), (202, Some(paths.len() as u64)), "{}", answer.text);
    answer.json["job_id"].as_str().unwrap().to_owned()
}

/// Waits for the end of a batch, and returns its items as the old service's route has them.
async fn items(five: &Five, api: &Api, id: &str) -> Value {
    five.ended(&JobId::parse(id).unwrap()).await;
    let answer = api.get(&format!("/batch/screenshots/{id}/results")).await;
    assert_eq!((answer.status, answer.json["status"].as_str()), (200, Some("completed")), "{}", answer.text);
    answer.json["items"].clone()
}

/// What is behind the URL in an item's result.
async fn image(item: &Value) -> Vec<u8> {
    let url = item["result"]["url"].as_str().unwrap_or_else(|| panic!("{item}"));
    let answer = leasehold_tests::api::client().build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    answer.bytes().await.unwrap().to_vec()
}

/// Width and height of a PNG.
fn size(png: &[u8]) -> (u32, u32) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[tokio::test]
async fn a_page_is_rendered_once_and_its_copies_stand_alone() {
    let five = Five::start(&[PRIVATE]).await;
    let (api, site) = (five.api().await, Site::start().await);
    let worker = five.worker(&[]);
    let config = json!({"width": 320, "height": 200, "format": "png"});
    let first = batch(&api, &site, &["/a", "/moved"], config.clone()).await;
    let rendered = items(&five, &api, &first).await;
    for path in ["/a", "/moved"] {
        assert_eq!(
            (&rendered[path]["status"], &rendered[path]["cached"]),
            (&json!("success"), &json!(false)),
            "{rendered}"
        );
        assert_eq!(size(&image(&rendered[path]).await), (320, 200));
    }
    assert_eq!((site.asked("/a"), site.asked("/moved"), site.asked("/page")), (1, 1, 1));

    let second = batch(&api, &site, &["/moved", "/a"], config.clone()).await;
    let copied = items(&five, &api, &second).await;
    assert_eq!((&copied["/a"]["cached"], &copied["/moved"]["cached"]), (&json!(true), &json!(true)), "{copied}");
    assert_eq!((site.asked("/a"), site.asked("/moved")), (1, 1), "none was rendered again");
    let original = image(&rendered["/a"]).await;
    assert!(api.delete(&format!("/api/v1/jobs/{first}")).await.status < 300);
    eventually(SOON, "the first batch is gone", async || {
        api.get(&format!("/batch/screenshots/{first}")).await.status == 404
    })
    .await;
    assert_eq!(image(&copied["/a"]).await, original);

    let unlike = batch(&api, &site, &["/a"], json!({"width": 320, "height": 200, "format": "jpeg"})).await;
    let jpeg = items(&five, &api, &unlike).await;
    assert_eq!(&image(&jpeg["/a"]).await[..3], b"\xff\xd8\xff");
    let anew =
        batch(&api, &site, &["/a"], json!({"width": 320, "height": 200, "format": "jpeg", "cache": false})).await;
    assert_eq!(items(&five, &api, &anew).await["/a"]["cached"], false);
    assert_eq!(site.asked("/a"), 3);
    worker.sigterm();
    five.nothing_runs().await;
    five.system.finish().await;
}

#[tokio::test]
async fn what_is_done_stays_done_when_everything_dies() {
    let five = Five::start(&[PRIVATE]).await;
    let (api, site) = (five.api().await, Site::start().await);
    let doomed = five.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "1")]);
    let id = batch(&api, &site, &["/one", "/two", "/held", "/four"], json!({"width": 200, "height": 100})).await;
    eventually(SOON, "the third is being rendered", async || site.asked("/held") == 1).await;
    doomed.kill9();
    api.kill9();
    five.system.redis().kill9();
    five.nothing_runs().await;
    five.system.redis().restart().await;
    api.restart().await;
    let half = eventually(SOON, "the batch is there", async || {
        Some(api.get(&format!("/batch/results/{id}")).await).filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(
        (&half.json["status"], &half.json["items"]["/two"]["status"]),
        (&json!("processing"), &json!("success"))
    );
    assert_eq!(size(&image(&half.json["items"]["/one"]).await), (200, 100));
    site.open_gate();
    let worker = five.worker(&[]);
    let all = items(&five, &api, &id).await;
    for (path, times) in [("/one", 1), ("/two", 1), ("/held", 2), ("/four", 1)] {
        assert_eq!((&all[path]["status"], site.asked(path)), (&json!("success"), times), "{path}: {all}");
    }
    worker.sigterm();
    five.nothing_runs().await;
    five.system.finish().await;
}

#[tokio::test]
async fn the_network_that_the_worker_stands_in_is_out_of_reach() {
    let five = Five::start(&[]).await;
    let (api, site) = (five.api().await, Site::start().await);
    let _worker = five.worker(&[]);
    let port = site.url("").rsplit(':').next().unwrap().to_owned();
    let said = "leads to a private address (127.0.0.1); set LEASEHOLD_FETCH__ALLOW_PRIVATE=true to allow it";
    let to = |host: &str| json!({"url": format!("http://{host}:{port}/page")});
    let cases = [(to("127.0.0.1"), said), (to("2130706433"), said), (to("[::ffff:127.0.0.1]"), "leads to a private")];
    fail_for_good(&five, &api, "screenshots", &cases).await;
    assert_eq!(site.asked("/page"), 0);
    five.system.finish().await;
}

#[tokio::test]
async fn addresses_that_are_not_public_are_known_in_every_dress() {
    let script = "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1]); from guard import is_public; \
                  print(*(int(is_public(a)) for a in sys.argv[2:]), sep='')";
    let run = async |addresses: &str| {
        let folder = examples().join("screenshots");
        let mut python = tokio::process::Command::new("python3");
        python.args(["-c", script]).arg(folder).args(addresses.split(' '));
        String::from_utf8(python.output().await.unwrap().stdout).unwrap().trim().to_owned()
    };
    let public = "8.8.8.8 1.1.1.1 2606:4700::1111 64:ff9b::808:808 ::ffff:8.8.8.8 2002:808:808::1";
    assert_eq!(run(public).await, "111111");
    let others = "127.0.0.1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 240.0.0.1 \
                  255.255.255.255 192.0.2.1 198.18.0.1 192.0.0.1 192.88.99.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fec0::1 ff02::1 \
                  ::ffff:127.0.0.1 ::ffff:a00:1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1::1 2001:0:7f00:1::1 ::7f00:1 \
                  2001:db8::1 3fff::1 5f00::1 100::1 nonsense";
    let known = run(others).await;
    assert_eq!(known, "0".repeat(others.split(' ').count()), "{others}");
}

#[tokio::test]
async fn what_cannot_be_rendered_says_why() {
    let five = Five::start(&[PRIVATE]).await;
    let (api, site) = (five.api().await, Site::start().await);
    let worker = five.worker(&[]);
    let page = site.url("/page");
    let cases = [
        (json!({"url": "file:///etc/passwd"}), "write http:// or https:// and a host"),
        (json!({"url": "chrome://version"}), "write http:// or https:// and a host"),
        (json!({"url": "data:text/html,x"}), "write http:// or https:// and a host"),
        (json!({"url": "http://"}), "write http:// or https:// and a host"),
        (json!({"url": "http://a:99999/"}), "write http:// or https:// and a host"),
        (json!({"url": "http://a b/"}), "white space"),
        (json!({"url": 5}), "the payload has no url"),
        (json!([]), "the payload is no object"),
        (json!({"url": page, "config": {"width": 0}}), "config.width is 0; write a number of pixels, 1 to 8192"),
        (json!({"url": page, "config": {"height": true}}), "config.height is true"),
        (json!({"url": page, "config": {"format": "gif"}}), "config.format is \"gif\"; write one of png, jpeg"),
        (json!({"url": page, "config": 5}), "config is no object"),
        (json!({"url": site.url("/missing")}), "/missing answers with status 404"),
    ];
    fail_for_good(&five, &api, "screenshots", &cases).await;
    // What may be otherwise later is a failed attempt: it is tried again.
    let away =
        submit(&api, json!({"kind": "screenshots", "payload": {"url": site.url("/away")}, "max_attempts": 1})).await;
    let error = five.ended(&away).await.error.unwrap().message;
    assert!(
        error.contains("exit code 1") && error.contains("https://no.such.host.invalid/ cannot be reached"),
        "{error}"
    );
    assert_eq!(site.asked("/page"), 0);
    worker.sigterm();
    five.nothing_runs().await;
    five.system.finish().await;
}

#[tokio::test]
async fn without_a_chromium_it_says_what_to_install() {
    let five = Five::start(&[PRIVATE]).await;
    let api = five.api().await;
    let bin = five.system.folder().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let found = tokio::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .await
        .unwrap();
    std::os::unix::fs::symlink(String::from_utf8(found.stdout).unwrap().trim(), bin.join("python3")).unwrap();
    let _worker = five.worker(&[("PATH", &bin.display().to_string())]);
    let said = "Chromium is missing; install it with: apt-get install chromium";
    fail_for_good(&five, &api, "screenshots", &[(json!({"url": "http://example.org/"}), said)]).await;
    five.system.finish().await;
}

#[tokio::test]
async fn a_page_that_never_loads_is_given_up_and_the_next_is_rendered() {
    let five = Five::start(&[PRIVATE]).await;
    let (api, site) = (five.api().await, Site::start().await);
    let worker = five.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "1")]);
    let of = |path: &str| json!({"kind": "screenshots", "payload": {"url": site.url(path)}, "max_attempts": 1});
    let never = submit(&api, of("/never")).await;
    let next = submit(&api, of("/next")).await;
    let error = five.ended(&never).await.error.unwrap().message;
    assert!(error.contains("timeout") && error.contains("did not finish loading within 30 s"), "{error}");
    assert_eq!(five.ended(&next).await.state, State::Completed);
    worker.sigterm();
    five.nothing_runs().await;
    five.system.finish().await;
}

#[tokio::test]
async fn a_batch_whose_time_is_up_leaves_nothing() {
    let five = Five::start(&[PRIVATE]).await;
    let (api, site) = (five.api().await, Site::start().await);
    let _worker = five.worker(&[("LEASEHOLD_WORKER__SWEEP_MS", "100")]);
    let id = batch(&api, &site, &["/a"], json!({"width": 100, "height": 100})).await;
    let items = items(&five, &api, &id).await;
    let (image, redis) = (items["/a"]["result"]["url"].as_str().unwrap().to_owned(), five.system.redis());
    let storage = five.system.folder().join("storage");
    let folders = || std::fs::read_dir(&storage).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).count();
    assert_eq!(folders(), 1);
    // Its 7 days are over.
    let keys: Vec<String> = redis.command(&["KEYS", "lh:*:finished:screenshots:completed"]).await;
    let changed: usize = redis.command(&["ZADD", &keys[0], "XX", "CH", "1", &id]).await;
    assert_eq!((keys.len(), changed), (1, 1));
    eventually(SOON, "nothing is left on disk", async || folders() == 0).await;
    eventually(SOON, "nothing is left in Redis", async || {
        let left: Vec<String> = redis.command(&["KEYS", &format!("lh:*:*{id}*")]).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    let gone = leasehold_tests::api::client().build().unwrap().get(&image).send().await.unwrap();
    assert_eq!((gone.status().as_u16(), api.get(&format!("/batch/results/{id}")).await.status), (404, 404));
    five.system.finish().await;
}
