//! The real input of the demo: the project's sample documents, and one that is not there.
use std::path::Path;

use leasehold::Job;
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::local::system;

/// A document that cannot be read, on purpose.
const BROKEN: &str = "broken-report.pdf";
/// A document that is not there, on purpose.
const MISSING: &str = "missing.txt";

/// A document, and what must come of it.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// Its name below the document root.
    pub file: String,
    /// The SHA-256 its result must have; `None` when its job must fail.
    pub sha256: Option<String>,
    bytes: u64,
}

/// All of them: small ones first, then the large ones, so that a worker has its hands full when it is killed, then the
/// rest.
pub(super) fn all() -> Result<Vec<Document>, Failure> {
    let missing = "the demo needs examples/process-files/documents; run it in the project, as `make demo` does";
    let folder = system::documents().ok_or_else(|| Failure::Failed(missing.into()))?;
    let fault = |e: std::io::Error| Failure::Failed(format!("documents in {}: {e}", folder.display()));
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(fault)? {
        documents.push(read(&entry.map_err(fault)?.path()).map_err(fault)?);
    }
    documents.push(Document { file: MISSING.into(), sha256: None, bytes: 0 });
    documents.sort_by(|a, b| a.file.cmp(&b.file));
    // Every third of the good ones, and the bad ones, are kept for the outage; the others go by size.
    let (mut later, mut now) = (Vec::new(), Vec::new());
    for (at, document) in documents.into_iter().enumerate() {
        let is_large = document.bytes > 100_000;
        if document.sha256.is_none() || (at % 3 == 0 && !is_large) { later.push(document) } else { now.push(document) }
    }
    now.sort_by_key(|document| document.bytes);
    now.extend(later);
    Ok(now)
}

fn read(path: &Path) -> std::io::Result<Document> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let content = std::fs::read(path)?;
    let sha256 = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Document { sha256: (file != BROKEN).then_some(sha256), file, bytes: content.len() as u64 })
}

/// The document that a job is about.
pub(super) fn file(job: &Job) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Payload {
        file: String,
    }
    job.payload.to().ok().map(|Payload { file }| file)
}

/// How much work a job has.
pub(super) fn size(job: &Job) -> u64 {
    let path = system::documents().zip(file(job)).map(|(folder, file)| folder.join(file));
    path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |metadata| metadata.len())
}
