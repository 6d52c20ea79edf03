//! `leasehold-chaos`: a whole system on this machine under load and faults, for as long as asked, and the verdict.
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use leasehold_tests::chaos::{Setup, run};
use rand::random;

/// Starts Redis, APIs and workers, submits jobs, batches, files, cancels, retries and delays, injects faults of the
/// matrix (docs/faults.md), heals, drains, and compares what clients were told with what happened.
///
/// The same seed injects the same faults at the same times. The exit code is 1 if an acknowledged job was lost, is
/// stuck, was settled twice, or ran again without a fault that explains it; everything it started is gone when it
/// ends.
#[derive(Parser)]
#[command(name = "leasehold-chaos", version)]
struct Arguments {
    /// Determines faults and load; random when it is missing, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How long load and faults go on, minutes; fractions are allowed.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Worker processes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// API processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    apis: u16,
    /// Partitions of the key space.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    partitions: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Ok(length) = Duration::try_from_secs_f64(arguments.minutes * 60.0) else {
        eprintln!("--minutes {} is not a length of time; write, for example, --minutes 30", arguments.minutes);
        return ExitCode::from(2);
    };
    let seed = arguments.seed.unwrap_or_else(random);
    let Arguments { partitions, apis, workers, .. } = arguments;
    let counts = format!("--workers {workers} --apis {apis} --partitions {partitions}");
    println!("run again with: leasehold-chaos --seed {seed} --minutes {} {counts}", arguments.minutes);
    let setup = Setup { partitions, apis: apis.into(), workers: workers.into(), ..Setup::default() };
    let violations = run(&setup, seed, length).await;
    for violation in &violations {
        println!("violation: {violation}");
    }
    match violations.len() {
        0 => println!("verdict: passed; nothing lost, stuck or settled twice"),
        count => println!("verdict: FAILED; {count} violations"),
    }
    ExitCode::from(u8::from(!violations.is_empty()))
}
