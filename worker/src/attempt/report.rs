//! Progress and checkpoints on their way to Redis. One task writes for all running jobs, so that what arrives while a call is
//! in flight travels together in the next one, and in order.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leasehold::store::{Held, Report};
use leasehold::{Error, Json, Store, WorkerId, limits};
use tokio::sync::{mpsc, oneshot};

use super::progress::Throttle;
use crate::error::CheckpointError;
use crate::outage::{Contact, is_outage};
use crate::stop::{Stop, StopReason};

/// How long to wait before a failed report is sent again; the Store has ridden out `redis.outage_ms` by then.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What one running job tells.
pub(crate) struct Telling {
    held: Held,
    stop: Arc<Stop>,
    throttle: Mutex<Throttle>,
    /// It has told something, so there may be something to wait for at its end.
    used: AtomicBool,
}

impl Telling {
    pub fn new(held: Held, stop: Arc<Stop>) -> Arc<Self> {
        Arc::new(Self { held, stop, throttle: Mutex::default(), used: AtomicBool::new(false) })
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().expect("nobody panics with it")
    }
}

type Saved = Result<(), CheckpointError>;

enum Ask {
    /// Progress is to be taken then.
    Progress(Arc<Telling>, Instant),
    /// A checkpoint, with all progress before it; the sender hears what became of it.
    Save(Arc<Telling>, Option<Json>, oneshot::Sender<Saved>),
}

/// Where handlers leave what they tell.
#[derive(Clone)]
pub(crate) struct Reporter {
    asks: mpsc::UnboundedSender<Ask>,
}

impl Reporter {
    /// The handle, and the task's body.
    pub fn new(store: Store, worker: WorkerId, contact: Arc<Contact>) -> (Self, impl Future<Output = ()> + Send) {
        // Bounded by what asks: a job has one Progress in it at most, and waits for each Save.
        let (sender, asks) = mpsc::unbounded_channel();
        let desk = Desk { store, worker, contact, asks, due: Vec::new(), outbox: Vec::new() };
        (Self { asks: sender }, desk.run())
    }

    pub fn tell(&self, telling: &Arc<Telling>, percent: Option<f64>, message: Option<&str>) {
        telling.used.store(true, Ordering::Release);
        let due = telling.throttle().tell(Instant::now(), percent, message);
        if let Some(due) = due {
            drop(self.asks.send(Ask::Progress(Arc::clone(telling), due)));
        }
    }

    pub async fn save(&self, telling: &Arc<Telling>, checkpoint: Json) -> Saved {
        self.ask(telling, Some(checkpoint)).await
    }

    /// Returns when everything the job has told is written, or cannot be.
    pub async fn flush(&self, telling: &Arc<Telling>) {
        if telling.used.load(Ordering::Acquire) {
            drop(self.ask(telling, None).await);
        }
    }

    async fn ask(&self, telling: &Arc<Telling>, checkpoint: Option<Json>) -> Saved {
        let (sender, answer) = oneshot::channel();
        drop(self.asks.send(Ask::Save(Arc::clone(telling), checkpoint, sender)));
        answer.await.unwrap_or(Err(CheckpointError::Lost))
    }
}

struct Letter {
    report: Report,
    telling: Arc<Telling>,
    sender: Option<oneshot::Sender<Saved>>,
}

struct Desk {
    store: Store,
    worker: WorkerId,
    contact: Arc<Contact>,
    asks: mpsc::UnboundedReceiver<Ask>,
    due: Vec<(Instant, Arc<Telling>)>,
    outbox: Vec<Letter>,
}

impl Desk {
    async fn run(mut self) {
        loop {
            let next = self.due.iter().map(|(when, _)| *when).min();
            let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => return,
                },
                () = tokio::time::sleep_until(next.into()) => {}
            }
            while let Ok(ask) = self.asks.try_recv() {
                self.take(ask);
            }
            let now = Instant::now();
            let (ripe, due) = std::mem::take(&mut self.due).into_iter().partition(|(when, _)| *when <= now);
            self.due = due;
            let ripe: Vec<(Instant, Arc<Telling>)> = ripe;
            ripe.iter().for_each(|(_, telling)| self.write(telling));
            while !self.outbox.is_empty() {
                self.send().await;
            }
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Progress(telling, when) => self.due.push((when, telling)),
            Ask::Save(telling, checkpoint, sender) => {
                self.due.retain(|(_, waiting)| !Arc::ptr_eq(waiting, &telling));
                self.write(&telling);
                let report = Report { held: telling.held.clone(), progress: None, checkpoint };
                self.outbox.push(Letter { report, telling, sender: Some(sender) });
            }
        }
    }

    /// Puts what a job has told into the outbox.
    fn write(&mut self, telling: &Arc<Telling>) {
        for progress in telling.throttle().take(Instant::now()) {
            let report = Report { held: telling.held.clone(), progress: Some(progress), checkpoint: None };
            self.outbox.push(Letter { report, telling: Arc::clone(telling), sender: None });
        }
    }

    /// Sends the outbox once; what an outage kept back stays there.
    async fn send(&mut self) {
        // A flush without a checkpoint has nothing to write of its own.
        let is_empty = |l: &Letter| l.report.progress.is_none() && l.report.checkpoint.is_none();
        let count = fitting(self.outbox.iter().map(|letter| weight(&letter.report)));
        let reports: Vec<Report> =
            self.outbox[..count].iter().filter(|l| !is_empty(l)).map(|l| l.report.clone()).collect();
        let answers = self.store.report(&self.worker, &reports).await;
        match answers {
            Ok(saved) => {
                self.contact.works();
                let mut saved = saved.into_iter();
                for letter in self.outbox.drain(..count) {
                    let stands = is_empty(&letter) || saved.next().unwrap_or(false);
                    if !stands {
                        letter.telling.stop.ask(StopReason::Lost);
                    }
                    answer(letter, if stands { Ok(()) } else { Err(CheckpointError::Lost) });
                }
            }
            Err(e) if is_outage(&e) => {
                self.contact.failed("reporting progress", &e);
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(e) => {
                self.contact.failed("reporting progress", &e);
                self.outbox.drain(..count).for_each(|letter| answer(letter, Err(refused(&e))));
            }
        }
    }
}

/// How many of these go in one call: at least one.
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
    message + report.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.as_str().len())
}

fn answer(letter: Letter, saved: Saved) {
    if let Some(sender) = letter.sender {
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
