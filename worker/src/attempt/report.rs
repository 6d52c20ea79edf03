//! Writes progress and checkpoints to Redis. One task writes for all running jobs, so that reports that arrive during a
//! call are sent together, and in order, in the next one.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leasehold::store::{Held, Report};
use leasehold::{Error, Json, Store, WorkerId, limits};
use tokio::sync::{mpsc, oneshot};

use super::progress::Throttle;
use crate::error::CheckpointError;
use crate::outage::{RedisStatus, is_outage};
use crate::stop::{Stop, StopReason};

/// How long to wait before a failed report is sent again; the Store has retried for `redis.outage_ms` by then.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The progress of one running job.
pub(crate) struct ProgressHandle {
    held: Held,
    stop: Arc<Stop>,
    throttle: Mutex<Throttle>,
    /// Progress has been reported, so the end of the job must wait until it is written.
    used: AtomicBool,
}

impl ProgressHandle {
    pub fn new(held: Held, stop: Arc<Stop>) -> Arc<Self> {
        Arc::new(Self { held, stop, throttle: Mutex::default(), used: AtomicBool::new(false) })
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().expect("lock not poisoned")
    }
}

type Saved = Result<(), CheckpointError>;

enum Request {
    /// Take the job's progress at that time.
    Progress(Arc<ProgressHandle>, Instant),
    /// Write a checkpoint, after all progress before it; the sender gets the result. `None`: only write the progress.
    Save(Arc<ProgressHandle>, Option<Json>, oneshot::Sender<Saved>),
    /// Write a warning to the job's history.
    Warn(Arc<ProgressHandle>, String),
}

/// Accepts progress and checkpoints from handlers.
#[derive(Clone)]
pub(crate) struct Reporter {
    requests: mpsc::UnboundedSender<Request>,
}

impl Reporter {
    /// The handle, and the task's body.
    pub fn new(store: Store, worker: WorkerId, redis: Arc<RedisStatus>) -> (Self, impl Future<Output = ()> + Send) {
        // The number of jobs bounds the channel: each has at most one Progress and a few warnings in it, and waits for
        // each Save.
        let (sender, requests) = mpsc::unbounded_channel();
        let task = ReportTask { store, worker, redis, requests, due: Vec::new(), outbox: Vec::new() };
        (Self { requests: sender }, task.run())
    }

    pub fn progress(&self, handle: &Arc<ProgressHandle>, percent: Option<f64>, message: Option<&str>) {
        handle.used.store(true, Ordering::Release);
        let due = handle.throttle().push(Instant::now(), percent, message);
        if let Some(due) = due {
            drop(self.requests.send(Request::Progress(Arc::clone(handle), due)));
        }
    }

    pub fn warn(&self, handle: &Arc<ProgressHandle>, warning: String) {
        handle.used.store(true, Ordering::Release);
        drop(self.requests.send(Request::Warn(Arc::clone(handle), warning)));
    }

    pub async fn save(&self, handle: &Arc<ProgressHandle>, checkpoint: Json) -> Saved {
        self.request(handle, Some(checkpoint)).await
    }

    /// Returns when all progress of the job has been written, or cannot be.
    pub async fn flush(&self, handle: &Arc<ProgressHandle>) {
        if handle.used.load(Ordering::Acquire) {
            drop(self.request(handle, None).await);
        }
    }

    async fn request(&self, handle: &Arc<ProgressHandle>, checkpoint: Option<Json>) -> Saved {
        let (sender, answer) = oneshot::channel();
        drop(self.requests.send(Request::Save(Arc::clone(handle), checkpoint, sender)));
        answer.await.unwrap_or(Err(CheckpointError::Lost))
    }
}

struct Pending {
    report: Report,
    handle: Arc<ProgressHandle>,
    sender: Option<oneshot::Sender<Saved>>,
}

struct ReportTask {
    store: Store,
    worker: WorkerId,
    redis: Arc<RedisStatus>,
    requests: mpsc::UnboundedReceiver<Request>,
    due: Vec<(Instant, Arc<ProgressHandle>)>,
    outbox: Vec<Pending>,
}

