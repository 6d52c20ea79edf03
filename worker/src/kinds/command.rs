//! A kind whose jobs are run by an operator's command: any program that reads a line and writes lines.
//!
//! It reads the payload on stdin, runs in a scratch folder and reports as JSON lines on stdout; all other output is its
//! log. Its exit code decides: 0 completes the job, 65 fails it for good, all others fail the attempt.
mod cache;
mod guard;
mod items;
mod launch;
mod meant;
pub(crate) mod output;
mod protocol;
mod strays;
mod user;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leasehold::kinds::Cache;
use leasehold::{Config, Json, Limits};

use crate::attempt::context::Context;
use crate::failure::Failure;
use crate::handler::{Completion, DynHandler, HandlerFuture};
use crate::outage::Backoff;
use crate::stop::COMMAND_HANDLER_GRACE;
pub(crate) use launch::Launcher;
use launch::{LaunchRequest, Launched, is_shortage};
use protocol::Session;

/// A command of the kinds file.
pub(super) struct Command {
    words: Vec<OsString>,
    cache: Option<Cache>,
    allow_private: bool,
    limits: Limits,
    launcher: Arc<Launcher>,
}

impl Command {
    /// `dir` replaces `{dir}` in the words.
    pub fn new(words: &[String], dir: &Path, config: &Config, launcher: &Arc<Launcher>) -> Self {
        Self {
            words: words.iter().map(|word| expand_dir(word, dir)).collect(),
            cache: None,
            allow_private: config.fetch.allow_private,
            limits: config.limits.clone(),
            launcher: Arc::clone(launcher),
        }
    }

    /// With a cache: the command is not run for a job whose work an earlier one has done.
    pub fn cached(self, cache: Option<Cache>) -> Self {
        Self { cache, ..self }
    }

    fn program(&self) -> String {
        self.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Starts the command. If the worker lacks a resource, that is not the job's fault: the start is retried until it
    /// succeeds, and the slot stays taken meanwhile, so that fewer jobs are claimed.
    async fn start(&self, context: &Context) -> Result<Launched, Failure> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut is_logged = false;
        loop {
            let shortage = match self.try_start(context).await {
                Ok(launched) => return Ok(launched),
                Err(StartError::Failed(failure)) => return Err(failure),
                Err(StartError::Shortage(error)) => error,
            };
            if !std::mem::replace(&mut is_logged, true) {
                tracing::warn!(job = %context.job_id(), "the command cannot be started, retrying: {shortage}");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.delay()) => {}
                () = context.cancelled() => return Err(Failure::new(format!("the command was never started: {shortage}"))),
            }
        }
    }

    async fn try_start(&self, context: &Context) -> Result<Launched, StartError> {
        let scratch = self.launcher.scratch().await.map_err(|e| start_error(e, "cannot create a scratch folder"))?;
        context.shared.files.copy_input(&scratch.path().join("in")).await.map_err(Failure::from)?;
        let mut environment: Vec<(&str, OsString)> = vec![
            ("LEASEHOLD_JOB_ID", context.job_id().as_str().into()),
            ("LEASEHOLD_TOKEN", context.token().to_string().into()),
            ("LEASEHOLD_ATTEMPT", context.attempt().to_string().into()),
            ("LEASEHOLD_FETCH__ALLOW_PRIVATE", self.allow_private.to_string().into()),
        ];
        if let Some(tick) = context.scheduled_for() {
            environment.push(("LEASEHOLD_SCHEDULED_FOR", tick.to_string().into()));
        }
        if context.batch().is_some() {
            let path = scratch.path().join("items.jsonl");
            items::write(context, &path).await?;
            environment.push(("LEASEHOLD_ITEMS", path.into()));
        }
        let request = LaunchRequest {
            words: self.words.clone(),
            environment,
            checkpoint: context.shared.checkpoint.clone(),
            scratch,
        };
        let launched = self.launcher.launch(request).await;
        launched.map_err(|e| start_error(e, &format!("cannot start the command {}", self.program())))
    }

    async fn run(&self, context: Context, payload: &Json) -> Result<Completion, Failure> {
        let files = &context.shared.files;
        if let Some(made) = cache::find(self.cache.as_ref(), &context, payload, &self.limits).await {
            return Ok(made);
        }
        // Dropped in reverse order: first the processes, then their folder.
        let Launched { scratch, mut child, group } = self.start(&context).await?;
        let mut made = Session::new(&context, &self.limits).run(&group, &mut child, payload).await;
        drop(group);
        if let Ok((_, None)) = made
            && let Err(failure) = files.keep(scratch.path().join("out")).await
        {
            made = Err(failure);
        }
        // Removing the folder may take a while.
        drop(tokio::task::spawn_blocking(move || scratch.close()).await);
        made
    }
}

/// Why a command was not started.
enum StartError {
    /// The attempt fails.
    Failed(Failure),
    /// The worker lacks a resource; the start is retried.
    Shortage(io::Error),
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        StartError::Failed(failure)
    }
}

fn start_error(error: io::Error, what: &str) -> StartError {
    if is_shortage(&error) { StartError::Shortage(error) } else { Failure::new(format!("{what}: {error}")).into() }
}

impl DynHandler for Command {
    fn grace(&self) -> Duration {
        COMMAND_HANDLER_GRACE
    }

    fn call_json<'a>(&'a self, context: Context, payload: &'a Json) -> HandlerFuture<'a> {
        Box::pin(self.run(context, payload))
    }
}

fn expand_dir(word: &str, dir: &Path) -> OsString {
    let mut parts = word.split("{dir}");
    let mut expanded = OsString::from(parts.next().unwrap_or_default());
    for part in parts {
        expanded.push(dir);
        expanded.push(part);
    }
    expanded
}
