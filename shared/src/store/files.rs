//! The files in jobs' records: reading the list, removal with the job, and the sweep of files left by crashes.
use std::time::Duration;

use redis::Value;

use super::Store;
use super::finding::{Finding, Repair};
use super::record::files_of;
use super::wire::reply::{array, text};
use super::wire::{Home, Wire, keys};
use crate::files::location::Location;
use crate::files::{FileEntry, FileError, FileStore, JobFiles, OldFolder, Output, Place};
use crate::{Config, Error, JobId, Result, State, limits};

/// The pause between two steps of a sweep, which is not urgent.
const WALK_PAUSE: Duration = Duration::from_millis(20);
/// Jobs read by one call.
const STEP: usize = 1_000;

/// Opens the configured file store, if it belongs to this Redis. Unless `is_reading`, it must be writable.
pub(super) async fn open(wire: &Wire, config: &Config, is_reading: bool) -> Result<Option<FileStore>> {
    let Some(location) = config.storage().map_err(Error::Config)? else { return Ok(None) };
    let agree = async |named: Option<String>| {
        let mut reading = redis::pipe();
        reading.cmd("HGET").arg(keys::META).arg("files");
        let known = text(&wire.pipe(Home::Meta, &reading).await?[0]);
        match named {
            _ if !known.is_empty() => Ok(known),
            // Redis was emptied, or is the wrong one: by its records, everything in the folder would be orphaned.
            Some(named) => Err(Error::Config(format!(
                "storage_url names {location}, whose files belong to the Redis {named}, and this Redis has no such \
                 folder; name an empty folder, or, if it is this Redis's, run: redis-cli HSET lh:meta files {named}"
            ))),
            None => {
                let mut setting = redis::pipe();
                setting.cmd("HSETNX").arg(keys::META).arg("files").arg(uuid::Uuid::now_v7().to_string());
                wire.pipe(Home::Meta, &setting).await?;
                Ok(text(&wire.pipe(Home::Meta, &reading).await?[0]))
            }
        }
    };
    let opened = match &location {
        Location::Folder(root) => FileStore::open(root.clone(), agree).await,
        Location::Bucket(url) => FileStore::open_bucket(url, is_reading, agree).await,
    };
    opened.map(Some)
}

impl Store {
    /// The file store; `None` when none is configured.
    pub fn files(&self) -> Option<&FileStore> {
        self.inner.files.as_ref()
    }

