//! `leasehold`: the command line. One file per noun; each works through a [`backend::Backend`], which is the
//! HTTP API or, for operators, Redis itself.
mod arguments;
mod backend;
#[cfg(feature = "bench")]
mod bench;
mod completions;
mod demo;
mod doctor;
mod failure;
mod health;
mod import;
mod jobs;
mod local;
mod migrate;
mod partitions;
mod print;
mod problem;
mod queues;
mod schedules;
mod settings;
mod stop;
mod tokens;
mod up;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::Failure;

/// Runs and inspects Leasehold, a durable job system on Redis.
#[derive(Parser)]
#[command(name = "leasehold", version, arg_required_else_help = true, max_term_width = 100, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Two ways in:
  --api URL          the HTTP API, with --token-file when it wants a token (or LEASEHOLD_API_URL, LEASEHOLD_API_TOKEN_FILE)
  --redis-url URL    Redis itself, for operators (or LEASEHOLD_REDIS_URL); this is the default

Examples:
  leasehold up                                                      a whole system on this machine
  leasehold jobs submit --kind word-count --payload '{\"n\": 1}' --watch
  leasehold jobs ls --state failed --api https://jobs.example.org

Exit codes: 0 done; 1 it failed or was refused, or the job that was waited for did not complete; 2 invalid usage.";

#[derive(Subcommand)]
enum Command {
    /// Start a whole system on this machine and keep it running: Redis, an API, two workers.
    Up(up::Arguments),
    /// Process real documents while a worker and Redis are killed, and check that nothing is lost.
    Demo(demo::Arguments),
    /// Submit, list, show, cancel, retry and remove jobs.
    #[command(subcommand, visible_alias = "job")]
    Jobs(jobs::Command),
    /// List, show, pause and resume queues.
    #[command(subcommand, visible_alias = "queue")]
    Queues(queues::Command),
    /// List, show, write, pause, resume, trigger and remove schedules.
    #[command(subcommand, visible_alias = "schedule")]
    Schedules(schedules::Command),
    /// List the workers.
    #[command(subcommand, visible_alias = "worker")]
    Workers(workers::Command),
    /// Import the jobs of an older service.
    Import(import::Arguments),
    /// Make tokens for the API.
    #[command(subcommand, visible_alias = "token")]
    Tokens(tokens::Command),
    /// Check Redis's settings and every key; repair what can be repaired.
    Doctor(doctor::Arguments),
    /// Grow the number of partitions while the system is at work.
    #[command(subcommand)]
    Partitions(partitions::Command),
    /// Prepare the jobs in Redis for this version, once every API and worker of an earlier one is stopped.
    Migrate(migrate::Arguments),
    /// Measure Leasehold against its speed goals, on a private Redis.
    #[cfg(feature = "bench")]
    Bench(bench::Arguments),
    /// A program that only a measurement starts.
    #[cfg(feature = "bench")]
    #[command(subcommand, hide = true)]
    BenchRole(bench::role::Role),
    /// Ask an API or a worker whether it is ready; for health checks of containers.
    Health(health::Arguments),
    /// Print the settings in effect, and where each comes from.
    Config(settings::Arguments),
    /// Print a script that makes a shell complete this command.
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    leasehold::secrets::protect();
    leasehold::init::leave_process_one();
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().expect("the first call in this process");
    #[cfg(feature = "bench")]
    if let Command::BenchRole(role) = &arguments.command {
        return bench::role::play(role);
    }
    // One thread: children are killed with the thread that forked them, so it must be the one that never ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(arguments.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Demo(arguments) => demo::run(&arguments).await,
        Command::Jobs(command) => jobs::run(command).await,
        Command::Queues(command) => queues::run(command).await,
        Command::Schedules(command) => schedules::run(command).await,
        Command::Workers(command) => workers::run(command).await,
        Command::Import(arguments) => import::run(arguments).await,
        Command::Tokens(command) => tokens::run(command),
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Partitions(command) => partitions::run(&command).await,
        Command::Migrate(arguments) => migrate::run(&arguments).await,
        #[cfg(feature = "bench")]
        Command::Bench(arguments) => bench::run(arguments).await,
        #[cfg(feature = "bench")]
        Command::BenchRole(_) => unreachable!("it is played in main"),
        Command::Health(arguments) => health::run(arguments).await,
        Command::Config(arguments) => settings::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, &mut Arguments::command()),
    }
}
