//! A submit as its client wrote it, before the defaults of its kind apply. Pure.
//!
//! Every way into the system (HTTP, the old systems' routes, the command line on Redis, an import) makes its [`NewJob`]
//! here, so that one request is one job with one digest, whichever way it comes.
use crate::canonical::request_digest;
use crate::files::FileEntry;
use crate::job::{Due, Durability, Idempotency, NewBatch, Priority, Uploaded};
use crate::{JobId, Json, Kind, Kinds, NewJob, QueueName};

/// A submit; for a field that is `None`, the default of its kind applies.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The kind of work.
    pub kind: Kind,
    /// The input of its handler; JSON null when the client sent none.
    pub payload: Json,
    /// The queue.
    pub queue: Option<QueueName>,
    /// The priority within the queue.
    pub priority: Option<Priority>,
    /// When the job may start.
    pub due: Option<Due>,
    /// Maximum attempts, at least 1.
    pub max_attempts: Option<u32>,
    /// Maximum run time of an attempt, ms.
    pub timeout_ms: Option<u64>,
    /// The Idempotency-Key, which makes the submit safe to repeat.
    pub key: Option<String>,
    /// How many replicas of Redis must have the job before the submit is answered.
    pub durability: Option<Durability>,
    /// Makes the job a batch.
    pub batch: Option<NewBatch>,
}

impl Draft {
    /// A submit with only a kind and a payload.
    pub fn new(kind: Kind, payload: Json) -> Self {
        Self {
            kind,
            payload,
            queue: None,
            priority: None,
            due: None,
            max_attempts: None,
            timeout_ms: None,
            key: None,
            durability: None,
            batch: None,
        }
    }

    /// The digest of the request for its Idempotency-Key: 32 hex digits that depend on every field as sent, but not on
    /// white space, the order of fields or the settings of the kind. Files are added by [`attach`]. `durability` is not
    /// part of it: a repeat may wait for another number of replicas.
    pub fn digest(&self) -> String {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let due = match self.due {
            None => String::new(),
            Some(Due::Now) => "now".into(),
            Some(Due::In(ms)) => format!("+{ms}"),
            Some(Due::At(time)) => time.0.to_string(),
        };
        let batch = self.batch.as_ref();
        // A batch that is open and has no items yet is the same whether or not the request had an empty list.
        let items = batch.filter(|batch| !batch.open || !batch.items.is_empty()).map(|batch| batch.items.len() as u64);
        let fixed = [
            self.kind.as_str(),
            self.payload.as_str(),
            self.queue.as_ref().map_or("", QueueName::as_str),
            self.priority.map_or("", Priority::as_str),
            &due,
            &number(self.max_attempts.map(u64::from)),
            &number(self.timeout_ms),
            if batch.is_some_and(|batch| batch.open) { "true" } else { "false" },
            batch.and_then(|batch| batch.then.as_ref()).map_or("", Kind::as_str),
            &number(items),
        ];
        request_digest(fixed.into_iter().chain(batch.into_iter().flat_map(|batch| &batch.items).map(Json::as_str)))
    }

    /// The job, with the defaults of its kind applied.
    pub fn into_job(self, kinds: &Kinds) -> NewJob {
        let digest = if self.key.is_some() { self.digest() } else { String::new() };
        let kind = kinds.get(&self.kind);
        NewJob {
            queue: self.queue.unwrap_or_else(|| kind.queue_name()),
            priority: self.priority.unwrap_or_default(),
            payload: self.payload,
            due: self.due.unwrap_or_default(),
            max_attempts: self.max_attempts.unwrap_or(kind.max_attempts),
            timeout_ms: self.timeout_ms,
            idempotency: self.key.map(|key| Idempotency { key, digest }),
            durability: self.durability.or(kind.durability).unwrap_or_default(),
            limited: kind.max_running.is_some(),
            batch: self.batch,
            kind: self.kind,
            uploaded: None,
        }
    }
}

