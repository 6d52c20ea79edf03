//! Which buckets are refused at the start, and what the refusal says.
use leasehold_tests::{RedisServer, S3Server, binary};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

struct Door {
    redis: RedisServer,
    s3: S3Server,
}

impl Door {
    async fn start() -> Door {
        Door { redis: RedisServer::start().await, s3: S3Server::start() }
    }

    /// Both programs refuse the settings, and say all of this.
    async fn refuses(&self, changed: &[(&str, &str)], says: &[&str]) {
        let redis = self.redis.url();
        let own = self.s3.environment();
        let mut all: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.push(("LEASEHOLD_REDIS_URL", &redis));
        all.push(("LEASEHOLD_API__LISTEN", "127.0.0.1:0"));
        all.push(("LEASEHOLD_STORAGE_URL", "s3://files/jobs"));
        all.retain(|(name, _)| !changed.contains(&(name, "")));
        all.extend(changed.iter().filter(|(_, value)| !value.is_empty()));
        for program in ["leasehold-api", "leasehold-worker"] {
            let output = binary::run(program, &[], &all, LIMIT).await;
            assert_eq!(output.status.code(), Some(1), "{program}: {}", output.stderr);
            for words in says {
                assert!(output.stderr.contains(words), "{program} says {:?}, not {words:?}", output.stderr);
            }
            assert!(!output.stderr.contains("leasehold-test-secret"), "{}", output.stderr);
        }
    }
}

#[tokio::test]
async fn a_url_that_names_no_bucket_is_refused() {
    let door = Door::start().await;
    for (url, says) in [
        ("ftp://files/jobs", ["its scheme is not known", "s3://bucket/prefix"]),
        ("s3://", ["the bucket is missing", "write s3://bucket/prefix"]),
        ("s3://a:b@files", ["set in the environment", "write s3://bucket/prefix"]),
        ("az://container", ["Account must be specified", "set AZURE_STORAGE_ACCOUNT_NAME"]),
    ] {
        door.refuses(&[("LEASEHOLD_STORAGE_URL", url)], &says).await;
    }
}

#[tokio::test]
async fn a_bucket_that_cannot_be_used_is_refused_with_what_to_do() {
    let door = Door::start().await;
    let missing = [("LEASEHOLD_STORAGE_URL", "s3://other/jobs")];
    door.refuses(&missing, &["the bucket \"other\" does not exist", "create it"]).await;
    let wrong = [("AWS_SECRET_ACCESS_KEY", "wrong")];
    door.refuses(&wrong, &["s3://files/jobs", "was denied", "set AWS_ACCESS_KEY_ID", "SignatureDoesNotMatch"]).await;
    let half = [("AWS_SECRET_ACCESS_KEY", "")];
    door.refuses(&half, &["Missing SecretAccessKey", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"]).await;
    for (operation, action) in [
        ("ListObjectsV2", "listing its objects was denied"),
        ("GetObject", "reading an object was denied"),
        ("PutObject", "writing an object was denied"),
        ("DeleteObjects", "deleting an object was denied"),
    ] {
        door.s3.deny(&[operation]);
        door.refuses(&[], &[action, "s3:PutObject, s3:DeleteObject"]).await;
    }
}

#[tokio::test]
async fn missing_credentials_and_endpoints_are_refused_with_what_to_set() {
    let door = Door::start().await;
    // Where no role is to be had either.
    let none =
        [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")];
    door.refuses(&none, &["the environment has no credentials", "set AWS_ACCESS_KEY_ID"]).await;
    let plain = [("AWS_ALLOW_HTTP", "")];
    door.refuses(&plain, &["AWS_ALLOW_HTTP=true for http://"]).await;
    door.s3.stop();
    door.refuses(&[], &["listing its objects failed", "AWS_ENDPOINT_URL"]).await;
}

#[tokio::test]
async fn a_bucket_with_other_contents_or_another_owner_is_refused() {
    let door = Door::start().await;
    std::fs::create_dir_all(door.s3.path("theirs")).unwrap();
    std::fs::write(door.s3.path("theirs/photo.jpg"), "x").unwrap();
    let whole = [("LEASEHOLD_STORAGE_URL", "s3://files")];
    door.refuses(&whole, &["theirs/photo.jpg is in it", "a prefix under which there is nothing"]).await;
    assert!(door.s3.path("theirs/photo.jpg").exists());
    let system = System::start(&[]).await;
    let own = door.s3.environment();
    let mut all: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.push(("LEASEHOLD_STORAGE_URL", "s3://files/jobs"));
    system.api(&all).await.wait_ready().await;
    let marker = std::fs::read_to_string(door.s3.path("jobs/.leasehold-files")).unwrap();
    assert_eq!(std::fs::read_dir(door.s3.path("jobs")).unwrap().count(), 1, "nothing of the probe is left");
    // A second process of the same Redis takes it, another Redis does not.
    system.api(&all).await.wait_ready().await;
    door.refuses(&[], &["whose files belong to the Redis", marker.trim(), "redis-cli HSET lh:meta files"]).await;
    let () = door.redis.command(&["HSET", "lh:meta", "files", "other"]).await;
    door.refuses(&[], &["it belongs to another Redis", marker.trim()]).await;
    system.finish().await;
}
