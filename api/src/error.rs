//! Problems (RFC 9457), the error responses of the API; only this module chooses a status.
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use leasehold::schedule::InvalidTiming;
use leasehold::{Error, FileError, Refusal};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::fault::Fault;

/// The code of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Their titles are in the table below.
pub enum Code {
    InvalidJson,
    InvalidRequest,
    Unauthorized,
    Forbidden,
    CrossSite,
    ForeignHost,
    TooManyTokens,
    NoRoute,
    NoJob,
    NoFile,
    MethodNotAllowed,
    BodyTimeout,
    NoQueue,
    NoSchedule,
    WrongState,
    QueueInUse,
    DeclaredInFile,
    BatchConflict,
    KeyGone,
    BodyTooLarge,
    PayloadTooLarge,
    UnsupportedMediaType,
    RangeBeyond,
    NoFileStore,
    FilesFailed,
    KeyConflict,
    TooManyNames,
    UnknownKind,
    InvalidSchedule,
    TooManySchedules,
    Internal,
    Corrupt,
    Unavailable,
    OutcomeUnknown,
    Full,
    Busy,
    DeadlineExceeded,
    ShuttingDown,
}

/// A code's status, its name in JSON, its title, and the seconds of `Retry-After` (0: no such header).
type Row = (StatusCode, &'static str, &'static str, u32);

impl Code {
    fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Code::InvalidJson => (S::BAD_REQUEST, "invalid_json", "The body is not JSON", 0),
            Code::InvalidRequest => (S::BAD_REQUEST, "invalid_request", "The request is not valid", 0),
            Code::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "A token is required", 0),
            Code::Forbidden => (S::FORBIDDEN, "forbidden", "The token does not allow this", 0),
            Code::CrossSite => (S::FORBIDDEN, "cross_site", "A web page of another origin may not do this", 0),
            Code::ForeignHost => (S::MISDIRECTED_REQUEST, "foreign_host", "The Host is not one of this API", 0),
            Code::TooManyTokens => (S::TOO_MANY_REQUESTS, "too_many_wrong_tokens", "Too many wrong tokens", 2),
            Code::NoRoute => (S::NOT_FOUND, "no_such_route", "No such route", 0),
            Code::NoJob => (S::NOT_FOUND, "no_such_job", "No such job", 0),
            Code::NoFile => (S::NOT_FOUND, "no_such_file", "No such file", 0),
            Code::NoQueue => (S::NOT_FOUND, "no_such_queue", "No such queue", 0),
            Code::NoSchedule => (S::NOT_FOUND, "no_such_schedule", "No such schedule", 0),
            Code::DeclaredInFile => (S::CONFLICT, "declared_in_file", "The kinds file declares this", 0),
            Code::InvalidSchedule => (S::UNPROCESSABLE_ENTITY, "invalid_schedule", "The schedule cannot be used", 0),
            Code::TooManySchedules => (S::UNPROCESSABLE_ENTITY, "too_many_schedules", "Too many schedules", 0),
            Code::QueueInUse => (S::CONFLICT, "queue_in_use", "The queue is in use", 0),
            Code::RangeBeyond => {
                (S::RANGE_NOT_SATISFIABLE, "range_beyond", "The range is beyond the end of the file", 0)
            }
            Code::NoFileStore => (S::UNPROCESSABLE_ENTITY, "no_file_store", "This API has no file store", 0),
            Code::FilesFailed => (S::SERVICE_UNAVAILABLE, "file_store_failed", "The file store failed", 10),
            Code::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "The route does not support this method", 0)
            }
            Code::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout", "The body did not arrive in time", 0),
            Code::WrongState => (S::CONFLICT, "wrong_state", "The job's state does not allow this", 0),
            Code::BatchConflict => (S::CONFLICT, "batch_conflict", "The job's batch does not allow this", 0),
            Code::KeyGone => (S::GONE, "job_gone", "The job of this Idempotency-Key has been removed", 0),
            Code::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", 0),
            Code::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large", "A payload is too large", 0),
            Code::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The media type is not supported", 0)
            }
            Code::KeyConflict => {
                (S::UNPROCESSABLE_ENTITY, "idempotency_conflict", "The Idempotency-Key was used for another request", 0)
            }
            Code::TooManyNames => (S::UNPROCESSABLE_ENTITY, "too_many_names", "Too many kinds or queues", 0),
            Code::UnknownKind => (S::UNPROCESSABLE_ENTITY, "unknown_kind", "The kind is not configured", 0),
            Code::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error", 0),
            Code::Corrupt => (S::INTERNAL_SERVER_ERROR, "corrupt_record", "A record in Redis cannot be read", 0),
            Code::Unavailable => (S::SERVICE_UNAVAILABLE, "redis_unavailable", "Redis is not available", 2),
            Code::OutcomeUnknown => (S::SERVICE_UNAVAILABLE, "outcome_unknown", "The outcome is unknown", 2),
            Code::Full => (S::SERVICE_UNAVAILABLE, "redis_full", "Redis is out of memory", 10),
            Code::Busy => (S::SERVICE_UNAVAILABLE, "busy", "The API is busy", 1),
            Code::DeadlineExceeded => (S::SERVICE_UNAVAILABLE, "deadline_exceeded", "The answer took too long", 2),
            Code::ShuttingDown => (S::SERVICE_UNAVAILABLE, "shutting_down", "The API is shutting down", 1),
        }
    }
}

