//! A disk that is slow or fails and a clock that is wrong, for one process: a library that is preloaded into it.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A compiled `shim.c`, and the folder through which the process that has it is controlled.
#[derive(Debug)]
pub struct Shim {
    folder: TempDir,
}

impl Shim {
    /// Compiles it with `cc`.
    ///
    /// # Panics
    /// When there is no `cc`, which linking Rust needs too.
    pub fn build() -> Shim {
        let folder =
            tempfile::Builder::new().prefix("leasehold-test-").tempdir().expect("a temporary folder can be made");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/shim.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("shim.so"))
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(built.is_ok_and(|status| status.success()), "cc compiles shim.c");
        Shim { folder }
    }

    /// The variables that a process is started with to have it.
    pub fn environment(&self) -> [(String, String); 2] {
        let folder = self.folder.path();
        let library = folder.join("shim.so").display().to_string();
        [("LD_PRELOAD".into(), library), ("FAULT_SHIM".into(), folder.display().to_string())]
    }

    /// From now on each flush to the disk takes this long more, ms; 0: as fast as the disk is.
    pub fn slow_disk(&self, ms: u64) {
        self.write("fsync", &ms.to_string());
    }

    /// From now on each flush fails with EIO.
    pub fn failing_disk(&self) {
        self.write("fsync", "fail");
    }

    /// Within 10 ms the wall clock is wrong by this, ms.
    pub fn clock(&self, ms: i64) {
        self.write("clock", &ms.to_string());
    }

    fn write(&self, name: &str, text: &str) {
        // Renamed into place: a reader never sees half of it.
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, text).expect("a file can be made in a temporary folder");
        fs::rename(fresh, self.folder.path().join(name)).expect("a file can be renamed in its folder");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::RedisServer;

    #[tokio::test]
    async fn a_preloaded_redis_has_another_clock_and_a_slow_disk() {
        let shim = Shim::build();
        let environment = shim.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let redis = RedisServer::start_with(&[], &environment).await;
        let hour = 3_600_000;
        shim.clock(hour);
        let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        crate::eventually(std::time::Duration::from_secs(20), "the clock is ahead", async || {
            let (seconds, _): (u64, u64) = redis.command(&["TIME"]).await;
            (seconds >= here + 3_590).then_some(()).ok_or(seconds)
        })
        .await;
        shim.slow_disk(700);
        let begun = std::time::Instant::now();
        let () = redis.command(&["SET", "word", "kept"]).await;
        assert!(begun.elapsed().as_millis() >= 700, "{:?}", begun.elapsed());
    }
}
