//! The file in which a command that runs the `then` of a batch finds the items: a line of JSON each, as `GET …/items` gives
//! them.
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::attempt::context::Context;
use crate::failure::Failure;
use crate::outage::is_outage;

/// The pause before items that could not be read are asked for again; the Store has ridden out `redis.outage_ms` by then.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Writes the items of the context's batch to `path`. An outage, however long, is not the attempt's fault: it is waited out
/// until the attempt is to stop.
pub(super) async fn write(context: &Context, path: &Path) -> Result<(), Failure> {
    loop {
        let written = tokio::select! {
            written = write_once(context, path) => written,
            () = context.cancelled() => return Err(Failure::new("stopped before its command was started")),
        };
        match written {
            Ok(()) => return Ok(()),
            Err(Fault::Read(e)) if is_outage(&e) => tokio::time::sleep(AGAIN_AFTER).await,
            Err(Fault::Read(e)) => return Err(Failure::new(format!("the batch's items cannot be read: {e}"))),
            Err(Fault::Written(e)) => return Err(Failure::new(format!("items.jsonl cannot be written: {e}"))),
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
