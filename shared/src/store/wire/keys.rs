//! All Redis keys, defined here for Rust and in `../lua/base.lua` for the scripts; a test checks that both agree.
//!
//! All keys but [`META`] begin with a partition's prefix, whose braces make it the hash slot.
use crate::{JobId, Kind, QueueName, WorkerId};

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

/// The ended jobs of a kind, items excluded, by their end: the key without the prefix.
pub(crate) fn finished_suffix(kind: &Kind) -> String {
    format!("finished:{kind}")
}

/// The job that has done the same work of this kind before, in the partition of the digest.
pub(crate) fn cache(kind: &Kind, digest: &str, partitions: u16) -> String {
    format!("lh:{{{}}}:cache:{kind}:{digest}", partition_of(digest, partitions))
}

/// A pattern for SCAN: the keys of a partition whose names match `tail`.
pub(crate) fn pattern(partition: u16, tail: &str) -> String {
    format!("lh:\\{{{partition}\\}}:{tail}")
}

/// A key of a fixed name within a partition.
pub(crate) fn fixed(partition: u16, name: &str) -> String {
    format!("lh:{{{partition}}}:{name}")
}

/// CRC-16/XMODEM, as Redis Cluster's key slots use it.
const CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);

/// The partition, of `partitions`, that a text belongs to.
pub(crate) fn partition_of(text: &str, partitions: u16) -> u16 {
    CRC16.checksum(text.as_bytes()) % partitions
}

/// A new id that belongs to `partition`, or to any: a UUIDv7 is drawn until it does.
pub(crate) fn mint(partition: Option<u16>, partitions: u16) -> JobId {
    loop {
        let id = uuid::Uuid::now_v7().to_string();
        if partition.is_none_or(|p| partition_of(&id, partitions) == p) {
            return JobId::parse(&id).expect("a UUID keeps to the alphabet of ids");
        }
    }
}

/// The id of item `number` of `parent`, in its parent's partition: `<parent>-<number>`, with the first `-<k>` behind it
/// that fits.
pub(crate) fn item(parent: &JobId, number: u64, partitions: u16) -> JobId {
    let home = partition_of(parent.as_str(), partitions);
    // An imported parent's id may be as long as an id may be; its digest is used then.
    let stem = if parent.as_str().len() <= 44 { parent.to_string() } else { digest(parent.as_str()) };
    let plain = format!("{stem}-{number}");
    let mut id = plain.clone();
    let mut nonce = 0_u32;
    while partition_of(&id, partitions) != home {
        nonce += 1;
        id = format!("{plain}-{nonce}");
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
    fn slots_are_redis_clusters() {
        // CLUSTER KEYSLOT of `lh:{0}` to `lh:{3}`.
        let slots = [0, 1, 2, 3].map(|partition| Home::Partition(partition).slot());
        assert_eq!(slots, [13_907, 9_842, 5_649, 1_584]);
    }

    #[test]
    fn ids_belong_where_they_were_minted_for() {
        for partitions in [1, 4, 256] {
            for home in [0, partitions - 1] {
                let id = mint(Some(home), partitions);
                assert_eq!(partition_of(id.as_str(), partitions), home);
                let items: Vec<_> = (0..20).map(|k| item(&id, k, partitions)).collect();
                assert!(items.iter().all(|i| partition_of(i.as_str(), partitions) == home));
                assert_eq!(items, (0..20).map(|k| item(&id, k, partitions)).collect::<Vec<_>>());
            }
        }
    }
}
