//! The files of a job: list, and download in whole or in part.
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use leasehold::files::{JobFiles, Place};
use leasehold::{FileEntry, FileError, JobId, Refusal, Store};
use serde::Serialize;

use super::{Answer, object};
use crate::error::{Code, Problem};
use crate::extract::query::{Named, NamedFile, NoQuery, Query};
use crate::extract::range::{Range, requested};
use crate::state::Api;

/// What a browser may do with a file that it shows: nothing, in an origin of its own.
const POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

/// Whether a file was uploaded with the submission or left by an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Uploaded.
    In,
    /// Left by an attempt.
    Out,
}

/// A file in a list.
#[derive(Serialize)]
struct Listed {
    name: String,
    bytes: u64,
    content_type: String,
    direction: Direction,
}

/// `GET /api/v1/jobs/{id}/files`
pub async fn list(State(api): State<Api>, Named(id): Named<JobId>, _: NoQuery) -> Answer {
    let files = files_of(&api.store().await?, &id).await?;
    let listed: Vec<Listed> = each(files)
        .map(|(place, file)| Listed {
            name: file.name,
            bytes: file.bytes,
            content_type: file.content_type,
            direction: if place == Place::In { Direction::In } else { Direction::Out },
        })
        .collect();
    Ok(object("files", listed))
}

/// `GET /api/v1/jobs/{id}/files/{name}`: of two files with the same name, the one an attempt left, unless `direction`
/// is given.
pub async fn get(
    State(api): State<Api>,
    NamedFile { id, name }: NamedFile,
    mut query: Query,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let wanted = query.read("direction", |word| match word {
        "in" => Ok(Direction::In),
        "out" => Ok(Direction::Out),
        _ => Err("write in or out"),
    });
    query.finish()?;
    send(&api.store().await?, &id, name, wanted, &method, &headers).await
}

/// Responds with a file, or the part of it that the headers request.
///
/// # Errors
/// A problem when there is no such job or file, or the file store fails.
pub async fn send(
    store: &Store,
    id: &JobId,
    name: String,
    wanted: Option<Direction>,
    method: &Method,
    headers: &HeaderMap,
) -> Answer {
    let fits = |place: Place| match wanted {
        None => true,
        Some(Direction::In) => place == Place::In,
        Some(Direction::Out) => place != Place::In,
    };
    let mut found = each(files_of(store, id).await?).filter(|(place, file)| file.name == name && fits(*place));
    let (place, file) = found.next().ok_or_else(|| Problem::of_file(FileError::Missing(name)))?;
    let etag = format!("\"{}\"", file.sha256);
    if matches_etag(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
    }
    // If-Range: a client that has a part of another version is sent the whole file.
    let is_same = headers.get(IF_RANGE).is_none_or(|version| version.as_bytes() == etag.as_bytes());
    let range = headers.get(RANGE).filter(|_| is_same).map_or(Range::Whole, |range| requested(range, file.bytes));
    let bytes = match range {
        Range::Whole => 0..file.bytes,
        Range::Part(part) => part,
        Range::Beyond => {
            let detail = format!("the file has {} bytes, none of them in the range", file.bytes);
            let mut refused = Problem::new(Code::RangeBeyond, detail).into_response();
            refused.headers_mut().insert(CONTENT_RANGE, text(format!("bytes */{}", file.bytes)));
            return Ok(refused);
        }
    };
    let is_part = bytes != (0..file.bytes);
    let mut response = Response::new(if *method == Method::HEAD || file.bytes == 0 {
        Body::empty()
    } else {
        let files = store.files().ok_or_else(|| Problem::of_file(FileError::NoStore))?;
        let read = files.read(id, place, &file.name, is_part.then(|| bytes.clone())).await;
        Body::from_stream(read.map_err(Problem::of_file)?)
    });
    let head = response.headers_mut();
    if is_part {
        head.insert(CONTENT_RANGE, text(format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, file.bytes)));
    }
    head.insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
    head.insert(CONTENT_TYPE, text(file.content_type));
    head.insert(CONTENT_DISPOSITION, text(disposition(&file.name)));
    head.insert(ETAG, text(etag));
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    // The content type is the uploader's claim: a browser must not run it as a page of this origin.
    head.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if is_part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

async fn files_of(store: &Store, id: &JobId) -> Result<JobFiles, Problem> {
    let files = store.job_files(id).await.map_err(Problem::reading)?;
    files.ok_or_else(|| Problem::refused(Refusal::NotFound(id.clone())))
}

/// Every file with its place, those an attempt left first.
fn each(files: JobFiles) -> impl Iterator<Item = (Place, FileEntry)> {
    let output = files.output.into_iter();
    let output = output.flat_map(|output| output.files.into_iter().map(move |file| (Place::Out(output.token), file)));
    output.chain(files.input.into_iter().map(|file| (Place::In, file)))
}

/// Whether the client already has this version.
fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = given.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == etag || tag == "*")
}

/// The header Content-Disposition: the name in ASCII for old clients, and in full (RFC 6266).
fn disposition(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || " .-_()+,=@".contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(plain).collect();
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{}", escaped(name))
}

/// A name, percent-encoded for a URL.
pub fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_~".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A header value; text from clients was validated when it was received.
fn text(value: String) -> HeaderValue {
    HeaderValue::from_str(&value).unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_makes_a_valid_header() {
        assert_eq!(disposition("a b.txt"), "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt");
        assert_eq!(
            disposition("ä\"\r;.txt"),
            "attachment; filename=\"____.txt\"; filename*=UTF-8''%C3%A4%22%0D%3B.txt"
        );
        assert!(HeaderValue::from_str(&disposition("水\"")).is_ok());
    }
}
