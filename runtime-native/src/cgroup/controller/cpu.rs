//! Processor time.

use std::io;

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use crate::cgroup::group::Group;
use crate::cgroup::hierarchy::Hierarchy;
use crate::cgroup::limits::{Limits, not_in};
use crate::cgroup::read;
use crate::plan::PlanError;

const SHARES: &str = "linux.resources.cpu.shares (--cpu-shares)";
const QUOTA: &str = "linux.resources.cpu.quota (--cpus, --cpu-quota)";
const PERIOD: &str = "linux.resources.cpu.period (--cpu-period)";
const BURST: &str = "linux.resources.cpu.burst";
const IDLE: &str = "linux.resources.cpu.idle";
const RT_RUNTIME: &str = "linux.resources.cpu.realtimeRuntime (--cpu-rt-runtime)";
const RT_PERIOD: &str = "linux.resources.cpu.realtimePeriod (--cpu-rt-period)";

/// The kernel's own period, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// What a group has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Nanoseconds in all.
    pub usage_ns: u64,
    /// Of these in programs.
    pub user_ns: u64,
    /// Of these in the kernel.
    pub system_ns: u64,
    /// Nanoseconds on each processor; empty on v2.
    pub per_cpu_ns: Vec<u64>,
    /// Periods in which the group ran under a quota.
    pub periods: u64,
    /// Of these the ones in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds that it waited for the next period.
    pub throttled_ns: u64,
}

/// The parts of a [`LinuxCpu`] that are set; 0 means "not set" to every runtime.
struct Asked {
    shares: Option<u64>,
    quota: Option<i64>,
    period: Option<u64>,
}

impl Asked {
    fn new(cpu: &LinuxCpu) -> Self {
        Self {
            shares: cpu.shares().filter(|&shares| shares != 0),
            quota: cpu.quota().filter(|&quota| quota != 0),
            period: cpu.period().filter(|&period| period != 0),
        }
    }
}

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(cpu) = resources.cpu() else {
        return Ok(());
    };
    let asked = Asked::new(cpu);
    if let Some(shares) = asked.shares {
        out.set("cpu.shares", shares, SHARES)?;
    }
    // Real time: the period first, it must not be shorter than the runtime.
    if let Some(period) = cpu.realtime_period().filter(|&period| period != 0) {
        out.set("cpu.rt_period_us", period, RT_PERIOD)?;
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|&runtime| runtime != 0) {
        out.set("cpu.rt_runtime_us", runtime, RT_RUNTIME)?;
    }
    if let Some(period) = asked.period {
        out.set("cpu.cfs_period_us", period, PERIOD)?;
    }
    if let Some(quota) = asked.quota {
        out.set("cpu.cfs_quota_us", quota.max(-1), QUOTA)?;
    }
    if let Some(burst) = cpu.burst() {
        out.set("cpu.cfs_burst_us", burst, BURST)?;
    }
    if let Some(idle) = cpu.idle() {
        out.set("cpu.idle", idle, IDLE)?;
    }
    Ok(())
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(cpu) = resources.cpu() else {
        return Ok(());
    };
    let asked = Asked::new(cpu);
    for (value, option) in [
        (cpu.realtime_runtime().is_some_and(|v| v != 0), RT_RUNTIME),
        (cpu.realtime_period().is_some_and(|v| v != 0), RT_PERIOD),
    ] {
        if value {
            return Err(not_in("cgroup v2", option));
        }
    }
    // An idle group has a weight of its own, which cannot be set as well.
    if let Some(idle) = cpu.idle() {
        out.set("cpu.idle", idle, IDLE)?;
    }
    if let Some(shares) = asked.shares.filter(|_| cpu.idle() != Some(1)) {
        out.set("cpu.weight", weight(shares), SHARES)?;
    }
    if asked.quota.is_some() || asked.period.is_some() {
        let current = out.current("cpu.max");
        let option = if asked.quota.is_some() { QUOTA } else { PERIOD };
        out.set("cpu.max", max(&asked, current.as_deref()), option)?;
    }
    if let Some(burst) = cpu.burst() {
        out.set("cpu.max.burst", burst, BURST)?;
    }
    Ok(())
}

