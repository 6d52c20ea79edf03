//! `leasehold import`: imports the jobs of an old store. The store is read on a separate thread, one record at a time;
//! what cannot be read is reported, and the rest is imported. Each store has a file here; what they find is written by
//! [`importer`].
#[cfg(feature = "sqlite")]
mod audio;
#[cfg(feature = "sqlite")]
mod database;
mod fields;
mod file_batches;
mod found;
mod gap_analysis;
mod importer;
mod input;
mod job_status;
mod old;
mod report;
mod screenshots;

use std::path::PathBuf;

use clap::ValueEnum;
use leasehold::{Config, Error, Kind, Store};
use tokio::sync::mpsc;

use crate::arguments::{NotVia, Output, Source, reached};
use crate::backend;
use crate::failure::Failure;
use crate::stop::Signals;
use found::{Out, Terms};
use importer::Importer;
use report::Report;

/// Records on their way from the reader: what is large is bounded in bytes each.
const ON_THE_WAY: usize = 64;

/// Which store, and where.
#[derive(clap::Args)]
#[command(after_help = "\
Jobs that had ended are kept as they were, with their old record; pending and running ones are queued, and run. The store
is not changed. Ids that were imported before are skipped, so the same command continues an interrupted import. Stop the
old service first, so that it does not do the same work.

Examples:
  leasehold import --from gap-analysis gap_analysis_jobs --dry-run
  leasehold import --from files job_metadata job_results
  leasehold import --from audio output/jobs.db uploads

Exit codes: 0: everything is imported; 1: something was skipped, and is reported with its path and the reason;
2: invalid usage.")]
pub(crate) struct Arguments {
    /// The service that wrote the store.
    #[arg(long, value_enum)]
    from: From,
    /// The folder or file of its jobs; results and uploads are searched for beside it, and in further paths.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only report what would be done; nothing is written.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    source: Source,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table", help_heading = "Common options")]
    output: Output,
    #[command(flatten)]
    not_via: NotVia,
}

/// The stores that can be read.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    /// A JSON file a job, `gap_analysis_jobs/job_{id}.json`.
    GapAnalysis,
    /// `job_metadata/{id}.json` and `job_results/job_{id}_results.jsonl`.
    Files,
    /// `jobs/{id}.json` or `jobs/{id}/events.log`.
    JobStatus,
    /// A JSON file a batch, `jobs/batch-{hex}.json`.
    Screenshots,
    /// A SQLite file, `output/jobs.db`.
    Audio,
}

impl From {
    fn word(self) -> &'static str {
        match self {
            From::GapAnalysis => "gap-analysis",
            From::Files => "files",
            From::JobStatus => "job-status",
            From::Screenshots => "screenshots",
            From::Audio => "audio",
        }
    }

    /// What its jobs are here.
    fn kind(self) -> Kind {
        let name = match self {
            From::GapAnalysis => "gap-analysis",
            From::Files => "process-files",
            From::JobStatus => "suggestions",
            From::Screenshots => "screenshots",
            From::Audio => "analyze-audio",
        };
        Kind::parse(name).expect("the names above are kinds")
    }

    fn read(self, paths: &[PathBuf], out: &Out) -> found::Flow {
        match self {
            From::GapAnalysis => gap_analysis::read(paths, out),
            From::Files => file_batches::read(paths, out),
            From::JobStatus => job_status::read(paths, out),
            From::Screenshots => screenshots::read(paths, out),
            #[cfg(feature = "sqlite")]
            From::Audio => audio::read(paths, out),
            #[cfg(not(feature = "sqlite"))]
            From::Audio => unreachable!("refused before it is read"),
        }
    }
}

/// Reads the store, and writes what has not been imported yet.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.not_via.check("import writes straight to Redis, so give --redis-url or LEASEHOLD_REDIS_URL")?;
    if cfg!(not(feature = "sqlite")) && matches!(arguments.from, From::Audio) {
        let advice = "build it with the cargo feature `sqlite`, as `make build` does";
        return Err(Failure::Usage(format!("this build cannot read SQLite, in which that store is; {advice}")));
    }
    for path in &arguments.paths {
        // A link that leads nowhere is there, and is reported.
        std::fs::symlink_metadata(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    }
    let config = arguments.source.load([])?;
    let mut signals = Signals::listen()?;
    let store = connect(&config, arguments.dry_run).await?;
    let kinds = backend::kinds(&store, &config).await?;
    let from = arguments.from;
    let report = Report::new(from.word(), arguments.dry_run, arguments.output == Output::Json);
    let terms = Terms::new(&config);
    let mut importer = Importer::new(store, kinds, from.kind(), arguments.dry_run, terms.upload_bytes, report);
    let (sender, mut receiver) = mpsc::channel(ON_THE_WAY);
    let paths = arguments.paths;
    let reader = tokio::task::spawn_blocking(move || from.read(&paths, &Out::new(sender, terms)));
    let all = async {
        while let Some(found) = receiver.recv().await {
            importer.take(found).await?;
        }
        importer.flush().await
    };
    let done = tokio::select! {
        done = all => done,
        () = signals.received() => Err(Failure::Failed("stopped".into())),
    };
    drop(receiver);
    // The result of a stopped reader is not needed.
    let read = reader.await.map_err(|e| Failure::Failed(format!("the reader failed: {e}")));
    let skipped = importer.finish()?;
    let again = "what was imported is kept; the same command continues with the rest";
    done.map_err(|failure| match failure {
        Failure::Failed(reason) => Failure::Failed(format!("{reason}; {again}")),
        other => other,
    })?;
    drop(read?);
    if skipped > 0 { Err(Failure::Said) } else { Ok(()) }
}

/// The Store; for a dry run one that sets nothing, neither in Redis nor in the file store.
async fn connect(config: &Config, dry_run: bool) -> Result<Store, Failure> {
    if !dry_run {
        return reached(Store::connect(config).await, config);
    }
    let config = Config { storage_url: None, ..config.clone() };
    let store = reached(Store::connect_unchecked(&config).await, &config)?;
    match store.server_faults().await?.into_iter().find(|fault| fault.fatal) {
        Some(fault) => Err(Error::Config(fault.problem).into()),
        None => Ok(store),
    }
}
