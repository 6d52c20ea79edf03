//! The file with a batch's items for the command that runs its `then`: a line of JSON each, as in the reply to `GET
//! …/items`.
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::attempt::context::Context;
use crate::failure::Failure;
use crate::outage::is_outage;

/// The pause before reading items again after an outage; the Store has retried for `redis.outage_ms` by then.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Writes the items of the context's batch to `path`. An outage does not fail the attempt: it is waited out until the
/// attempt must stop.
pub(super) async fn write(context: &Context, path: &Path) -> Result<(), Failure> {
    loop {
        let written = tokio::select! {
            written = write_once(context, path) => written,
            () = context.cancelled() => return Err(Failure::new("stopped before the command was started")),
        };
        match written {
            Ok(()) => return Ok(()),
            Err(Fault::Read(e)) if is_outage(&e) => tokio::time::sleep(AGAIN_AFTER).await,
            Err(Fault::Read(e)) => return Err(Failure::new(format!("cannot read the items of the batch: {e}"))),
            Err(Fault::Written(e)) => return Err(Failure::new(format!("cannot write items.jsonl: {e}"))),
        }
    }
}

enum Fault {
    Read(leasehold::Error),
    Written(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Written(error)
    }
}

async fn write_once(context: &Context, path: &Path) -> Result<(), Fault> {
    let mut file = BufWriter::with_capacity(64 << 10, File::create(path).await?);
    let mut items = context.items();
    while let Some(item) = items.try_next().await.map_err(Fault::Read)? {
        let mut line = serde_json::to_vec(&item).map_err(io::Error::from)?;
        line.push(b'\n');
        file.write_all(&line).await?;
    }
    file.flush().await?;
    Ok(())
}
