//! Jobs to measure with.
use std::time::{SystemTime, UNIX_EPOCH};

use leasehold::store::Submitted;
use leasehold::{Draft, Json, Kind, Kinds, NewJob, Store};

use crate::failure::Failure;

/// The kind whose handler does nothing.
pub(super) const NOOP: &str = "noop";
/// The kind whose handler reports how long its job took to start.
pub(super) const LATENCY: &str = "latency";
/// Jobs of one call of a submit in bulk.
const BULK: usize = 1_000;
/// Bytes of the payload of a job.
pub(super) const PAYLOAD_BYTES: usize = 200;

/// Microseconds since 1970.
pub(super) fn now_us() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e6
}

/// A JSON object of [`PAYLOAD_BYTES`] bytes, as a small job has.
pub(super) fn payload() -> String {
    let head = "{\"user\":\"u-18273\",\"template\":\"welcome\",\"args\":{\"name\":\"Ada Lovelace\",\"plan\":\"team\",\
                \"seats\":12},\"trace\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\",\"note\":\"";
    let note = "x".repeat(PAYLOAD_BYTES - head.len() - 2);
    format!("{head}{note}\"}}")
}

/// A job of a kind, with the defaults of one that no kinds file names.
pub(super) fn job(kind: &str, payload: &str) -> NewJob {
    let kind = Kind::parse(kind).expect("the kinds of a measurement are valid names");
    let payload = Json::parse(payload, 16, 1 << 20).expect("the payloads of a measurement are JSON");
    Draft::new(kind, payload).into_job(&Kinds::default())
}

/// Jobs that do nothing, with a payload of the usual size.
pub(super) fn jobs(count: usize) -> Vec<NewJob> {
    vec![job(NOOP, &payload()); count]
}

/// Submits jobs in bulk, one call after the other.
pub(super) async fn submit(store: &Store, count: usize) -> Result<Vec<Submitted>, Failure> {
    let mut all = Vec::with_capacity(count);
    for first in (0..count).step_by(BULK) {
        for submitted in store.submit_many(jobs(BULK.min(count - first))).await? {
            all.push(submitted.map_err(leasehold::Error::Refused)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_payload_has_its_size() {
        assert_eq!(super::payload().len(), super::PAYLOAD_BYTES);
        serde_json::from_str::<serde_json::Value>(&super::payload()).expect("it is JSON");
    }
}
