//! All Redis keys, defined here for Rust and in `../lua/base.lua` for the scripts; a test checks that both agree.
//!
//! All keys but [`META`] begin with a partition's prefix, whose braces make it the hash slot.
use crate::{JobId, Kind, QueueName, ScheduleName, State, Timestamp, WorkerId};

/// Settings of the whole key space, such as `partitions`.
pub(crate) const META: &str = "lh:meta";

/// What a call belongs to; it decides the hash slot, and with it the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// The settings of the whole key space.
    Meta,
    /// A partition.
    Partition(u16),
}

impl Home {
    /// The hash slot of its keys in a Redis Cluster.
    pub(crate) fn slot(self) -> u16 {
        let tag = match self {
            Self::Meta => META.to_owned(),
            Self::Partition(partition) => partition.to_string(),
        };
        CRC16.checksum(tag.as_bytes()) % 16_384
    }
}

/// A partition's prefix: the one key each script is given.
pub(crate) fn prefix(partition: u16) -> String {
    format!("lh:{{{partition}}}")
}

/// A string that is written so that replicas acknowledge it and everything before it.
pub(crate) fn replicated(prefix: &str) -> String {
    format!("{prefix}:replicated")
}

/// The hash of a job.
pub(crate) fn job(partition: u16, id: &JobId) -> String {
    format!("lh:{{{partition}}}:job:{id}")
}

/// A job's history, a list.
pub(crate) fn history(partition: u16, id: &JobId) -> String {
    format!("lh:{{{partition}}}:history:{id}")
}

/// A queue's own list. The keys of its other lists end in `:high`, `:low` and `:suspect`.
pub(crate) fn queue(partition: u16, queue: &QueueName) -> String {
    format!("lh:{{{partition}}}:queue:{queue}")
}

/// All that holds a queue's waiting ids: its lists, and the set of kinds that have a parked list.
pub(crate) fn waiting(partition: u16, queue: &QueueName) -> Vec<String> {
    let own = self::queue(partition, queue);
    let lists = ["", ":high", ":low", ":suspect"].map(|list| format!("{own}{list}"));
    lists.into_iter().chain([fixed(partition, &format!("parked:{queue}"))]).collect()
}

/// The ids a worker holds, a list.
pub(crate) fn claimed(partition: u16, worker: &WorkerId) -> String {
    format!("lh:{{{partition}}}:claimed:{worker}")
}

/// A worker's record, a hash.
pub(crate) fn worker(partition: u16, worker: &WorkerId) -> String {
    format!("lh:{{{partition}}}:worker:{worker}")
}

/// The jobs of a kind, by creation: the key without the prefix.
pub(crate) fn kind_suffix(kind: &Kind) -> String {
    format!("kind:{kind}")
}

/// Where jobs that have ended are listed: those that ended here, those that had ended before their import, and items of
/// batches.
pub(crate) const ENDED: [&str; 3] = ["finished", "imported", "items"];

/// The ended jobs of a kind and a state in one of [`ENDED`], by their end: the key without the prefix.
pub(crate) fn ended_suffix(place: &str, kind: &Kind, state: State) -> String {
    format!("{place}:{kind}:{state}")
}

/// The job that has done the same work of this kind before, in the partition of the digest.
pub(crate) fn cache(kind: &Kind, digest: &str, partitions: u16) -> String {
    format!("lh:{{{}}}:cache:{kind}:{digest}", partition_of(digest, partitions))
}

/// The name of a key that was set aside.
pub(crate) fn aside(key: &str) -> String {
    key.replacen("}:", "}:quarantined:", 1)
}

/// A pattern for SCAN: the keys of a partition whose names match `tail`.
pub(crate) fn pattern(partition: u16, tail: &str) -> String {
    format!("lh:\\{{{partition}\\}}:{tail}")
}

/// A key of a fixed name within a partition.
pub(crate) fn fixed(partition: u16, name: &str) -> String {
    format!("lh:{{{partition}}}:{name}")
}

/// The partition in the name of a key or a channel.
pub(crate) fn partition_in(name: &str) -> Option<u16> {
    name.strip_prefix("lh:{")?.split_once('}')?.0.parse().ok()
}

/// The Idempotency-Key of a kind, a string.
pub(crate) fn idempotency(partition: u16, kind: &Kind, key: &str) -> String {
    format!("lh:{{{partition}}}:idempotency:{kind}:{key}")
}

/// A schedule, a hash.
pub(crate) fn schedule(partition: u16, name: &ScheduleName) -> String {
    format!("lh:{{{partition}}}:schedule:{name}")
}

/// The schedules of a partition, by their next tick.
pub(crate) fn schedules(partition: u16) -> String {
    fixed(partition, "schedules")
}

/// CRC-16/XMODEM, as Redis Cluster's key slots use it.
const CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);

/// The partition, of `partitions`, that a text belongs to.
pub(crate) fn partition_of(text: &str, partitions: u16) -> u16 {
    CRC16.checksum(text.as_bytes()) % partitions
}

