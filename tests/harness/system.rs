//! A whole Leasehold for one test: Redis, an API, workers, and the check at the end.

use std::ops::Deref;
use std::path::Path;
use std::thread;
use std::time::Duration;

use leasehold::store::Finding;
use leasehold::{Config, Store};
use tempfile::TempDir;

use crate::api::Api;
use crate::binary::{Output, run};
use crate::process::Process;
use crate::redis::RedisServer;
use crate::wait::eventually;

/// How long a run of the `leasehold` command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// How long a walk over a test's keys may take.
const WALK_LIMIT: Duration = Duration::from_secs(2);

/// A Redis of the test's own, and what all processes of the test have in common.
///
/// A test ends it with [`System::finish`]; one that forgets to fails.
#[derive(Debug)]
pub struct System {
    redis: RedisServer,
    folder: TempDir,
    environment: Vec<(String, String)>,
    finished: bool,
}

/// A running `leasehold-worker`. Dropping it kills it.
#[derive(Debug)]
pub struct Worker(Process);

impl Worker {
    /// Starts a worker, with `environment` on top; it may still be connecting when this returns.
    ///
    /// # Panics
    /// When it is not built.
    pub fn start(redis_url: &str, environment: &[(&str, &str)]) -> Worker {
        let mut variables = vec![("LEASEHOLD_REDIS_URL", redis_url)];
        variables.extend_from_slice(environment);
        Worker(Process::ours("leasehold-worker", &[], &variables))
    }

    /// A worker of another program.
    pub fn of(process: Process) -> Worker {
        Worker(process)
    }
}

impl Deref for Worker {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl System {
    /// A Redis with the settings we ship; `environment` is for all processes started from here.
    pub async fn start(environment: &[(&str, &str)]) -> System {
        System::with_redis(RedisServer::start().await, environment)
    }

    /// The same on a Redis started otherwise.
    pub fn with_redis(redis: RedisServer, environment: &[(&str, &str)]) -> System {
        let folder =
            tempfile::Builder::new().prefix("leasehold-test-").tempdir().expect("a temporary folder can be made");
        let storage = format!("file://{}/storage", folder.path().display());
        let environment = [("LEASEHOLD_STORAGE_URL", storage.as_str())].into_iter().chain(environment.iter().copied());
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        System { redis, folder, environment, finished: false }
    }

    /// The Redis.
    pub fn redis(&self) -> &RedisServer {
        &self.redis
    }

    /// A folder for what processes share; it goes with the system.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts an API. `environment` wins over the system's: name a proxy's URL as
    /// `LEASEHOLD_REDIS_URL` to break its network.
    pub async fn api(&self, environment: &[(&str, &str)]) -> Api {
        Api::start(&self.redis.url(), &self.variables(environment)).await
    }

    /// Starts a worker; `environment` as in [`System::api`].
    pub fn worker(&self, environment: &[(&str, &str)]) -> Worker {
        Worker::start(&self.redis.url(), &self.variables(environment))
    }

    /// Runs the `leasehold` command to its end, at most for two minutes.
    pub async fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let url = self.redis.url();
        let mut variables = vec![("LEASEHOLD_REDIS_URL", url.as_str())];
        variables.extend(self.variables(environment));
        run("leasehold", arguments, &variables, COMMAND_LIMIT).await
    }

    /// Ends the test: walks the keys and checks the invariants, with all that still runs running.
    ///
    /// On a live system one walk sees different moments, so a finding counts that all walks of two
    /// renewals see.
    ///
    /// # Panics
    /// When Redis is away, or an invariant does not hold.
    pub async fn finish(mut self) {
        self.finished = true;
        self.redis.wait_ready().await;
        check_invariants(&self.redis.url(), self.lease_ms()).await;
    }

    /// Ends the test without a check, which another failure has made pointless.
    pub fn abandon(mut self) {
        self.finished = true;
    }

    fn lease_ms(&self) -> u64 {
        let set = self.environment.iter().rfind(|(name, _)| name == "LEASEHOLD_LEASE_MS");
        set.map_or(Config::default().lease_ms, |(_, value)| value.parse().expect("a lease is a number of ms"))
    }

    fn variables<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.environment.iter();
        own.map(|(name, value)| (name.as_str(), value.as_str())).chain(more.iter().copied()).collect()
    }
}

/// Walks the keys of a Redis and checks the invariants, as [`System::finish`] does.
///
/// # Panics
/// When Redis is away, or an invariant does not hold.
pub async fn check_invariants(redis_url: &str, lease_ms: u64) {
    let config = Config { redis_url: redis_url.to_owned(), ..Config::default() };
    let store = Store::connect_unchecked(&config).await.expect("the doctor's connection works");
    let mut standing: Option<Vec<Finding>> = None;
    let limit = Duration::from_millis(lease_ms / 3) + WALK_LIMIT;
    eventually(limit, "the invariants hold", async || {
        let mut seen = store.check().await.map_err(|error| format!("{error:?}"))?;
        if let Some(before) = &standing {
            seen.retain(|finding| before.contains(finding));
        }
        let nothing = seen.is_empty();
        let text = format!("{seen:#?}");
        standing = Some(seen);
        nothing.then_some(()).ok_or(text)
    })
    .await;
}

impl Drop for System {
    fn drop(&mut self) {
        assert!(
            self.finished || thread::panicking(),
            "the test ends without System::finish, so nobody has checked the invariants"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "without System::finish")]
    async fn a_test_cannot_forget_the_check() {
        drop(System::start(&[]).await);
    }

    #[tokio::test]
    async fn a_finished_system_leaves_quietly() {
        System::start(&[]).await.finish().await;
    }

    #[tokio::test]
    #[should_panic(expected = "the invariants hold; last:")]
    async fn a_broken_invariant_fails_the_test() {
        let system = System::start(&[("LEASEHOLD_LEASE_MS", "1000")]).await;
        let () = system.redis().command(&["ZADD", "lh:{0}:leases", "1", "nobody"]).await;
        system.finish().await;
    }
}
