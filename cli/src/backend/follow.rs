//! Following a job: its changes as they arrive, until it has ended.
use std::collections::VecDeque;
use std::time::Duration;

use leasehold::store::{Watch, Watcher};
use leasehold::{Job, JobId, Store};
use reqwest::{Method, Response};
use tokio::time::sleep;

use super::Backend;
use super::client::{Client, Repeat};
use crate::failure::Failure;
use crate::problem::Problem;

/// The pause before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(300);
/// How often a job is read where there is no stream of events.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long an API may be unreachable, as during a deployment.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long one stream may last; then another is opened.
const STREAM_LIMIT: Duration = Duration::from_secs(86_400);
/// After this silence a stream is broken; the API sends something every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes of one event: a job with a large payload and result, escaped.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Follows one job.
pub(crate) struct Follower {
    id: JobId,
    way: Way,
    ended: bool,
}

enum Way {
    Redis { store: Store, watch: Box<Watch>, begun: bool },
    Http(Box<Stream>),
}

/// The events of a job over HTTP. A stream that breaks is opened again, and where there is none the job is read.
struct Stream {
    api: Client,
    open: Option<Open>,
    /// The API has no such route, or no room for one more stream.
    polls: bool,
    begun: bool,
}

struct Open {
    response: Response,
    frames: Frames,
}

impl Backend {
    /// Follows a job from now on.
    pub(crate) fn follow(&self, id: &JobId) -> Result<Follower, Failure> {
        let way = match self {
            Backend::Redis(direct) => {
                let watch = Box::new(Watcher::spawn(direct.store.clone()).watch(id)?);
                Way::Redis { store: direct.store.clone(), watch, begun: false }
            }
            Backend::Http(api) => {
                Way::Http(Box::new(Stream { api: api.patient(OUTAGE), open: None, polls: false, begun: false }))
            }
        };
        Ok(Follower { id: id.clone(), way, ended: false })
    }
}

impl Follower {
    /// The job as it is after some change: first as it is now, last as it has ended; then, or when there is no such
    /// job, `None`.
    pub(crate) async fn next(&mut self) -> Result<Option<Job>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let job = match &mut self.way {
            Way::Redis { store, watch, begun } => {
                let read = if std::mem::replace(begun, true) { watch.changed().await } else { watch.read().await };
                let mut job = read?.map(|job| job.as_ref().clone());
                super::say_served(store, job.iter_mut()).await?;
                job
            }
            Way::Http(stream) => stream.next(&self.id).await?,
        };
        self.ended = job.as_ref().is_none_or(|job| job.state.is_final());
        Ok(job)
    }
}

impl Stream {
    async fn next(&mut self, id: &JobId) -> Result<Option<Job>, Failure> {
        loop {
            if let Some(open) = &mut self.open {
                match open.next_job().await {
                    Some(job) => return Ok(Some(job)),
                    // Broken, ended by a shutdown, or gone with its job.
                    None => self.open = None,
                }
            }
            if self.polls {
                if std::mem::replace(&mut self.begun, true) {
                    sleep(POLL_EVERY).await;
                }
                return self.api.find(id).await;
            }
            if std::mem::replace(&mut self.begun, true) {
                // A stream that breaks at once must not be opened in a tight loop.
                sleep(PAUSE).await;
            }
            match self.connect(id).await {
                Ok(response) => self.open = Some(Open { response, frames: Frames::default() }),
                Err(Failure::Refused(problem)) if problem.code == "no_such_job" => return Ok(None),
                Err(Failure::Refused(problem)) if is_full(&problem) => self.polls = true,
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn connect(&self, id: &JobId) -> Result<Response, Failure> {
        let path = ["jobs", id.as_str(), "events"];
        let build = || {
            let request = self.api.request(Method::GET, &path).header("accept", "text/event-stream");
            Ok(request.timeout(STREAM_LIMIT))
        };
        // An API that refuses another stream still answers reads: only an unreachable one is waited for.
        match self.api.patient(Duration::ZERO).send(Repeat::Safe, build).await {
            Err(Failure::Refused(problem)) if is_full(&problem) || !problem.is_passing() => {
                Err(Failure::Refused(problem))
            }
            Err(_) => self.api.send(Repeat::Safe, build).await,
            answer => answer,
        }
    }
}

/// The API has no stream for this job.
fn is_full(problem: &Problem) -> bool {
    ["no_such_route", "busy"].contains(&problem.code.as_str())
}

impl Open {
    /// The job of the next event that has one; `None` at the end of the stream, however it came.
    async fn next_job(&mut self) -> Option<Job> {
        loop {
            while let Some(data) = self.frames.next() {
                if let Ok(job) = serde_json::from_str(&data) {
                    return Some(job);
                }
            }
            let chunk = tokio::time::timeout(SILENCE, self.response.chunk()).await.ok()?.ok()??;
            self.frames.push(&chunk)?;
        }
    }
}

/// The `data` of server-sent events, put together from pieces of the stream.
#[derive(Default)]
struct Frames {
    rest: Vec<u8>,
    data: String,
    ready: VecDeque<String>,
}

impl Frames {
    fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    /// Adds a piece of the stream; `None` when an event is longer than the limit.
    fn push(&mut self, piece: &[u8]) -> Option<()> {
        self.rest.extend_from_slice(piece);
        let mut begin = 0;
        while let Some(at) = self.rest[begin..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[begin..begin + at]).into_owned();
            begin += at + 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if let Some(data) = line.strip_prefix("data:") {
                self.data += data.strip_prefix(' ').unwrap_or(data);
                self.data.push('\n');
            } else if line.is_empty() && !self.data.is_empty() {
                self.ready.push_back(std::mem::take(&mut self.data));
            }
        }
        self.rest.drain(..begin);
        (self.rest.len() + self.data.len() <= EVENT_BYTES_MAX).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_any_pieces() {
        let text = ": hello\n\nevent: job\ndata: {\"a\":\ndata: 1}\n\nevent: end\r\ndata:{}\r\n\r\ndata: half";
        for size in [1, 2, 7, text.len()] {
            let mut frames = Frames::default();
            for piece in text.as_bytes().chunks(size) {
                frames.push(piece).expect("it is short");
            }
            assert_eq!(frames.next().as_deref(), Some("{\"a\":\n1}\n"));
            assert_eq!(frames.next().as_deref(), Some("{}\n"));
            assert_eq!(frames.next(), None);
        }
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let mut frames = Frames::default();
        let piece = vec![b'x'; 1 << 20];
        assert!((0..17).any(|_| frames.push(&piece).is_none()));
    }
}
