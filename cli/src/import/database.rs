//! A SQLite file, read as it is: nothing is written to it or beside it, a lock is reported and not waited for, and what
//! is damaged is passed over.
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::input;

/// Where SQLite puts its locks: the pending byte, the reserved one and the shared ones.
const LOCK_FIRST: i64 = 0x4000_0000;
const LOCK_BYTES: i64 = 512;
/// Bytes of a value that is read.
const VALUE_BYTES_MAX: i32 = 16 << 20;
/// Faults of a database that are reported.
const FAULTS_MAX: usize = 100;
/// How far ahead, in rows, rows after a damaged place are searched for.
const JUMP_MAX: i64 = 1 << 40;

/// An open database.
pub(super) struct Database {
    connection: Connection,
    /// The name of the table, quoted.
    table: String,
    /// The name by which a row is found; `None` for a table that has no row numbers.
    row: Option<&'static str>,
    columns: Vec<String>,
    /// It was copied here, with the changes that had not been written into it.
    _copy: Option<TempDir>,
}

/// A row, or why it cannot be read.
pub(super) type Row = (u64, Result<Map<String, Value>, String>);

/// Who holds a lock on the file to write, by its process id.
pub(super) fn locked_by(path: &Path) -> Option<i32> {
    let file = input::open(path).ok()?;
    let mut lock = nix::libc::flock {
        l_type: nix::libc::F_RDLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: LOCK_FIRST,
        l_len: LOCK_BYTES,
        l_pid: 0,
    };
    debug_assert!(file.as_raw_fd() >= 0);
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (lock.l_type != nix::libc::F_UNLCK as i16).then_some(lock.l_pid)
}

/// The file of that ending beside a database, when there is something in it.
fn companion(path: &Path, ending: &str) -> Option<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    let path = PathBuf::from(name);
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0).then_some(path)
}

/// A copy of the database with what its service had not yet written into it, or rolled back.
fn copy(path: &Path, companions: &[PathBuf]) -> io::Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let to = |from: &Path| folder.path().join(from.file_name().unwrap_or_default());
    for from in companions.iter().map(PathBuf::as_path).chain([path]) {
        std::fs::copy(from, to(from))?;
    }
    let copied = to(path);
    Ok((folder, copied))
}

