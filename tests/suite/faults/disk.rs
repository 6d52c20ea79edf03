//! Rows in which the disk below Redis is full, slow or fails.
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use tempfile::TempDir;

use super::*;

/// How long before a kill an acknowledgement may be lost with `everysec` and a slow disk.
const EVERYSEC_LOSES: Duration = Duration::from_secs(2);

#[tokio::test]
#[ignore = "make faults"]
async fn row_06_redis_killed_with_everysec_and_a_slow_fsync() {
    let shim = Shim::build();
    let injected = "3 × SIGKILL, each flush 1.5 s slower";
    let row =
        Row { number: 6, fault: "kill -9 of Redis, `everysec`, slow fsync", injected, load_s: 12, ..Row::default() };
    let faults = async |fleet: &Fleet, begun| {
        let mut struck = Vec::new();
        for _ in 0..3 {
            shim.slow_disk(1_500);
            sleep(Duration::from_secs(3)).await;
            struck.extend(times(fleet, begun, 1, |_| (Way::Kill, Target::Redis, 200)).await);
        }
        shim.slow_disk(0);
        struck
    };
    let (evidence, _) = row.measure(&[("appendfsync", "everysec")], Some(&shim), faults).await;
    let violations = evidence.violations_after_a_rollback();
    assert!(violations.is_empty(), "{violations:#?}");
    let age = |(asked, acknowledged): &(Duration, Duration)| {
        // Written before the kill that came while it was answered, or before the next one.
        let kill = evidence.struck.iter().map(|struck| struck.at).find(|at| at >= asked);
        kill.map(|at| at.saturating_sub(*acknowledged))
    };
    let ages: Vec<Option<Duration>> = evidence.lost().iter().map(age).collect();
    println!("row 6: {} acknowledgements lost, the oldest {:?} before its kill", ages.len(), ages.iter().max());
    assert!(ages.iter().all(|age| age.is_some_and(|age| age <= EVERYSEC_LOSES)), "{ages:?}");
}

#[tokio::test]
async fn row_22_a_flush_fails_with_always() {
    let shim = Shim::build();
    let injected = "a preloaded `fdatasync` returns EIO; Redis ends and is started again";
    let row = Row { number: 22, fault: "fsync fails, `always`", injected, load_s: 5, ..Row::default() };
    let faults = async |fleet: &Fleet, _| {
        shim.failing_disk();
        redis_has_ended(fleet).await;
        says(&fleet.apis[0], 503, "redis_unavailable").await;
        shim.slow_disk(0);
        fleet.system.redis().restart().await;
        Vec::new()
    };
    row.try_with(&[], Some(&shim), faults).await;
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_22_a_flush_fails_with_everysec() {
    let shim = Shim::build();
    let injected = "the same; Redis refuses writes (MISCONF), and is restarted";
    let row = Row { number: 22, fault: "fsync fails, `everysec`", injected, load_s: 5, ..Row::default() };
    let faults = async |fleet: &Fleet, _| {
        shim.failing_disk();
        says(&fleet.apis[0], 503, "MISCONF").await;
        shim.slow_disk(0);
        // Redis 7.0 goes on refusing: it flushes again only after a write, and takes none.
        fleet.system.redis().terminate().await;
        fleet.system.redis().restart().await;
        Vec::new()
    };
    row.try_with(&[("appendfsync", "everysec")], Some(&shim), faults).await;
}

async fn redis_has_ended(fleet: &Fleet) {
    let status = fleet.system.redis().process().wait_exit(TRUTH + STALL).await;
    assert!(!status.success(), "{status}");
}

/// A disk of a few megabytes; it goes when this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, and why that is in the table: only root can mount.
    fn mount(number: u8, fault: &'static str) -> Option<SmallDisk> {
        let folder = tempfile::Builder::new().prefix("leasehold-test-").tempdir().unwrap();
        let mount = || Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(folder.path()).status();
        if !geteuid().is_root() || !mount().is_ok_and(|status| status.success()) {
            table::not_run(number, fault, "a tmpfs, which only root can mount");
            return None;
        }
        Some(SmallDisk(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_20_the_disk_is_full_with_everysec() {
    let fault = "disk full, `everysec`";
    let Some(disk) = SmallDisk::mount(20, fault) else { return };
    let injected = "a tmpfs of 8 MB filled for 5 s";
    let row = Row { number: 20, fault, injected, load_s: 8, ..Row::default() };
    let faults = async |fleet: &Fleet, _| {
        disk.fill();
        says(&fleet.apis[0], 503, "").await;
        sleep(Duration::from_secs(5)).await;
        disk.free();
        says(&fleet.apis[0], 200, "").await;
        Vec::new()
    };
    let folder = disk.path().display().to_string();
    row.try_with(&[("appendfsync", "everysec"), ("dir", &folder)], None, faults).await;
}

#[tokio::test]
#[ignore = "make faults"]
async fn row_21_the_disk_is_full_with_always() {
    let fault = "disk full, `always`";
    let Some(disk) = SmallDisk::mount(21, fault) else { return };
    let injected = "a tmpfs of 8 MB filled; Redis ends and is started again";
    let row = Row { number: 21, fault, injected, load_s: 8, ..Row::default() };
    let faults = async |fleet: &Fleet, _| {
        disk.fill();
        redis_has_ended(fleet).await;
        says(&fleet.apis[0], 503, "redis_unavailable").await;
        disk.free();
        fleet.system.redis().restart().await;
        Vec::new()
    };
    let folder = disk.path().display().to_string();
    row.try_with(&[("dir", &folder)], None, faults).await;
}
