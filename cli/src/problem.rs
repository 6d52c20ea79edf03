//! Problems that the API answers with (RFC 9457), as one sentence for people.
use reqwest::{Response, StatusCode};
use serde::Deserialize;

/// Bytes shown of an answer that is not a problem document.
const SHOWN: usize = 200;

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Its status.
    pub status: StatusCode,
    /// Its code; empty when the answer is not Leasehold's.
    pub code: String,
    /// What to do about it.
    pub detail: String,
    /// The faults, where they are and what would be right.
    pub faults: Vec<Fault>,
}

/// One fault of a request.
#[derive(Debug, Deserialize)]
pub(crate) struct Fault {
    /// JSON pointer into the body.
    pub pointer: Option<String>,
    parameter: Option<String>,
    header: Option<String>,
    /// What is wrong with it.
    pub detail: String,
}

#[derive(Deserialize)]
struct Body {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
}

impl Problem {
    /// Reads an answer; `base` is the address of the API.
    pub(crate) async fn read(answer: Response, base: &str, with_token: bool) -> Self {
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let mut problem = match serde_json::from_str::<Body>(&text) {
            Ok(Body { code, detail, errors }) => Self { status, code, detail, faults: errors },
            Err(_) => Self { status, code: String::new(), detail: foreign(status, &text, base), faults: Vec::new() },
        };
        let advice = match (status, with_token) {
            (StatusCode::UNAUTHORIZED, false) => "it needs a token: give --token-file FILE or LEASEHOLD_API_TOKEN",
            (StatusCode::UNAUTHORIZED, true) => "it does not know this token",
            (StatusCode::FORBIDDEN, _) => "this token does not allow it",
            _ => return problem,
        };
        problem.detail = format!("the API at {base} refused: {advice} ({})", problem.detail);
        problem
    }

    /// Whether a retry may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        let status = matches!(self.status.as_u16(), 429 | 502 | 503 | 504);
        status && self.code != "redis_full"
    }

    /// Whether nothing was done.
    pub(crate) fn nothing_done(&self) -> bool {
        ["redis_unavailable", "busy", "shutting_down"].contains(&self.code.as_str())
    }

    /// Whether it is about one job only.
    pub(crate) fn is_about_the_job(&self) -> bool {
        matches!(self.status.as_u16(), 404 | 409 | 410) && !self.code.is_empty()
    }
}

fn foreign(status: StatusCode, text: &str, base: &str) -> String {
    if status.is_redirection() {
        return format!("{base} answered {status}; name the address that it leads to");
    }
    let text = crate::print::plain(leasehold::job::cut(text, SHOWN));
    format!("{base} answered {status}, not as Leasehold's API does; is it one? It answered: {text:?}")
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::print::plain(&self.detail))?;
        // A single fault is in the detail already.
        for fault in self.faults.iter().filter(|_| self.faults.len() > 1) {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match (&self.pointer, &self.parameter, &self.header) {
            (Some(at), ..) if at.is_empty() => "the body".to_owned(),
            (Some(at), ..) => at.clone(),
            (_, Some(name), _) => format!("parameter {name}"),
            (.., Some(name)) => format!("header {name}"),
            _ => "the request".to_owned(),
        };
        write!(f, "{}: {}", crate::print::plain(&place), crate::print::plain(&self.detail))
    }
}
