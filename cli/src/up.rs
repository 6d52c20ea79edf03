//! `leasehold up`: a whole system on this machine, for development.
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold::files::folder::url_of;
use leasehold::{Config, Store};
use nix::fcntl::{Flock, FlockArg};

use crate::arguments::{NotVia, Source, reached};
use crate::failure::{Failure, complain};
use crate::local::keeper::Keeper;
use crate::local::port::{self, Port};
use crate::local::redis_server::RedisServer;
use crate::local::system::{self, Plan};
use crate::print;
use crate::stop::Signals;

/// How long the API may take to finish its requests.
const API_GRACE: Duration = Duration::from_secs(35);
/// How long Redis may take to write its files.
const REDIS_GRACE: Duration = Duration::from_secs(60);
/// What a worker may take beyond the time it gives its handlers.
const WORKER_MARGIN: Duration = Duration::from_secs(10);

/// The port of the private Redis, when it is free.
const REDIS_PORT: u16 = 6390;

/// What to start.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the private Redis's data, which is kept between runs, and of the logs.
    #[arg(long, value_name = "FOLDER", default_value = "leasehold-data")]
    data: PathBuf,
    /// Where the API listens, in place of LEASEHOLD_API__LISTEN or 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// How many workers to start.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    not_via: NotVia,
}

/// Starts a system, keeps it running, and stops it in order on a signal.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.not_via.check("it starts an API on this machine; --listen says where")?;
    let mut signals = Signals::listen()?;
    let config = arguments.source.load(arguments.listen.iter().map(|listen| ("api.listen", listen.clone())))?;
    let (logs, _lock) = own(&arguments.data)?;
    let mut keeper = Keeper::default();
    let started = tokio::select! {
        started = start(&arguments, config, &logs, &mut keeper) => started,
        () = signals.received() => Err(Failure::Said),
    };
    if started.is_ok() {
        signals.received().await;
        drop(print::line("\nstopping: the API, the workers, then Redis"));
    }
    tokio::select! {
        () = keeper.stop() => {}
        () = signals.received() => complain("second signal: everything is killed"),
    }
    started.map(|_| drop(print::line("stopped; nothing is left running")))
}

/// Locks the data folder: one `up` at a time. Returns the folder of the logs, emptied.
fn own(data: &Path) -> Result<(PathBuf, Flock<std::fs::File>), Failure> {
    let fault = |e: std::io::Error| Failure::Failed(format!("data folder {}: {e}", data.display()));
    let logs = data.join("logs");
    std::fs::create_dir_all(&logs).map_err(fault)?;
    let file = std::fs::File::create(data.join("lock")).map_err(fault)?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    let lock = lock.map_err(|(_, e)| match e {
        nix::errno::Errno::EWOULDBLOCK => Failure::Failed(format!(
            "another `leasehold up` uses {}; stop it, or name another folder with --data",
            data.display()
        )),
        e => fault(e.into()),
    })?;
    for log in std::fs::read_dir(&logs).map_err(fault)?.flatten() {
        drop(std::fs::remove_file(log.path()));
    }
    Ok((std::fs::canonicalize(logs).map_err(fault)?, lock))
}

/// Ports that stay reserved while the system is up, so that a server that dies can start again.
struct Reserved {
    redis: Option<RedisServer>,
    api: Option<Port>,
}

async fn start(
    arguments: &Arguments,
    mut config: Config,
    logs: &Path,
    keeper: &mut Keeper,
) -> Result<Reserved, Failure> {
    config.load_kinds()?;
    let own_kinds = config.kinds.is_some();
    let (listen, port) = listen(&config)?;
    let (store, redis) = redis(arguments, &mut config, logs, keeper).await?;
    let mut environment = vec![
        ("LEASEHOLD_REDIS_URL".to_owned(), config.redis_url.clone()),
        ("LEASEHOLD_API__LISTEN".to_owned(), listen.clone()),
    ];
    example(&mut config, &arguments.data, &mut environment)?;
    let file = arguments.source.config.iter();
    let plan = Plan {
        environment,
        arguments: file.flat_map(|file| ["--config".to_owned(), file.display().to_string()]).collect(),
        private: false,
        folder: None,
        logs: logs.to_owned(),
    };
    let mut workers = Vec::new();
    for number in 1..=arguments.workers {
        let program = plan.program(&format!("worker-{number}"), "leasehold-worker")?;
        let child = program.start()?;
        workers.push((program, child));
    }
    for (program, child) in &mut workers {
        system::worker_ready(program, child, &store).await?;
    }
    keeper.keep(workers, Duration::from_millis(config.worker.grace_ms) + WORKER_MARGIN);
    let api = plan.program("api", "leasehold-api")?;
    let mut child = api.start()?;
    system::api_ready(&api, &mut child, &format!("http://{listen}")).await?;
    keeper.keep(vec![(api, child)], API_GRACE);
    let reserved = Reserved { redis, api: port };
    welcome(arguments, &config, &reserved, &listen, own_kinds)?;
    Ok(reserved)
}