    /// The files of a job; `None` when there is no such job.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn job_files(&self, id: &JobId) -> Result<Option<JobFiles>> {
        let (partition, mut pipeline) = (self.place(id).await?, redis::pipe());
        pipeline.cmd("HMGET").arg(keys::job(partition, id)).arg(&["kind", "files", "output"]);
        let replies = self.inner.wire.pipe(Home::Partition(partition), &pipeline).await?;
        let fields = array(&replies[0]);
        if fields.first().is_none_or(|kind| *kind == Value::Nil) {
            return Ok(None);
        }
        let read = |at: usize| fields.get(at).map(text).unwrap_or_default();
        Ok(Some(JobFiles { input: files_of(&read(1)), output: serde_json::from_str(&read(2)).ok() }))
    }

    /// Handles the reply of a removal, `{ids with files, answers}`: deletes the files, and returns the answers.
    pub(super) async fn discard<'a>(&self, reply: &'a Value) -> &'a [Value] {
        let [with_files, answers] = array(reply) else { return &[] };
        self.delete_files(array(with_files)).await;
        array(answers)
    }

    /// [`Store::discard`] that does not wait until the files are deleted.
    pub(super) fn discard_later<'a>(&self, reply: &'a Value) -> &'a [Value] {
        let [with_files, answers] = array(reply) else { return &[] };
        let ids = job_ids(array(with_files));
        if let Some(files) = self.files().filter(|_| !ids.is_empty()) {
            files.remove_later(ids);
        }
        array(answers)
    }

    /// Whether so many deletions wait that a sweep should remove no more jobs for now.
    pub(super) fn deletes_behind(&self) -> bool {
        self.files().is_some_and(FileStore::is_behind)
    }

    /// Deletes the files of removed jobs.
    pub(super) async fn delete_files(&self, ids: &[Value]) {
        let ids = job_ids(ids);
        // A process without a file store leaves them to the sweep of one that has it.
        if let Some(files) = self.files().filter(|_| !ids.is_empty()) {
            files.remove(ids).await;
        }
    }

    /// Walks the file store, in small steps with pauses, and deletes what nobody has touched for `older_than` and
    /// belongs to no job, or to an attempt that did not complete its job. Returns how many folders.
    ///
    /// # Errors
    /// Those of any call, and [`Error::Config`] when the folder cannot be read.
    pub async fn sweep_files(&self, older_than: Duration) -> Result<usize> {
        let Some(files) = self.files() else { return Ok(0) };
        let (mut walk, mut deleted) = (files.walk(older_than).await.map_err(unusable)?, 0);
        while let Some((old, rest)) = walk.next(limits::FILE_WALK_BATCH).await.map_err(unusable)? {
            for (id, token) in self.orphans(&old).await? {
                tracing::info!(job = %id, token, "deleted orphaned files");
                self.remove_orphan(&id, token).await;
                deleted += 1;
            }
            walk = rest;
            tokio::time::sleep(WALK_PAUSE).await;
        }
        Ok(deleted)
    }

    /// Deletes the folder of a missing job, or of one attempt.
    pub(super) async fn remove_orphan(&self, id: &JobId, token: Option<u64>) {
        match (self.files(), token) {
            (Some(files), Some(token)) => files.remove_output(id, token).await,
            (Some(files), None) => files.remove(vec![id.clone()]).await,
            (None, _) => {}
        }
    }

    /// Which of these folders belong to no job, or, with a token, to an attempt that did not complete its final job.
    async fn orphans(&self, old: &[OldFolder]) -> Result<Vec<(JobId, Option<u64>)>> {
        let mut commands = Vec::new();
        let places = self.places(old.iter().map(|folder| &folder.id)).await?;
        for (folder, partition) in old.iter().zip(places) {
            let record =
                redis::cmd("HMGET").arg(keys::job(partition, &folder.id)).arg(&["kind", "state", "output"]).to_owned();
            commands.push((Home::Partition(partition), record));
            // A record that was set aside may still be repaired manually.
            let aside = keys::fixed(partition, &format!("quarantined:job:{}", folder.id));
            commands.push((Home::Partition(partition), redis::cmd("EXISTS").arg(aside).to_owned()));
        }
        if old.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.inner.wire.pipe_each_leniently(&commands).await?;
        let mut orphans = Vec::new();
        for (folder, reply) in old.iter().zip(replies.chunks_exact(2)) {
            let [kind, state, output] = array(&reply[0]) else { continue };
            if *kind == Value::Nil && *state == Value::Nil && *output == Value::Nil {
                if reply[1] == Value::Int(0) {
                    orphans.push((folder.id.clone(), None));
                }
            } else if State::parse(&text(state)).is_some_and(State::is_final) {
                let output = text(output);
                let winner = serde_json::from_str::<Output>(&output).ok().map(|output| output.token);
                // Nothing can be concluded from an unreadable list.
                if winner.is_some() || output.is_empty() {
                    let lost = folder.tokens.iter().filter(|token| Some(**token) != winner);
                    orphans.extend(lost.map(|token| (folder.id.clone(), Some(*token))));
                }
            }
        }
        Ok(orphans)
    }

    /// Holds records and file store against each other: what nobody has touched for `older_than` and no job has, and
    /// what a job has and is not there. Its cost grows with the number of jobs. Nothing is found without a file store.
    ///
    /// # Errors
    /// Those of [`Store::sweep_files`].
    pub async fn check_files(&self, older_than: Duration) -> Result<Vec<Finding>> {
        let Some(files) = self.files() else { return Ok(Vec::new()) };
        let (mut walk, mut findings) = (files.walk(older_than).await.map_err(unusable)?, Vec::new());
        while let Some((old, rest)) = walk.next(limits::FILE_WALK_BATCH).await.map_err(unusable)? {
            for (id, token) in self.orphans(&old).await? {
                let subject = token.map_or_else(|| id.to_string(), |token| format!("{id}/out/{token}"));
                let problem = "orphaned folder: its files belong to no job".to_owned();
                let partition = self.place(&id).await?;
                findings.push(Finding { partition, subject, problem, repair: Some(Repair::Files { id, token }) });
            }
            walk = rest;
        }
        for partition in 0..self.partitions() {
            self.find_missing(partition, files, &mut findings).await?;
        }
        findings.sort();
        Ok(findings)
    }

    async fn find_missing(&self, partition: u16, files: &FileStore, findings: &mut Vec<Finding>) -> Result<()> {
        let mut cursor = "0".to_owned();
        loop {
            let mut pipeline = redis::pipe();
            let pattern = keys::pattern(partition, "job:*");
            pipeline.cmd("SCAN").arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
            let home = Home::Partition(partition);
            let replies = self.inner.wire.pipe(home, &pipeline).await?;
            let Some([next, names]) = replies.first().map(array) else { return Ok(()) };
            let names: Vec<String> = array(names).iter().map(text).collect();
            let mut pipeline = redis::pipe();
            for name in &names {
                pipeline.cmd("HMGET").arg(name).arg(&["files", "output"]);
            }
            let records =
                if names.is_empty() { Vec::new() } else { self.inner.wire.pipe_leniently(home, &pipeline).await? };
            for (name, record) in names.iter().zip(&records) {
                let id = name.rsplit(':').next().and_then(|id| JobId::parse(id).ok());
                let ([input, output], Some(id)) = (array(record), id) else { continue };
                let output: Option<Output> = serde_json::from_str(&text(output)).ok();
                let input = files_of(&text(input)).into_iter().map(|file| (Place::In, file));
                let output =
                    output.into_iter().flat_map(|o| o.files.into_iter().map(move |f| (Place::Out(o.token), f)));
                for (place, file) in input.chain(output) {
                    if let Some(problem) = missing(files, &id, place, &file).await? {
                        findings.push(Finding { partition, subject: id.to_string(), problem, repair: None });
                    }
                }
            }
            cursor = text(next);
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}

async fn missing(files: &FileStore, id: &JobId, place: Place, file: &FileEntry) -> Result<Option<String>> {
    let size = files.size(id, place, &file.name).await.map_err(unusable)?;
    let (name, bytes) = (&file.name, file.bytes);
    Ok(match size {
        Some(size) if size == bytes => None,
        Some(size) => Some(format!("its file {name:?} has {size} bytes in the file store, expected {bytes}")),
        None => Some(format!("its file {name:?} is missing from the file store")),
    })
}

fn job_ids(ids: &[Value]) -> Vec<JobId> {
    ids.iter().filter_map(|v| JobId::parse(&text(v)).ok()).collect()
}

fn unusable(error: FileError) -> Error {
    Error::Config(format!("storage_url: {error}"))
}
