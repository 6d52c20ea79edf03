//! Parameters of the path and the query.
use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use leasehold::JobId;

use crate::error::Problem;
use crate::fault::Fault;

/// The parameter of the path: an id or the name of a queue.
pub struct Named<T>(pub T);

impl<T: FromStr<Err: Display>, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let invalid = |name: &str, detail: String| Problem::invalid(vec![Fault::parameter(name, detail)]);
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters = parameters.map_err(|e| invalid("path", e.to_string()))?;
        let (name, text) = parameters.iter().next().expect("the route has a parameter");
        text.parse().map(Self).map_err(|e: T::Err| invalid(name, e.to_string()))
    }
}

/// The two parameters of a path with a job and one of its files.
pub struct NamedFile {
    /// The job.
    pub id: JobId,
    /// The file name, not validated.
    pub name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for NamedFile {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Named(id) = Named::from_request_parts(parts, state).await?;
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters = parameters.map_err(|e| Problem::invalid(vec![Fault::parameter("path", e.to_string())]))?;
        let (_, name) = parameters.iter().last().expect("the route has parameters");
        Ok(Self { id, name: name.to_owned() })
    }
}

/// The query's parameters: each is taken once, and [`Query::finish`] refuses those that were not taken.
pub struct Query {
    left: Vec<(String, String)>,
    asked: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map_err(|e| Problem::invalid(vec![Fault::parameter("query", e.to_string())]))?;
        Ok(Self { left: pairs.0, asked: Vec::new(), faults: Vec::new() })
    }
}

impl Query {
    /// Records a fault.
    pub fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(Fault::parameter(name, detail));
    }

    /// Whether a fault has been recorded, or parameters are left that have not been taken.
    pub fn is_faulty(&self) -> bool {
        !self.faults.is_empty() || !self.left.is_empty()
    }

    /// Takes a parameter as text.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.asked.push(name);
        let (mut given, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.left).into_iter().partition(|(n, _)| n == name);
        self.left = left;
        if given.len() > 1 {
            self.fault(name, "given more than once");
        }
        given.pop().map(|(_, value)| value)
    }

    /// Takes a parameter and parses it with `read`, whose error is recorded as a fault.
    pub fn read<T, E: Display>(&mut self, name: &'static str, read: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text(name)?;
        read(&text).map_err(|e| self.fault(name, e.to_string())).ok()
    }

    /// Ignores the parameters that were not taken, as the old systems did.
    pub fn ignore_rest(&mut self) {
        self.left.clear();
    }

    /// Finishes reading.
    ///
    /// # Errors
    /// A problem with every fault, unknown parameters among them.
    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.left).into_iter().take(20) {
            let shown: String = name.chars().take(80).collect();
            let advice = if self.asked.is_empty() {
                format!("unknown parameter {shown:?}; this route takes none")
            } else {
                format!("unknown parameter {shown:?}; known are {}", self.asked.join(", "))
            };
            self.fault(&shown, advice);
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }
}

/// For routes without query parameters: refuses any, rather than ignore it.
pub struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::from_request_parts(parts, state).await?.finish().map(|()| NoQuery)
    }
}