/// The Redis that the configuration names, or a private one.
async fn redis(
    arguments: &Arguments,
    config: &mut Config,
    logs: &Path,
    keeper: &mut Keeper,
) -> Result<(Store, Option<RedisServer>), Failure> {
    if std::env::var_os("LEASEHOLD_REDIS_URL").is_some() || config.redis_url != Config::default().redis_url {
        let store = reached(Store::connect(config).await, config);
        return match store {
            Err(Failure::Failed(reason)) if std::env::var_os("LEASEHOLD_REDIS_URL").is_some() => {
                Err(Failure::Failed(format!("{reason}\nLEASEHOLD_REDIS_URL is set; unset it to start a private Redis")))
            }
            store => Ok((store?, None)),
        };
    }
    let folder = std::fs::canonicalize(&arguments.data)?.join("redis");
    let server = RedisServer::prepare(&folder, logs.join("redis.log"), Port::prefer(REDIS_PORT)?).await?;
    config.redis_url = server.url();
    let mut child = server.program.start()?;
    let store = system::redis_ready(&server.program, &mut child, config).await?;
    keeper.keep(vec![(server.program.clone(), child)], REDIS_GRACE);
    Ok((store, Some(server)))
}

/// Where the API listens: the configured address; without one port 8080, or a free port when 8080 is taken.
fn listen(config: &Config) -> Result<(String, Option<Port>), Failure> {
    let listen = config.api.listen.clone();
    if listen != Config::default().api.listen || std::env::var_os("LEASEHOLD_API__LISTEN").is_some() {
        return match port::is_free(&listen) {
            true => Ok((listen, None)),
            false => {
                Err(Failure::Failed(format!("api.listen is {listen}, which is already in use or not a local address")))
            }
        };
    }
    if port::is_free(&listen) {
        return Ok((listen, None));
    }
    let port = Port::reserve()?;
    Ok((format!("127.0.0.1:{}", port.number()), Some(port)))
}

/// Sets the kinds and documents of the example, and a file store, where the configuration names none, for this process
/// and in the environment of the others.
fn example(config: &mut Config, data: &Path, environment: &mut Vec<(String, String)>) -> Result<(), Failure> {
    let data = std::fs::canonicalize(data)?;
    let fault = |path: &Path, e: std::io::Error| Failure::Failed(format!("{}: {e}", path.display()));
    let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
    if config.kinds.is_none() {
        let path = system::kinds(&data).map_err(|e| fault(&data, e))?;
        set("LEASEHOLD_KINDS", path.display().to_string());
        config.kinds = Some(path);
    }
    if config.document_root.is_none() {
        // Outside the project there are no samples, but a folder for documents.
        let documents = system::documents().unwrap_or_else(|| data.join("documents"));
        std::fs::create_dir_all(&documents).map_err(|e| fault(&documents, e))?;
        set("LEASEHOLD_DOCUMENT_ROOT", documents.display().to_string());
        config.document_root = Some(documents);
    }
    if config.storage_url.is_none() {
        let url = url_of(&data.join("files"));
        set("LEASEHOLD_STORAGE_URL", url.clone());
        config.storage_url = Some(url);
    }
    Ok(())
}

fn welcome(
    arguments: &Arguments,
    config: &Config,
    reserved: &Reserved,
    listen: &str,
    own_kinds: bool,
) -> Result<(), Failure> {
    let data = arguments.data.display();
    let moved = if reserved.api.is_some() { "  (port 8080 is taken)" } else { "" };
    let redis = reserved.redis.as_ref();
    let address = match redis {
        Some(server) => {
            format!("{}  (Redis {}, private; its data is kept in {data}/redis)", server.url(), server.version)
        }
        None => format!("{}  (yours)", print::without_password(&config.redis_url)),
    };
    let workers =
        format!("{} of {} slots, lease {} s", arguments.workers, config.worker.concurrency, config.lease_ms / 1_000);
    let kinds = config.load_kinds()?;
    let number = match kinds.iter().count() {
        1 => "1 kind".to_owned(),
        n => format!("{n} kinds"),
    };
    let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    print::line("Leasehold is up. Ctrl-C stops it.\n")?;
    for (name, value) in [
        ("api", format!("http://{listen}{moved}")),
        ("redis", address),
        ("workers", workers),
        ("kinds", format!("{}  ({number})", shown(&config.kinds))),
        ("documents", format!("{}  (what kind process-files reads)", shown(&config.document_root))),
        ("storage", config.storage_url.clone().unwrap_or_default()),
        ("logs", format!("{data}/logs")),
    ] {
        print::line(format_args!("  {name:9} {value}"))?;
    }
    let this = std::env::args().next().unwrap_or_else(|| "leasehold".into());
    // A Redis that was not started here is named already, and its password must not be shown.
    let doctor = redis.map_or_else(String::new, |server| format!(" --redis-url {}", server.url()));
    let own = if own_kinds { kinds.iter().next().map(|(kind, _)| kind) } else { None };
    let (submits, body) = match own {
        Some(kind) => (
            format!("  {this} jobs submit --kind {kind} --payload '{{}}' --watch"),
            format!("{{\"kind\": \"{kind}\", \"payload\": {{}}}}"),
        ),
        None => (
            ["harbour-rules.pdf", "broken-report.pdf"]
                .map(|file| {
                    format!("  {this} jobs submit --kind process-files --payload '{{\"file\": \"{file}\"}}' --watch")
                })
                .join("\n"),
            "{\"kind\": \"process-files\", \"payload\": {\"file\": \"night-shift.txt\"}}".to_owned(),
        ),
    };
    print::line(format_args!(
        "\nTry, in another terminal:\n
  export LEASEHOLD_API_URL=http://{listen}
{submits}
  {this} jobs ls
  {this} workers ls
  {this} doctor{doctor}
  curl -s $LEASEHOLD_API_URL/api/v1/jobs -H 'content-type: application/json' \\
       -d '{body}'\n"
    ))?;
    Ok(())
}