impl Database {
    /// Opens the table `jobs` of a database.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = input::open(path)?;
        if file.metadata().map_err(|e| e.to_string())?.len() == 0 {
            return Err("it is empty".into());
        }
        let companions: Vec<PathBuf> =
            ["-wal", "-journal"].iter().filter_map(|ending| companion(path, ending)).collect();
        let (copied, opened) = if companions.is_empty() {
            (None, path.to_owned())
        } else {
            let (folder, copied) =
                copy(path, &companions).map_err(|e| format!("it cannot be copied with its journal: {e}"))?;
            (Some(folder), copied)
        };
        let connection = connect(&opened, copied.is_some()).map_err(|e| format!("it cannot be opened: {e}"))?;
        drop(connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX));
        let table = table(&connection)?;
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        let columns = columns(&connection, &quoted)?;
        let numbered = ["rowid", "_rowid_", "oid"].into_iter().find(|name| {
            !columns.iter().any(|column| column.eq_ignore_ascii_case(name))
                && connection.prepare(&format!("SELECT {name} FROM {quoted} LIMIT 1")).is_ok()
        });
        Ok(Self { connection, table: quoted, row: numbered, columns, _copy: copied })
    }

    /// The number of rows, if it is known.
    pub(super) fn count(&self) -> Option<u64> {
        let count =
            self.connection.query_row(&format!("SELECT count(*) FROM {}", self.table), [], |row| row.get::<_, i64>(0));
        count.ok().and_then(|count| u64::try_from(count).ok())
    }

    /// Whether it has such a column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name.eq_ignore_ascii_case(column))
    }

    /// Calls `each` with every row that can be read. After a damaged place it continues with the rows after it.
    pub(super) fn rows<E>(&self, mut each: impl FnMut(Row) -> Result<(), E>) -> Result<Vec<String>, E> {
        let mut faults = Vec::new();
        let Some(row) = self.row else {
            let (_, fault) = self.run(&format!("SELECT 0, * FROM {}", self.table), None, &mut each)?;
            return Ok(fault.into_iter().collect());
        };
        let rows = format!("SELECT {row}, * FROM {} WHERE {row} > ?1", self.table);
        let (upwards, downwards) =
            (format!("{rows} ORDER BY {row}"), format!("{rows} AND {row} <= ?2 ORDER BY {row} DESC"));
        // The last row before the damage; where the next look begins; how much further the one after it does.
        let (mut good, mut after, mut jump) = (i64::MIN, i64::MIN, 1);
        loop {
            let (last, fault) = self.run(&upwards, Some((after, None)), &mut each)?;
            if after > good && (last.is_some() || fault.is_none()) {
                // It was jumped over the damage and further: back to where it ends.
                self.run(&downwards, Some((good, Some(after))), &mut each)?;
            }
            let Some(fault) = fault else { return Ok(faults) };
            if faults.last() != Some(&fault) {
                faults.push(fault);
            }
            if jump > JUMP_MAX || faults.len() > FAULTS_MAX {
                return Ok(faults);
            }
            if let Some(last) = last {
                (good, after, jump) = (last, last, 1);
            }
            after = after.max(0).saturating_add(jump);
            jump *= 2;
        }
    }

    /// One pass; the last row that was read, and what ended it before its end.
    fn run<E>(
        &self,
        sql: &str,
        between: Option<(i64, Option<i64>)>,
        each: &mut impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(Option<i64>, Option<String>), E> {
        let fault = |e: rusqlite::Error| format!("it is damaged: {e}");
        let mut statement = match self.connection.prepare(sql) {
            Ok(statement) => statement,
            Err(e) => return Ok((None, Some(fault(e)))),
        };
        let queried = match between {
            Some((after, Some(to))) => statement.query([after, to]),
            Some((after, None)) => statement.query([after]),
            None => statement.query([]),
        };
        let mut rows = match queried {
            Ok(rows) => rows,
            Err(e) => return Ok((None, Some(fault(e)))),
        };
        let (mut last, mut number) = (None, 0_u64);
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok((last, None)),
                Err(e) => return Ok((last, Some(fault(e)))),
            };
            number += 1;
            if let Some((after, to)) = between {
                let (at, down) = (row.get::<_, i64>(0).map_err(fault), to.is_some());
                let edge = last.unwrap_or_else(|| to.map_or(after, |to| to.saturating_add(1)));
                // Pages that a damaged one names twice come round again: behind them there may be no end.
                match at {
                    Ok(at) if (down && at < edge) || (!down && at > edge) => last = Some(at),
                    Ok(_) => return Ok((last, Some("it is damaged: its rows are out of order".into()))),
                    Err(e) => return Ok((last, Some(e))),
                }
            }
            let shown = last.and_then(|last| u64::try_from(last).ok()).unwrap_or(number);
            each((shown, self.record(row)))?;
        }
    }

    fn record(&self, row: &rusqlite::Row<'_>) -> Result<Map<String, Value>, String> {
        let mut record = Map::new();
        for (at, name) in self.columns.iter().enumerate() {
            let value = match row.get_ref(at + 1).map_err(|e| format!("column {name:?}: {e}"))? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => json!(number),
                // JSON has no infinity.
                ValueRef::Real(number) => json!(number),
                ValueRef::Text(text) => match std::str::from_utf8(text) {
                    Ok(text) => json!(text),
                    Err(_) => return Err(format!("column {name:?} is not UTF-8")),
                },
                ValueRef::Blob(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => json!(text),
                    Err(_) => return Err(format!("column {name:?} has {} bytes that are not text", bytes.len())),
                },
            };
            record.insert(name.clone(), value);
        }
        Ok(record)
    }
}

fn connect(path: &Path, copied: bool) -> rusqlite::Result<Connection> {
    if copied {
        // What is in the journal must be written into the copy.
        return Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut url = String::from("file:");
    for byte in absolute.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => url.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(*byte)),
            byte => url += &format!("%{byte:02x}"),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(url + "?mode=ro&immutable=1", flags)
}

/// The name of the table as it is written there.
fn table(connection: &Connection) -> Result<String, String> {
    let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name = 'jobs' COLLATE NOCASE";
    match connection.query_row(sql, [], |row| row.get(0)) {
        Ok(name) => Ok(name),
        Err(rusqlite::Error::QueryReturnedNoRows) => Err("it has no table \"jobs\"".into()),
        Err(e) => Err(format!("it cannot be read as a SQLite database: {e}")),
    }
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, String> {
    let names = || {
        let mut statement = connection.prepare(&format!("PRAGMA table_info({table})"))?;
        let names = statement.query_map([], |row| row.get::<_, String>(1))?;
        names.collect::<rusqlite::Result<Vec<String>>>()
    };
    names().map_err(|e| format!("its table cannot be read: {e}"))
}

/// The values of a record by names that are all lower case.
pub(super) fn lower(record: &Map<String, Value>) -> HashMap<String, &Value> {
    record.iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}
