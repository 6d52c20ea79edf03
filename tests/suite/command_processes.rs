//! What commands cannot do: find a secret of the worker, leave a process behind, or have another folder kept as theirs.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use leasehold::{Config, Job, JobId, State, Store};
use leasehold_tests::{Api, RedisServer, System, Worker, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use crate::steered_command::{SOON, submit};

/// Of the secrets that the worker has, and that no command may find.
const SECRET: &str = "hidden-from-commands";

/// A daemon: in a session of its own, without its parent, with no pipe of the command, and elsewhere.
const DAEMON: &str = r#"
sh=$(dirname "$0")
setsid sh -c 'cd /; (sleep 1000 & echo $! > "$1/new") >/dev/null 2>&1 </dev/null &' - "$sh"
while [ ! -s "$sh/new" ]; do sleep 0.01; done
mv "$sh/new" "$sh/pid"
"#;

/// Known by its group alone: it has neither the environment nor the folder of its command.
const DISGUISED: &str = r#"
sh=$(dirname "$0")
cd /
env -i sleep 1000 >/dev/null 2>&1 </dev/null &
echo $! > "$sh/new"
mv "$sh/new" "$sh/pid"
wait
"#;

const SCRIPTS: [(&str, &str); 5] = [
    ("disguised", DISGUISED),
    // What `ps e` shows of the worker and of all others.
    ("snoop", "cat /proc/$PPID/environ /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' > out/seen; env >> out/seen"),
    ("linked", "rm -rf out; ln -s /etc out"),
    ("replaced", "rm -rf out; echo > out"),
    ("user", "(id -u; id -G; cat in/note.txt; pwd) > out/user; touch ours"),
];

struct Ground {
    system: System,
    store: Store,
    api: Api,
    folder: TempDir,
}

impl Ground {
    async fn start() -> Self {
        let folder = TempDir::with_prefix("leasehold-processes-").unwrap();
        // Commands that run as another user read their scripts here.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut kinds = String::new();
        let daemons =
            [("daemon", format!("{DAEMON} echo '{{\"result\": 1}}'")), ("stays", format!("{DAEMON} sleep 1000"))];
        let scripts = SCRIPTS.map(|(kind, script)| (kind, script.to_owned()));
        for (kind, script) in scripts.into_iter().chain(daemons) {
            fs::write(folder.path().join(format!("{kind}.sh")), script).unwrap();
            kinds += &format!("[kinds.{kind}]\ncommand = [\"sh\", \"{{dir}}/{kind}.sh\"]\nmax_attempts = 1\n");
        }
        fs::write(folder.path().join("kinds.toml"), kinds).unwrap();
        let kinds = folder.path().join("kinds.toml").display().to_string();
        let files = format!("file://{}/files", folder.path().display());
        let redis = RedisServer::start().await;
        let url = redis.url();
        let environment =
            [("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_STORAGE_URL", &files), ("LEASEHOLD_LEASE_MS", "3000")];
        let system = System::with_redis(redis, &environment);
        let store = Store::connect(&Config { redis_url: url, ..Config::default() }).await.unwrap();
        let api = system.api(&[]).await;
        Self { system, store, api, folder }
    }

    async fn ended(&self, id: &JobId) -> Job {
        let ended = async || self.store.get(id).await.ok().flatten().filter(|job| job.state.is_final());
        eventually(SOON, "the job ends", ended).await
    }

    /// The process that a command has left, once it runs.
    async fn left(&self) -> PathBuf {
        let path = self.folder.path().join("pid");
        let pid = async || fs::read_to_string(&path).ok().filter(|pid| pid.ends_with('\n'));
        let pid = eventually(SOON, "the command has started a daemon", pid).await;
        Path::new("/proc").join(pid.trim())
    }
}

/// Whether a process runs: a zombie has no command line.
fn runs(process: &Path) -> bool {
    fs::read(process.join("cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test]
async fn a_command_finds_no_secret_of_the_worker() {
    let ground = Ground::start().await;
    let secrets = [
        ("LEASEHOLD_REDIS__SENTINEL_PASSWORD", SECRET),
        ("LEASEHOLD_API_TOKEN", SECRET),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("SHOWN_TO_COMMANDS", "yes"),
    ];
    let worker = ground.system.worker(&secrets);
    let id = submit(&ground.api, "snoop").await;
    assert_eq!(ground.ended(&id).await.state, State::Completed);
    let seen = ground.api.get(&format!("/api/v1/jobs/{id}/files/seen")).await.text;
    assert!(seen.contains("SHOWN_TO_COMMANDS=yes"), "{seen}");
    let own = fs::read(format!("/proc/{}/environ", worker.pid())).unwrap();
    let own = String::from_utf8_lossy(&own);
    assert!(own.contains("SHOWN_TO_COMMANDS=yes") && own.contains("LEASEHOLD_REDIS_URL="), "{own}");
    assert!(!own.contains(SECRET) && !own.contains("redis://"), "{own}");
    ground.system.finish().await;
}

#[tokio::test]
async fn the_password_of_redis_comes_from_a_file() {
    let redis = RedisServer::start().await;
    let folder = TempDir::with_prefix("leasehold-password-").unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "wrong\n").unwrap();
    let _: String = redis.command(&["CONFIG", "SET", "requirepass", "s/e:c@ret %"]).await;
    let run = async || {
        let url = redis.url();
        let environment =
            [("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_REDIS_PASSWORD_FILE", file.to_str().unwrap())];
        leasehold_tests::run("leasehold", &["queues", "list"], &environment, SOON).await
    };
    let wrong = run().await;
    assert!(!wrong.status.success() && !wrong.stderr.contains("wrong\n"), "{wrong:?}");
    fs::write(&file, "s/e:c@ret %\n").unwrap();
    let right = run().await;
    assert!(right.status.success(), "{right:?}");
    let shown = leasehold_tests::run(
        "leasehold",
        &["config"],
        &[("LEASEHOLD_REDIS_PASSWORD_FILE", file.to_str().unwrap())],
        SOON,
    )
    .await;
    assert!(shown.stdout.contains("redis_password_file") && !shown.stdout.contains("ret"), "{shown:?}");
    fs::remove_file(&file).unwrap();
    assert!(run().await.stderr.contains("redis_password_file names"));
}

#[tokio::test]
async fn a_daemon_of_a_command_ends_with_the_attempt() {
    let ground = Ground::start().await;
    let worker = ground.system.worker(&[]);
    let id = submit(&ground.api, "daemon").await;
    let job = ground.ended(&id).await;
    assert_eq!(job.state, State::Completed, "{:?}", job.error);
    let left = ground.left().await;
    assert!(!runs(&left), "{}", left.display());
    assert!(
        worker.stderr().contains("left 1 processes running") || worker.stderr().contains("left 2"),
        "{}",
        worker.stderr()
    );
    ground.system.finish().await;
}

#[tokio::test]
async fn a_daemon_of_a_command_ends_with_a_killed_worker() {
    let ground = Ground::start().await;
    let worker = ground.system.worker(&[]);
    let id = submit(&ground.api, "stays").await;
    let left = ground.left().await;
    assert!(runs(&left));
    worker.kill9();
    eventually(SOON, "the daemon ends", async || !runs(&left)).await;
    ground.api.post(&format!("/api/v1/jobs/{id}/cancel"), &serde_json::json!({})).await;
    let _other = ground.system.worker(&[]);
    ground.ended(&id).await;
    ground.system.finish().await;
}

/// The shell that guards the commands of this worker.
async fn guard_of(worker: &Worker) -> i32 {
    let parent = format!("PPid:\t{}\n", worker.pid());
    let is_guard = |process: &Path| {
        let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        line.ends_with("command-guard\0")
            && fs::read_to_string(process.join("status")).is_ok_and(|status| status.contains(&parent))
    };
    let find =
        async || fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path())).find(|p| is_guard(p));
    let found = eventually(SOON, "the worker has a guard", find).await;
    found.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_guard_that_is_killed_has_a_successor_that_knows_what_runs() {
    let ground = Ground::start().await;
    let worker = ground.system.worker(&[]);
    let id = submit(&ground.api, "disguised").await;
    let left = ground.left().await;
    let first = guard_of(&worker).await;
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    eventually(SOON, "another guard", async || guard_of(&worker).await != first).await;
    assert!(runs(&left));
    worker.kill9();
    eventually(SOON, "what the command has started ends", async || !runs(&left)).await;
    ground.api.post(&format!("/api/v1/jobs/{id}/cancel"), &serde_json::json!({})).await;
    let _other = ground.system.worker(&[]);
    ground.ended(&id).await;
    ground.system.finish().await;
}

#[tokio::test]
async fn what_has_taken_the_place_of_the_output_folder_is_refused() {
    let ground = Ground::start().await;
    let _worker = ground.system.worker(&[]);
    for kind in ["linked", "replaced"] {
        let id = submit(&ground.api, kind).await;
        let job = ground.ended(&id).await;
        let message = job.error.map(|error| error.message).unwrap_or_default();
        assert!(job.state == State::Failed && message.contains("out is a link or a file"), "{kind}: {message}");
    }
    ground.system.finish().await;
}

#[tokio::test]
async fn commands_run_as_the_user_that_the_settings_name() {
    let ground = Ground::start().await;
    let setting = "LEASEHOLD_WORKER__COMMAND_USER";
    if !Uid::effective().is_root() {
        println!("SKIPPED: only root can run commands as another user");
        return ground.system.finish().await;
    }
    let _worker = ground.system.worker(&[(setting, "54321:54322"), ("LEASEHOLD_API_TOKEN", SECRET)]);
    let form = reqwest::multipart::Form::new()
        .text("job", r#"{"kind": "user"}"#)
        .part("file", reqwest::multipart::Part::bytes(b"a note\n".to_vec()).file_name("note.txt"));
    let request = ground.api.request(reqwest::Method::POST, "/api/v1/jobs").multipart(form);
    let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    let id = JobId::parse(answer["id"].as_str().unwrap()).unwrap();
    let job = ground.ended(&id).await;
    assert_eq!(job.state, State::Completed, "{:?}", job.error);
    let seen = ground.api.get(&format!("/api/v1/jobs/{id}/files/user")).await.text;
    assert!(seen.starts_with("54321\n54322\na note\n"), "{seen}");
    for (value, said) in [("nobody-of-this-name", "no such user"), ("54321", "uid:gid"), ("root", "would run as root")]
    {
        let worker = ground.system.worker(&[(setting, value)]);
        assert!(!worker.wait_exit(SOON).await.success() && worker.stderr().contains(said), "{}", worker.stderr());
    }
    ground.system.finish().await;
}