impl ReportTask {
    async fn run(mut self) {
        loop {
            let next = self.due.iter().map(|(when, _)| *when).min();
            let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.take(request),
                    None => return,
                },
                () = tokio::time::sleep_until(next.into()) => {}
            }
            while let Ok(request) = self.requests.try_recv() {
                self.take(request);
            }
            let now = Instant::now();
            let (ripe, due) = std::mem::take(&mut self.due).into_iter().partition(|(when, _)| *when <= now);
            self.due = due;
            let ripe: Vec<(Instant, Arc<ProgressHandle>)> = ripe;
            ripe.iter().for_each(|(_, handle)| self.write(handle));
            while !self.outbox.is_empty() {
                self.send().await;
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Progress(handle, when) => self.due.push((when, handle)),
            Request::Save(handle, checkpoint, sender) => {
                self.due.retain(|(_, waiting)| !Arc::ptr_eq(waiting, &handle));
                self.write(&handle);
                let report = Report { held: handle.held.clone(), progress: None, checkpoint, warning: None };
                self.outbox.push(Pending { report, handle, sender: Some(sender) });
            }
            Request::Warn(handle, warning) => {
                let held = handle.held.clone();
                let report = Report { held, progress: None, checkpoint: None, warning: Some(warning) };
                self.outbox.push(Pending { report, handle, sender: None });
            }
        }
    }

    /// Moves a job's pending progress to the outbox.
    fn write(&mut self, handle: &Arc<ProgressHandle>) {
        for progress in handle.throttle().take(Instant::now()) {
            let report =
                Report { held: handle.held.clone(), progress: Some(progress), checkpoint: None, warning: None };
            self.outbox.push(Pending { report, handle: Arc::clone(handle), sender: None });
        }
    }

    /// Sends the outbox once; during an outage it keeps its reports.
    async fn send(&mut self) {
        // A flush without a checkpoint writes nothing itself.
        let is_empty =
            |l: &Pending| l.report.progress.is_none() && l.report.checkpoint.is_none() && l.report.warning.is_none();
        let count = fitting(self.outbox.iter().map(|pending| weight(&pending.report)));
        let reports: Vec<Report> =
            self.outbox[..count].iter().filter(|l| !is_empty(l)).map(|l| l.report.clone()).collect();
        let answers = self.store.report(&self.worker, &reports).await;
        match answers {
            Ok(saved) => {
                self.redis.answered();
                let mut saved = saved.into_iter();
                for pending in self.outbox.drain(..count) {
                    let is_saved = is_empty(&pending) || saved.next().unwrap_or(false);
                    if !is_saved {
                        pending.handle.stop.request(StopReason::Lost);
                    }
                    answer(pending, if is_saved { Ok(()) } else { Err(CheckpointError::Lost) });
                }
            }
            Err(e) if is_outage(&e) => {
                self.redis.failed("reporting progress", &e);
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(e) => {
                self.redis.failed("reporting progress", &e);
                self.outbox.drain(..count).for_each(|pending| answer(pending, Err(refused(&e))));
            }
        }
    }
}

/// How many of these reports fit in one call: at least one.
fn fitting(weights: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |weight: &usize| {
        bytes += weight;
        bytes <= limits::REPORT_BYTES_MAX
    };
    weights.take(limits::BATCH_MAX).take_while(fits).count().max(1)
}

fn weight(report: &Report) -> usize {
    let message = report.progress.as_ref().and_then(|progress| progress.message.as_ref()).map_or(0, String::len);
    let message = message + report.warning.as_ref().map_or(0, String::len);
    message + report.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.as_str().len())
}

fn answer(pending: Pending, saved: Saved) {
    if let Some(sender) = pending.sender {
        drop(sender.send(saved));
    }
}

fn refused(error: &Error) -> CheckpointError {
    CheckpointError::Refused(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_bounded_in_number_and_bytes_and_takes_one_at_least() {
        assert_eq!(fitting(std::iter::repeat_n(10, 5)), 5);
        assert_eq!(fitting(std::iter::repeat_n(1, 5_000)), limits::BATCH_MAX);
        assert_eq!(fitting(std::iter::repeat_n(64 << 10, 100)), 4);
        assert_eq!(fitting(std::iter::once(9 << 20)), 1);
    }
}
