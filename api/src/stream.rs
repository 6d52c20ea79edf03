//! Streamed responses, a page of jobs at a time: JSON Lines, and long lists within a JSON document.
use std::io;
use std::pin::Pin;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use leasehold::{Error, Job, Store};

use crate::error::Problem;
use crate::state::Api;

/// The media type of JSON Lines.
pub const JSON_LINES: &str = "application/x-ndjson";
/// The media type of JSON.
pub const JSON: &str = "application/json";

type Pages = Pin<Box<dyn Stream<Item = Result<Vec<Job>, Error>> + Send>>;

/// Responds with one line per job.
pub async fn json_lines(api: &Api, store: &Store, pages: Pages) -> Result<Response, Problem> {
    let (api, store) = (api.clone(), store.clone());
    let lines = pages.and_then(move |mut page| {
        let (api, store) = (api.clone(), store.clone());
        async move {
            api.say_served(&store, &mut page).await;
            Ok(Bytes::from(lines(&page)))
        }
    });
    stream(JSON_LINES, lines).await
}

/// Responds with a body in pieces. A failure before the first piece is a problem; a later one aborts the connection, so
/// that a truncated response is never mistaken for a complete one.
pub async fn stream(
    sort: &'static str,
    pieces: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> Result<Response, Problem> {
    let mut pieces = Box::pin(pieces);
    let first = pieces.next().await.transpose().map_err(Problem::reading)?;
    let pieces = pieces.map_err(|e| {
        tracing::warn!("a stream of jobs is aborted: {e}");
        io::Error::other(e)
    });
    let mut response = Response::new(Body::from_stream(futures_util::stream::iter(first.map(Ok)).chain(pieces)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(sort));
    Ok(response)
}

/// A document of `head`, what `write` returns for each element of the pages, separated by `between`, and `tail` of the
/// number of elements. `head` is sent with the first page.
pub fn document<T: Send + 'static>(
    head: String,
    between: &'static str,
    pages: impl Stream<Item = Result<Vec<T>, Error>> + Send + 'static,
    write: impl Fn(&T) -> Option<String> + Send + 'static,
    tail: impl FnOnce(u64) -> String + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    async_stream::try_stream! {
        let mut pages = Box::pin(pages);
        let (mut text, mut count) = (head, 0_u64);
        while let Some(page) = pages.next().await {
            for piece in page?.iter().filter_map(&write) {
                if count > 0 {
                    text += between;
                }
                text += &piece;
                count += 1;
            }
            yield Bytes::from(std::mem::take(&mut text));
        }
        text += &tail(count);
        yield Bytes::from(text);
    }
}

fn lines(jobs: &[Job]) -> Vec<u8> {
    let mut text = Vec::new();
    for job in jobs {
        serde_json::to_writer(&mut text, job).expect("a job is plain JSON");
        text.push(b'\n');
    }
    text
}
