//! The machine that is measured on.
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::figure::percentile;
use super::site::{Fsync, Ground, Site};
use crate::failure::Failure;

/// How often a sync is timed.
const SYNCS: usize = 20;

/// What the figures depend on.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The load of the last minute, before anything was measured.
    pub load: Option<f64>,
    /// The version of Redis.
    pub redis: String,
    /// How long an fsync of 4 KiB takes where the append-only file will be, the median, µs.
    pub fsync_us: f64,
    /// Whether this is a release build.
    pub release: bool,
    /// The version of Leasehold.
    pub leasehold: &'static str,
}

impl Machine {
    /// Looks at it.
    pub(super) async fn look(ground: &Ground) -> Result<Self, Failure> {
        let site = Site::start(ground, Fsync::Everysec, 1).await?;
        let redis = site.meter.read().await?.version;
        site.close().await?;
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        // `make up` and `make demo` build without optimizations, into a folder of that name.
        let is_demo = std::env::current_exe().is_ok_and(|path| path.parent().is_some_and(|at| at.ends_with("demo")));
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.and_then(|load| load.split(' ').next()?.parse().ok()),
            redis,
            fsync_us: fsync_us(&ground.folder)?,
            release: !cfg!(debug_assertions) && !is_demo,
            leasehold: env!("CARGO_PKG_VERSION"),
        })
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let load = self.load.map_or(String::new(), |load| format!(", load {load:.2}"));
        format!(
            "Leasehold {}, {} cores{load}, Redis {}, an fsync takes {:.0} µs (median of {SYNCS})",
            self.leasehold, self.cores, self.redis, self.fsync_us
        )
    }

    /// What makes the figures useless, or doubtful.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.release {
            warnings.push("this is not a release build, so the figures mean nothing; run: make bench".to_owned());
        }
        if self.load.is_some_and(|load| load > 0.5 * self.cores as f64) {
            warnings.push("other programs use this machine; figures will vary".to_owned());
        }
        if self.fsync_us < 20.0 {
            warnings.push(
                "an fsync costs nothing here (a memory file system?); name a folder on a disk with TMPDIR".into(),
            );
        }
        warnings
    }
}

fn fsync_us(folder: &Path) -> std::io::Result<f64> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[0; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentile(&times, 50.0))
}