/// The digits at the end of a new id that are chosen so that it belongs to its partition.
const CHOSEN: usize = 4;

/// A new id that belongs to `partition`, or to any: a UUIDv7 whose last digits are taken from a random start on until
/// it does.
pub(crate) fn mint(partition: Option<u16>, partitions: u16) -> JobId {
    let drawn = uuid::Uuid::now_v7().to_string();
    let (stem, digits) = drawn.split_at(drawn.len() - CHOSEN);
    let start = u16::from_str_radix(digits, 16).expect("a UUID ends in hex digits");
    let mut checksum = CRC16.digest();
    checksum.update(stem.as_bytes());
    let belongs = |number: &u16| {
        let mut whole = checksum.clone();
        whole.update(hex(*number).as_slice());
        partition.is_none_or(|p| whole.finalize() % partitions == p)
    };
    let number = (0..=u16::MAX).map(|step| start.wrapping_add(step)).find(belongs);
    let number = number.expect("the last two bytes of a text reach every checksum");
    let digits = String::from_utf8(hex(number).to_vec()).expect("hex digits are ASCII");
    JobId::parse(&format!("{stem}{digits}")).expect("a UUID keeps to the alphabet of ids")
}

/// Four hex digits.
fn hex(number: u16) -> [u8; CHOSEN] {
    [12, 8, 4, 0].map(|shift| b"0123456789abcdef"[usize::from(number >> shift & 15)])
}

/// The id of item `number` of `parent`, in its parent's partition: `<parent>-<number>`, with the first `-<k>` behind it
/// that fits.
pub(crate) fn item(parent: &JobId, number: u64, partitions: u16) -> JobId {
    // An imported parent's id may be as long as an id may be; its digest is used then.
    let stem = if parent.as_str().len() <= 44 { parent.to_string() } else { digest(parent.as_str()) };
    numbered(format!("{stem}-{number}"), partition_of(parent.as_str(), partitions), partitions)
}

/// The id of the job of a schedule's tick, in the schedule's partition.
pub(crate) fn tick(schedule: &ScheduleName, tick: Timestamp, partitions: u16) -> JobId {
    let (name, home) = (schedule.as_str(), partition_of(schedule.as_str(), partitions));
    // Ids have no dots.
    let stem = if name.len() <= 40 && !name.contains('.') { name.to_owned() } else { digest(name) };
    numbered(format!("{stem}-{}", tick.0), home, partitions)
}

/// `id`, with the first `-<k>` behind it that brings it home.
fn numbered(mut id: String, home: u16, partitions: u16) -> JobId {
    if partition_of(&id, partitions) != home {
        id.push('-');
        let mut checksum = CRC16.digest();
        checksum.update(id.as_bytes());
        let belongs = |nonce: &u32| {
            let mut whole = checksum.clone();
            whole.update(nonce.to_string().as_bytes());
            whole.finalize() % partitions == home
        };
        let nonce = (1..).find(belongs).expect("some number fits");
        id.push_str(&nonce.to_string());
    }
    JobId::parse(&id).expect("44 bytes leave room for the number and the nonce")
}

/// 32 hex digits of a SHA-256.
fn digest(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes()).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_redis_clusters() {
        assert_eq!(CRC16.checksum(b"123456789"), 0x31c3);
    }

    #[test]
    fn items_have_the_ids_that_older_versions_gave_them() {
        let parent = JobId::parse("01a2045e-d7b2-705c-9997-0a3345756cc0").unwrap();
        for number in 0..50 {
            let plain = format!("{parent}-{number}");
            let home = partition_of(parent.as_str(), 16);
            let nonces = (1..).map(|nonce| format!("{plain}-{nonce}"));
            let first = std::iter::once(plain.clone()).chain(nonces).find(|id| partition_of(id, 16) == home);
            assert_eq!(item(&parent, number, 16).as_str(), first.unwrap());
        }
    }

    #[test]
    fn slots_are_redis_clusters() {
        // CLUSTER KEYSLOT of `lh:{0}` to `lh:{3}`.
        let slots = [0, 1, 2, 3].map(|partition| Home::Partition(partition).slot());
        assert_eq!(slots, [13_907, 9_842, 5_649, 1_584]);
    }

    #[test]
    fn ids_belong_where_they_were_minted_for() {
        for partitions in [1, 4, 255, 256] {
            for home in [0, partitions - 1] {
                let id = mint(Some(home), partitions);
                assert_eq!(partition_of(id.as_str(), partitions), home);
                assert_eq!(uuid::Uuid::parse_str(id.as_str()).expect("a UUID").get_version_num(), 7);
                let items: Vec<_> = (0..20).map(|k| item(&id, k, partitions)).collect();
                assert!(items.iter().all(|i| partition_of(i.as_str(), partitions) == home));
                assert_eq!(items, (0..20).map(|k| item(&id, k, partitions)).collect::<Vec<_>>());
            }
        }
    }
}
