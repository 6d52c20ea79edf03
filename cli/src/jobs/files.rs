//! `jobs files`: the files submitted with a job, and those that its attempts left.
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::Cell;
use futures_util::TryStreamExt;
use leasehold::JobId;
use leasehold::files::FileBytes;

use crate::arguments::Common;
use crate::backend::{Direction, FileView, path_for};
use crate::failure::Failure;
use crate::print::{self, Table, cell};

/// Which files.
#[derive(Args)]
#[command(after_help = "\
Examples:
  leasehold jobs files ID
  leasehold jobs files ID --get report.pdf                 into this folder; an existing file is not replaced
  leasehold jobs files ID --get rows.csv --to - | head")]
pub(crate) struct Arguments {
    /// The job's id, or its first or last characters.
    id: JobId,
    /// Download this file.
    #[arg(long, value_name = "NAME")]
    get: Option<String>,
    /// Where to write it, in place of its name in this folder; - is standard output.
    #[arg(long, value_name = "PATH|-", requires = "get")]
    to: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long, requires = "get")]
    force: bool,
    /// Only files submitted with the job (in), or left by an attempt (out).
    #[arg(long, value_enum)]
    direction: Option<Direction>,
    #[command(flatten)]
    common: Common,
}

/// Lists the files, or downloads one.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { id, get, to, force, direction, common } = arguments;
    let target = match (&get, to) {
        (_, Some(path)) => path,
        (Some(name), None) => path_for(name)?.to_owned(),
        (None, None) => PathBuf::new(),
    };
    let backend = common.backend().await?;
    let id = backend.resolve(&id).await?;
    let mut files = backend.files(&id).await?;
    files.retain(|file| direction.is_none_or(|wanted| wanted == file.direction));
    let Some(name) = get else { return list(&files, &common) };
    let missing = || Failure::Failed(format!("job {id} has no file {name:?}; `leasehold jobs files {id}` lists them"));
    let file = files.iter().find(|file| file.name == name).ok_or_else(missing)?;
    if !force && target.as_os_str() != "-" && target.exists() {
        return Err(there(&target));
    }
    let bytes = backend.file(&id, file).await?;
    if target.as_os_str() == "-" {
        return copy(bytes, file, &mut std::io::stdout().lock()).await;
    }
    save(bytes, file, &target, force).await?;
    print::aside(format_args!("{} bytes in {}", file.bytes, target.display()));
    Ok(())
}

fn list(files: &[FileView], common: &Common) -> Result<(), Failure> {
    if common.json() {
        return Ok(print::json_list("files", files)?);
    }
    let mut table = Table::new(&["NAME", "BYTES", "DIRECTION", "TYPE"]);
    for file in files {
        let direction = if file.direction == Direction::In { "in" } else { "out" };
        table.row(vec![cell(&file.name), Cell::new(file.bytes), Cell::new(direction), cell(&file.content_type)]);
    }
    table.numbers(&[1]);
    Ok(table.print()?)
}

fn there(target: &Path) -> Failure {
    Failure::Failed(format!("{} exists already; give --force to replace it, or --to another path", target.display()))
}

/// Writes beside the target and renames it when it is complete.
async fn save(bytes: FileBytes, file: &FileView, target: &Path, force: bool) -> Result<(), Failure> {
    let fault = |e: std::io::Error| Failure::Failed(format!("{}: {e}", target.display()));
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".leasehold-").permissions(std::fs::Permissions::from_mode(0o666));
    let mut part = builder.tempfile_in(folder).map_err(fault)?;
    copy(bytes, file, part.as_file_mut()).await?;
    let kept = if force { part.persist(target) } else { part.persist_noclobber(target) };
    kept.map(drop).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => there(target),
        _ => fault(e.error),
    })
}

async fn copy(mut bytes: FileBytes, file: &FileView, to: &mut impl Write) -> Result<(), Failure> {
    let mut copied = 0;
    let broken = |why: String| Failure::Failed(format!("file {:?} could not be read to its end: {why}", file.name));
    while let Some(piece) = bytes.try_next().await.map_err(|e| broken(e.to_string()))? {
        to.write_all(&piece)?;
        copied += piece.len() as u64;
    }
    if copied != file.bytes {
        return Err(broken(format!("{copied} of {} bytes came", file.bytes)));
    }
    Ok(to.flush()?)
}
