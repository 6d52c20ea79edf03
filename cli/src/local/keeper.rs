//! Keeps processes running: one that dies is restarted, and all are stopped in order.
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::failure::complain;
use crate::local::child::{Child, Program, ending};
use crate::print;

/// The pause before a process that died is started again: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// After this run time the next pause is the first one again.
const STEADY: Duration = Duration::from_secs(60);

/// The processes that are kept up, in the order in which they stop.
#[derive(Default)]
pub(crate) struct Keeper {
    kept: Vec<Vec<Kept>>,
}

struct Kept {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Keeps a process up; what is kept later stops earlier.
    pub(crate) fn keep(&mut self, children: Vec<(Program, Child)>, grace: Duration) {
        let kept = children.into_iter().map(|(program, child)| {
            let (stop, stopped) = oneshot::channel();
            Kept { stop, task: tokio::spawn(keep(program, child, stopped, grace)) }
        });
        self.kept.insert(0, kept.collect());
    }

    /// Stops all: of each group all at once, and the next when they have ended.
    pub(crate) async fn stop(&mut self) {
        for group in std::mem::take(&mut self.kept) {
            let (stops, tasks): (Vec<_>, Vec<_>) = group.into_iter().map(|kept| (kept.stop, kept.task)).unzip();
            // A closed receiver means that it has ended already.
            stops.into_iter().for_each(|stop| stop.send(()).unwrap_or_default());
            for task in tasks {
                drop(task.await);
            }
        }
    }
}

/// Restarts a process whenever it dies, until `stopped` is signalled.
async fn keep(program: Program, child: Child, mut stopped: oneshot::Receiver<()>, grace: Duration) {
    let (mut running, mut since, mut pause) = (Some(child), Instant::now(), PAUSES.0);
    loop {
        let how = match running.take() {
            Some(mut child) => tokio::select! {
                status = child.wait() => status.map_or_else(|e| e.to_string(), ending),
                _ = &mut stopped => {
                    if let Some(complaint) = child.stop(grace).await {
                        complain(complaint);
                    }
                    return;
                }
            },
            None => "it could not be started".to_owned(),
        };
        if since.elapsed() >= STEADY {
            pause = PAUSES.0;
        }
        let (name, wait) = (&program.name, print::span(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)));
        let log = program.log.display();
        drop(print::line(format_args!("{name} ended ({how}); starting it again in {wait}; its log: {log}")));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut stopped => return,
        }
        pause = (pause * 2).min(PAUSES.1);
        since = Instant::now();
        match program.start() {
            Ok(child) => {
                drop(print::line(format_args!("{name} is started again, pid {}", child.pid())));
                running = Some(child);
            }
            Err(e) => complain(e),
        }
    }
}