/// `cpu.max`: quota and period in one file; what is not asked for stays as it is.
fn max(asked: &Asked, current: Option<&str>) -> String {
    let (quota, period) = current
        .and_then(|text| text.split_once(' '))
        .unwrap_or(("max", ""));
    let period = asked.period.or_else(|| period.parse().ok());
    let quota = match asked.quota {
        None => quota.to_owned(),
        Some(quota) if quota < 0 => "max".to_owned(),
        Some(quota) => quota.to_string(),
    };
    format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD))
}

/// Shares of v1 (2 to 262144) to the weight of v2 (1 to 10000), as the runtimes agreed
/// (runtime-spec v1.2 `config-linux.md#cpu`, note on `shares`).
pub(crate) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// What the group has used; none without the controller.
pub(in crate::cgroup) fn stats(group: &Group) -> io::Result<Option<CpuStats>> {
    match group.hierarchy() {
        Hierarchy::None => Ok(None),
        Hierarchy::Legacy { .. } => legacy_stats(group),
        Hierarchy::Unified { .. } => unified_stats(group),
    }
}

fn legacy_stats(group: &Group) -> io::Result<Option<CpuStats>> {
    let mut stats = CpuStats::default();
    let Some(usage) = group.file("cpuacct.usage") else {
        return Ok(None);
    };
    stats.usage_ns = read::number(&usage)?;
    stats.user_ns = read::number(&usage.with_file_name("cpuacct.usage_user"))?;
    stats.system_ns = read::number(&usage.with_file_name("cpuacct.usage_sys"))?;
    let each = read::text(&usage.with_file_name("cpuacct.usage_percpu"))?.unwrap_or_default();
    stats.per_cpu_ns = each
        .split_whitespace()
        .filter_map(|value| value.parse().ok())
        .collect();
    if let Some(file) = group.file("cpu.stat") {
        let keys = read::flat(&file)?;
        let key = |name| keys.get(name).copied().unwrap_or(0);
        stats.periods = key("nr_periods");
        stats.throttled_periods = key("nr_throttled");
        stats.throttled_ns = key("throttled_time");
    }
    Ok(Some(stats))
}

fn unified_stats(group: &Group) -> io::Result<Option<CpuStats>> {
    let Some(file) = group.file("cpu.stat").filter(|file| file.exists()) else {
        return Ok(None);
    };
    let keys = read::flat(&file)?;
    let ns = |name| keys.get(name).copied().unwrap_or(0).saturating_mul(1000);
    let key = |name| keys.get(name).copied().unwrap_or(0);
    Ok(Some(CpuStats {
        usage_ns: ns("usage_usec"),
        user_ns: ns("user_usec"),
        system_ns: ns("system_usec"),
        per_cpu_ns: Vec::new(),
        periods: key("nr_periods"),
        throttled_periods: key("nr_throttled"),
        throttled_ns: ns("throttled_usec"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_of_shares_covers_the_range() {
        assert_eq!(
            (weight(0), weight(2), weight(1024), weight(262_144)),
            (1, 1, 39, 10_000)
        );
    }

    #[test]
    fn max_keeps_what_is_not_asked_for() {
        let asked = |quota, period| Asked {
            shares: None,
            quota,
            period,
        };
        assert_eq!(max(&asked(Some(50_000), None), None), "50000 100000");
        assert_eq!(max(&asked(None, Some(20_000)), None), "max 20000");
        assert_eq!(
            max(&asked(None, Some(20_000)), Some("7000 9000")),
            "7000 20000"
        );
        assert_eq!(max(&asked(Some(-1), None), Some("7000 9000")), "max 9000");
    }
}
