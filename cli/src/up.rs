//! `leasehold up`: a whole system on this machine that stays up, for trying things.
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

/// The folder of kind process-files.
const DOCUMENT_ROOT: &str = "LEASEHOLD_DOCUMENT_ROOT";

/// What to start.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the private Redis keeps its data, over runs; logs too.
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

/// Starts a system, keeps it up, and stops it in order when told to.
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
        () = signals.received() => complain("told to stop twice: everything is killed"),
    }
    started.map(|_| drop(print::line("stopped; nothing is left running")))
}

/// Makes the data folder ours: one `up` at a time. Returns the folder of the logs, emptied.
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

/// Ports that stay ours as long as the system is up, so that what dies can start on its own again.
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
    let (listen, port) = listen(&config)?;
    let (store, redis) = redis(arguments, &mut config, logs, keeper).await?;
    let mut environment = vec![
        ("LEASEHOLD_REDIS_URL".to_owned(), config.redis_url.clone()),
        ("LEASEHOLD_API__LISTEN".to_owned(), listen.clone()),
    ];
    environment.extend(example(&config, &arguments.data)?);
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
    welcome(arguments, &config, &reserved, &listen, &plan.environment)?;
    Ok(reserved)
}

/// The Redis that the configuration names, or one of our own.
async fn redis(
    arguments: &Arguments,
    config: &mut Config,
    logs: &Path,
    keeper: &mut Keeper,
) -> Result<(Store, Option<RedisServer>), Failure> {
    if std::env::var_os("LEASEHOLD_REDIS_URL").is_some() || config.redis_url != Config::default().redis_url {
        return Ok((reached(Store::connect(config).await, config)?, None));
    }
    let folder = std::fs::canonicalize(&arguments.data)?.join("redis");
    let server = RedisServer::prepare(&folder, logs.join("redis.log")).await?;
    config.redis_url = server.url();
    let mut child = server.program.start()?;
    let store = system::redis_ready(&server.program, &mut child, config).await?;
    keeper.keep(vec![(server.program.clone(), child)], REDIS_GRACE);
    Ok((store, Some(server)))
}

/// Where the API listens: where it was told to, or on 8080, or on a free port when that is taken and was not asked for.
fn listen(config: &Config) -> Result<(String, Option<Port>), Failure> {
    let listen = config.api.listen.clone();
    if listen != Config::default().api.listen || std::env::var_os("LEASEHOLD_API__LISTEN").is_some() {
        return match port::is_free(&listen) {
            true => Ok((listen, None)),
            false => Err(Failure::Failed(format!("api.listen is {listen}, which is taken or none of this machine's"))),
        };
    }
    if port::is_free(&listen) {
        return Ok((listen, None));
    }
    let port = Port::reserve()?;
    Ok((format!("127.0.0.1:{}", port.number()), Some(port)))
}

/// The kinds and documents of the example, and a file store, where the configuration names none.
fn example(config: &Config, data: &Path) -> Result<Vec<(String, String)>, Failure> {
    let data = std::fs::canonicalize(data)?;
    let fault = |path: &Path, e: std::io::Error| Failure::Failed(format!("{}: {e}", path.display()));
    let mut environment = Vec::new();
    if config.kinds.is_none() {
        let path = system::kinds(&data).map_err(|e| fault(&data, e))?;
        environment.push(("LEASEHOLD_KINDS".to_owned(), path.display().to_string()));
    }
    if config.document_root.is_none() {
        // Out of the project there are no samples, but a place for documents of one's own.
        let documents = system::documents().unwrap_or_else(|| data.join("documents"));
        std::fs::create_dir_all(&documents).map_err(|e| fault(&documents, e))?;
        environment.push((DOCUMENT_ROOT.to_owned(), documents.display().to_string()));
    }
    if config.storage_url.is_none() {
        environment.push(("LEASEHOLD_STORAGE_URL".to_owned(), url_of(&data.join("files"))));
    }
    Ok(environment)
}

fn welcome(
    arguments: &Arguments,
    config: &Config,
    reserved: &Reserved,
    listen: &str,
    environment: &[(String, String)],
) -> std::io::Result<()> {
    let data = arguments.data.display();
    let moved = if reserved.api.is_some() { "  (port 8080 is taken)" } else { "" };
    let redis = reserved.redis.as_ref();
    let address = match redis {
        Some(server) => {
            format!("{}  (Redis {}, private; its data stays in {data}/redis)", server.url(), server.version)
        }
        None => format!("{}  (yours)", print::without_password(&config.redis_url)),
    };
    let workers =
        format!("{} of {} slots, lease {} s", arguments.workers, config.worker.concurrency, config.lease_ms / 1_000);
    print::line("Leasehold is up. Ctrl-C stops it.\n")?;
    let root = environment.iter().find(|(name, _)| name == DOCUMENT_ROOT).map(|(_, folder)| folder.clone());
    let root = root.or_else(|| config.document_root.as_ref().map(|folder| folder.display().to_string()));
    for (name, value) in [
        ("api", format!("http://{listen}{moved}")),
        ("redis", address),
        ("workers", workers),
        ("files", format!("{}  (what kind process-files reads)", root.unwrap_or_default())),
        ("logs", format!("{data}/logs")),
    ] {
        print::line(format_args!("  {name:8} {value}"))?;
    }
    let this = std::env::args().next().unwrap_or_else(|| "leasehold".into());
    // Somebody who has brought a Redis has named it already, and its password is not to be shown.
    let doctor = redis.map_or_else(String::new, |server| format!(" --redis-url {}", server.url()));
    print::line(format_args!(
        "\nTry, in another terminal:\n
  export LEASEHOLD_API_URL=http://{listen}
  {this} jobs submit --kind process-files --payload '{{\"file\": \"harbour-rules.pdf\"}}' --watch
  {this} jobs submit --kind process-files --payload '{{\"file\": \"broken-report.pdf\"}}' --watch
  {this} jobs ls
  {this} workers ls
  {this} doctor{doctor}
  curl -s $LEASEHOLD_API_URL/api/v1/jobs -H 'content-type: application/json' \\
       -d '{{\"kind\": \"process-files\", \"payload\": {{\"file\": \"night-shift.txt\"}}}}'\n"
    ))
}
