//! Files sent with a job and fetched again, through both doors; and tokens, which every door's owner may ask for.
use std::fs;

use leasehold_tests::{Process, System};
use serde_json::json;

use super::{SOON, fails, json, ok};

const KINDS: &str = r#"
[kinds.copy]
command = ["sh", "-c", "cat in/a.txt in/b.bin > out/both.bin; echo '{\"result\": 1}'"]
"#;

#[tokio::test]
async fn files_go_in_and_come_out_through_both_doors_byte_by_byte() {
    let kinds = tempfile::tempdir().unwrap();
    fs::write(kinds.path().join("kinds.toml"), KINDS).unwrap();
    let kinds_file = kinds.path().join("kinds.toml").display().to_string();
    let system = System::start(&[("LEASEHOLD_KINDS", &kinds_file)]).await;
    let (worker, api) = (system.worker(&[]), system.api(&[]).await);
    let at = |name: &str| system.folder().join(name).display().to_string();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    fs::write(at("a.txt"), "first\n").unwrap();
    fs::write(at("b.bin"), &bytes).unwrap();
    fs::create_dir(at("folder")).unwrap();
    let both = [b"first\n".as_slice(), &bytes].concat();
    let url = api.url("");
    for (number, door) in [vec![], vec!["--api", url.as_str()]].into_iter().enumerate() {
        let with = |words: &[&str]| -> Vec<String> { words.iter().chain(&door).map(|&w| w.to_owned()).collect() };
        let run = async |words: &[&str]| {
            let words = with(words);
            ok(&system, &words.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        let refused = async |code: i32, words: &[&str], said: &str| {
            let words = with(words);
            fails(&system, code, &words.iter().map(String::as_str).collect::<Vec<_>>(), said).await;
        };
        let key = format!("key-{number}");
        let (a, b) = (at("a.txt"), at("b.bin"));
        let submit = ["jobs", "submit", "--kind", "copy", "--idempotency-key", &key, "--file", &a, "--file", &b];
        let id = run(&[&submit[..], &["--wait", "20s"]].concat()).await.lines().next().unwrap().to_owned();
        assert_eq!(run(&submit).await.trim(), id, "the same files with the same key are the same job");
        let listed = json(&system, &["jobs", "files", &id]).await["files"].clone();
        let view = |name: &str, bytes: usize, direction: &str, sort: &str| json!({"name": name, "bytes": bytes, "direction": direction, "content_type": sort});
        let (sort, plain) = ("application/octet-stream", "text/plain");
        assert_eq!(
            listed,
            json!([
                view("both.bin", both.len(), "out", sort),
                view("a.txt", 6, "in", plain),
                view("b.bin", bytes.len(), "in", sort)
            ])
        );
        let target = at(&format!("fetched-{number}"));
        run(&["jobs", "files", &id, "--get", "both.bin", "--to", &target]).await;
        assert_eq!(fs::read(&target).unwrap(), both);
        refused(1, &["jobs", "files", &id, "--get", "a.txt", "--to", &target], "exists already; give --force").await;
        assert_eq!(fs::read(&target).unwrap(), both, "it is left alone");
        run(&["jobs", "files", &id, "--get", "a.txt", "--to", &target, "--force"]).await;
        assert_eq!(fs::read(&target).unwrap(), b"first\n");
        assert_eq!(run(&["jobs", "files", &id, "--get", "a.txt", "--to", "-"]).await, "first\n");
        refused(1, &["jobs", "files", &id, "--get", "c.txt"], "has no file \"c.txt\"").await;
        refused(2, &["jobs", "files", &id, "--get", "../a.txt"], "send the name alone").await;
        refused(1, &["jobs", "files", "nobody"], "there is no job nobody").await;
        refused(2, &["jobs", "submit", "--kind", "copy", "--file", &at("folder")], "it is a folder").await;
        refused(2, &["jobs", "submit", "--kind", "copy", "--file", &a, "--file", &a], "another file has this name")
            .await;
        refused(2, &["jobs", "submit", "--kind", "copy", "--file", "/no/such"], "No such file").await;
        run(&["jobs", "rm", &id]).await;
    }
    drop((worker, api));
    system.finish().await;
}

#[tokio::test]
async fn a_token_is_asked_for_given_and_never_shown() {
    let system = System::start(&[]).await;
    let made = system.command(&["tokens", "new", "reader", "read"], &[]).await;
    let token = made.stderr.trim().rsplit(' ').next().unwrap().to_owned();
    let at = |name: &str| system.folder().join(name).display().to_string();
    fs::write(at("tokens"), &made.stdout).unwrap();
    fs::write(at("token"), format!("{token}\n")).unwrap();
    let api = system.api(&[("LEASEHOLD_API__TOKENS", &at("tokens"))]).await;
    let url = api.url("");
    let list = ["jobs", "ls", "--api", &url];
    fails(&system, 1, &list, "it needs a token: give --token-file").await;
    let wrong =
        fails(&system, 1, &[&list[..], &["--token", "wrong-secret"]].concat(), "does not know this token").await;
    assert!(!wrong.stderr.contains("wrong-secret"), "{wrong:?}");
    ok(&system, &[&list[..], &["--token-file", &at("token")]].concat()).await;
    for variable in [("LEASEHOLD_API_TOKEN", token.as_str()), ("LEASEHOLD_API_TOKEN_FILE", &at("token"))] {
        let listed = system.command(&list, &[variable]).await;
        assert_eq!((listed.status.code(), listed.stderr.as_str()), (Some(0), ""), "{variable:?}");
        let submit = ["jobs", "submit", "--kind", "a", "--api", &url];
        let refused = system.command(&submit, &[variable]).await;
        assert!(refused.stderr.contains("this token does not allow it"), "{refused:?}");
        assert!(!refused.stderr.contains(&token), "{refused:?}");
    }
    drop(api);
    system.finish().await;
}

#[tokio::test]
async fn an_api_that_is_none_is_named() {
    let system = System::start(&[]).await;
    let port = leasehold_tests::Port::reserve();
    let address = port.address().to_string();
    let (_, number) = address.rsplit_once(':').unwrap();
    let server = Process::start("python3".as_ref(), &["-m", "http.server", "--bind", "127.0.0.1", number], &[]);
    let url = format!("http://{address}");
    let client = leasehold_tests::api::client().build().unwrap();
    leasehold_tests::eventually(SOON, "it serves", async || client.get(&url).send().await.ok().map(drop)).await;
    fails(&system, 1, &["jobs", "ls", "--api", &url], "not as Leasehold's API does; is it one?").await;
    drop(server);
    system.finish().await;
}
