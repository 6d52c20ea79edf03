//! The faults of a request, each with its place.
use serde::Serialize;

/// Where in a request a fault is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A JSON pointer (RFC 6901) into the body; empty means the body itself.
    Pointer(String),
    /// A parameter of the path or the query.
    Parameter(String),
    /// A header.
    Header(&'static str),
}

/// One fault of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong and what is expected, for people.
    pub detail: String,
    /// Whether it exceeds a limit of size.
    #[serde(skip)]
    pub too_large: bool,
}

impl Fault {
    /// A fault of a parameter in the path or the query.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Place::Parameter(name.into()), detail: detail.into(), too_large: false }
    }

    /// A fault of a header.
    pub fn header(name: &'static str, detail: impl Into<String>) -> Self {
        Self { place: Place::Header(name), detail: detail.into(), too_large: false }
    }

    /// A fault of the body.
    pub fn pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Place::Pointer(pointer.into()), detail: detail.into(), too_large: false }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Pointer(at) if at.is_empty() => write!(f, "the body: {}", self.detail),
            Place::Pointer(at) => write!(f, "{at}: {}", self.detail),
            Place::Parameter(name) => write!(f, "parameter {name}: {}", self.detail),
            Place::Header(name) => write!(f, "header {name}: {}", self.detail),
        }
    }
}