/// An error response.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    detail: String,
    faults: Vec<Fault>,
    cause: Option<String>,
}

/// Why a request failed, for the log: an extension of a response with a status of 500 or more.
#[derive(Debug, Clone)]
pub struct Cause(pub String);

impl Problem {
    /// A problem; `detail` says what is wrong and what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts { code, detail: detail.into(), faults: Vec::new(), cause: None }))
    }

    /// The problem of a request with faults, of which there is at least one.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let too_large = faults.iter().all(|f| f.too_large);
        let code = if too_large { Code::PayloadTooLarge } else { Code::InvalidRequest };
        let mut detail = faults.first().map(Fault::to_string).unwrap_or_default();
        if faults.len() > 1 {
            detail += &format!(" (and {} more)", faults.len() - 1);
        }
        Self(Box::new(Parts { code, detail, faults, cause: None }))
    }

    /// The problem of a schedule that would never have a job, or cannot be read.
    fn invalid_schedule(fault: &InvalidTiming) -> Self {
        let faults = vec![Fault::pointer(format!("/{}", fault.field), fault.reason.clone())];
        Self(Box::new(Parts { code: Code::InvalidSchedule, detail: fault.to_string(), faults, cause: None }))
    }

    /// The problem of a failed read: nothing was changed, so it may be repeated.
    pub fn reading(error: Error) -> Self {
        match error {
            Error::OutcomeUnknown(reason) => Self::from_store(Error::Unavailable(reason)),
            other => Self::from_store(other),
        }
    }

    /// The problem of a failed change.
    pub fn changing(error: Error) -> Self {
        Self::from_store(error)
    }

    /// The problem of a read that failed after the request has changed something.
    pub fn after_a_change(error: Error) -> Self {
        match error {
            Error::Unavailable(reason) => Self::from_store(Error::OutcomeUnknown(reason)),
            other => Self::from_store(other),
        }
    }

    /// This problem with another detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The detail, for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    fn from_store(error: Error) -> Self {
        let cause = error.to_string();
        let mut problem = match error {
            Error::Unavailable(_) => Self::new(Code::Unavailable, "nothing was done; try again"),
            Error::OutcomeUnknown(_) => Self::new(
                Code::OutcomeUnknown,
                "Redis did not answer in time, so the request may or may not have been executed; repeating it is safe",
            ),
            Error::TooFewReplicas { .. } => Self::new(Code::OutcomeUnknown, format!("{cause}; a failover may lose it")),
            Error::Full(_) => Self::new(
                Code::Full,
                "Redis has reached its maxmemory and accepts no new jobs until others have been removed; try again later",
            ),
            Error::Refused(refusal) => return Self::refused(refusal),
            Error::Corrupt { key, reason } if reason.contains("was set aside") => {
                Self::new(Code::Corrupt, format!("{reason}; it is at {key}, and `leasehold doctor` says what to do"))
            }
            Error::Corrupt { .. } => {
                Self::new(Code::Corrupt, "the record was not changed; `leasehold doctor` names it and says what to do")
            }
            // What Redis or the file store says of this API's settings.
            Error::Config(reason) => Self::new(Code::Unavailable, format!("nothing was done: {reason}")),
        };
        problem.0.cause = Some(cause);
        problem
    }

    /// The problem of an error of a file or of the file store.
    pub fn of_file(error: FileError) -> Self {
        let cause = error.to_string();
        match error {
            FileError::Name(_) | FileError::Unread(_) => Self::new(Code::InvalidRequest, cause),
            FileError::Missing(_) => Self::new(Code::NoFile, cause),
            FileError::OverLimit(_) => Self::new(Code::BodyTooLarge, cause),
            FileError::NoStore => {
                let advice = "files need a file store: set storage_url (LEASEHOLD_STORAGE_URL)";
                Self::new(Code::NoFileStore, advice)
            }
            FileError::Failed(_) => {
                let mut problem =
                    Self::new(Code::FilesFailed, "nothing was done; the log has the reason; try again later");
                problem.0.cause = Some(cause);
                problem
            }
        }
    }

    /// The problem of a refusal by the Store.
    pub fn refused(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound(_) => Code::NoJob,
            Refusal::NoQueue(_) => Code::NoQueue,
            Refusal::QueueInUse { .. } => Code::QueueInUse,
            Refusal::NoSchedule(_) => Code::NoSchedule,
            Refusal::DeclaredInFile(_) => Code::DeclaredInFile,
            Refusal::TooManySchedules(_) => Code::TooManySchedules,
            Refusal::Timing(fault) => return Self::invalid_schedule(&fault),
            Refusal::KeyConflict(_) => Code::KeyConflict,
            Refusal::KeyGone(_) => Code::KeyGone,
            Refusal::TooManyNames { .. } => Code::TooManyNames,
            Refusal::WrongState { .. } => Code::WrongState,
            Refusal::RetryParent(_)
            | Refusal::ParentCancelled(_)
            | Refusal::RemoveParent(_)
            | Refusal::NotABatch(_)
            | Refusal::Sealed(_)
            | Refusal::Taken(_)
            | Refusal::Gap(_) => Code::BatchConflict,
        };
        Self::new(code, refusal.to_string())
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, word, title, _) = self.0.code.row();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format!("urn:leasehold:problem:{word}"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("detail", &self.0.detail)?;
        map.serialize_entry("code", word)?;
        if !self.0.faults.is_empty() {
            map.serialize_entry("errors", &self.0.faults)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, word, _, again_s) = self.0.code.row();
        let body = serde_json::to_vec(&self).expect("a problem is plain JSON");
        let mut response = (status, body).into_response();
        let problem_json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem_json);
        if again_s > 0 {
            response.headers_mut().insert(header::RETRY_AFTER, again_s.into());
        }
        let challenge = match self.0.code {
            Code::Unauthorized => Some(r#"Bearer realm="leasehold""#),
            Code::Forbidden => Some(r#"Bearer realm="leasehold", error="insufficient_scope""#),
            _ => None,
        };
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if status.is_server_error() {
            response
                .extensions_mut()
                .insert(Cause(self.0.cause.clone().unwrap_or_else(|| format!("{word}: {}", self.0.detail))));
        }
        // For the views, which write it in another format.
        response.extensions_mut().insert(self);
        response
    }
}