/// Attaches the files that were written under `id`, minted for the job by `Store::mint_id`, and includes their names
/// and contents, in any order, in the digest of its Idempotency-Key. Without files nothing changes.
pub fn attach(job: &mut NewJob, id: JobId, mut files: Vec<FileEntry>) {
    if files.is_empty() {
        return;
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(idempotency) = &mut job.idempotency {
        let contents = files.iter().flat_map(|file| [file.name.as_str(), file.sha256.as_str()]);
        idempotency.digest = request_digest([idempotency.digest.as_str(), "files"].into_iter().chain(contents));
    }
    job.uploaded = Some(Uploaded { id, files });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(payload: &str) -> Draft {
        let payload = Json::parse(payload, 9, 999).unwrap();
        Draft { key: Some("k".into()), ..Draft::new(Kind::parse("resize").unwrap(), payload) }
    }

    fn entry(name: &str, sha256: &str) -> FileEntry {
        let (name, sha256) = (name.to_owned(), sha256.to_owned());
        FileEntry { name, bytes: 1, content_type: "text/plain".into(), sha256 }
    }

    #[test]
    fn what_a_submit_leaves_out_comes_from_its_kind() {
        let kinds = "[kinds.resize]\nqueue = \"images\"\nmax_attempts = 2\nmax_running = 1\n";
        let kinds = Kinds::parse(kinds, "/".into()).unwrap();
        let job = draft("1").into_job(&kinds);
        assert_eq!((job.queue.as_str(), job.max_attempts, job.limited), ("images", 2, true));
        assert_eq!((job.due, job.timeout_ms, job.priority), (Due::Now, None, Priority::Normal));
        let named = Draft { queue: QueueName::parse("q").ok(), max_attempts: Some(9), ..draft("1") };
        let job = named.into_job(&kinds);
        assert_eq!((job.queue.as_str(), job.max_attempts, job.limited), ("q", 9, true));
        let job = draft("1").into_job(&Kinds::default());
        assert_eq!((job.queue.as_str(), job.max_attempts, job.limited), ("default", 5, false));
        let kinds = Kinds::parse("[kinds.resize]\ndurability = \"replicas:2\"", "/".into()).unwrap();
        assert_eq!(draft("1").into_job(&kinds).durability.replicas(), 2);
        let named = Draft { durability: Durability::parse("replicas:0").ok(), ..draft("1") };
        assert_eq!(named.digest(), draft("1").digest(), "a repeat may wait for others");
        assert_eq!(named.into_job(&kinds).durability.replicas(), 0);
    }

    #[test]
    fn a_digest_depends_on_what_was_sent_and_not_on_the_kind() {
        let one = draft("{\"x\":1}");
        let kinds = Kinds::parse("[kinds.resize]\nqueue = \"images\"\n", "/".into()).unwrap();
        assert_eq!(one.clone().into_job(&kinds).idempotency.unwrap().digest, one.digest());
        let batch = |items: &[&str], open| {
            let items = items.iter().map(|item| Json::parse(item, 9, 999).unwrap()).collect();
            Draft { batch: Some(NewBatch { items, open, then: None }), ..one.clone() }
        };
        let others = [
            Draft { payload: Json::null(), ..one.clone() },
            Draft { kind: Kind::parse("other").unwrap(), ..one.clone() },
            Draft { queue: QueueName::parse("default").ok(), ..one.clone() },
            Draft { priority: Some(Priority::Normal), ..one.clone() },
            Draft { due: Some(Due::In(5)), ..one.clone() },
            Draft { due: Some(Due::At(crate::Timestamp(5))), ..one.clone() },
            Draft { max_attempts: Some(5), ..one.clone() },
            Draft { timeout_ms: Some(5), ..one.clone() },
            batch(&[], false),
            batch(&[], true),
            batch(&["1"], false),
            batch(&["1"], true),
            batch(&["1", "2"], false),
            batch(&["12"], false),
        ];
        let mut digests: Vec<String> = others.iter().map(Draft::digest).chain([one.digest()]).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
    }

    #[test]
    fn a_key_stands_for_the_files_too_in_any_order() {
        let with = |files: Vec<FileEntry>| {
            let mut job = draft("1").into_job(&Kinds::default());
            attach(&mut job, JobId::parse("a").unwrap(), files);
            job.idempotency.unwrap().digest
        };
        assert_eq!(with(Vec::new()), draft("1").digest());
        let (a, b) = (entry("a", "11"), entry("b", "22"));
        assert_eq!(with(vec![a.clone(), b.clone()]), with(vec![b.clone(), a.clone()]));
        assert_ne!(with(vec![a.clone()]), with(vec![entry("a", "22")]));
        assert_ne!(with(vec![a.clone()]), with(vec![b]));
        assert_ne!(with(vec![a]), with(Vec::new()));
    }
}
