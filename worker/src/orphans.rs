//! The walk of the file store, in every worker that has one: deletes what deaths have left there. Slow, and in small
//! steps; any number of walkers is safe.
use std::sync::Arc;
use std::time::Duration;

use crate::contact::is_outage;
use crate::run::Running;

/// Walks each `files.walk_ms`, until the worker is gone.
pub(crate) async fn run(running: Arc<Running>) {
    if running.store.files().is_none() {
        return;
    }
    let files = &running.config.files;
    let (every, older_than) = (Duration::from_millis(files.walk_ms), Duration::from_millis(files.orphan_ms));
    loop {
        // Jitter spreads the walks of many workers.
        tokio::time::sleep(every.mul_f64(rand::random_range(0.5..1.5))).await;
        match running.store.sweep_files(older_than).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "the walk of the file store deleted folders of no job"),
            Err(e) if is_outage(&e) => running.contact.failed("walking the file store", &e),
            Err(e) => tracing::warn!("the file store was not walked to its end: {e}"),
        }
    }
}
