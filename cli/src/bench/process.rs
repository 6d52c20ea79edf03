//! CPU time and memory of a process, from /proc.
use nix::unistd::{SysconfVar, sysconf};

use crate::failure::Failure;

fn read(pid: u32, file: &str) -> Result<String, Failure> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).map_err(|e| Failure::Failed(format!("{path}: {e}")))
}

/// CPU time that the process has used, user and system, s.
pub(super) fn cpu_s(pid: u32) -> Result<f64, Failure> {
    let stat = read(pid, "stat")?;
    // The name may hold blanks: the fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Ok((ticks(11) + ticks(12)) / per_second as f64)
}

/// Memory of the process that is in RAM, MB of 1,000,000 bytes.
pub(super) fn resident_mb(pid: u32) -> Result<f64, Failure> {
    let status = read(pid, "status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kib = kib.and_then(|kib| kib.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1_024.0 / 1e6).ok_or_else(|| Failure::Failed(format!("process {pid} reports no memory")))
}
