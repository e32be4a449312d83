//! Memory and swap.

use std::collections::BTreeMap;
use std::io;

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::or_max;
use crate::cgroup::group::Group;
use crate::cgroup::hierarchy::Hierarchy;
use crate::cgroup::limits::{Limits, not_in};
use crate::cgroup::read;
use crate::plan::PlanError;

const LIMIT: &str = "linux.resources.memory.limit (--memory)";
const SWAP: &str = "linux.resources.memory.swap (--memory-swap)";
const RESERVATION: &str = "linux.resources.memory.reservation (--memory-reservation)";
const SWAPPINESS: &str = "linux.resources.memory.swappiness (--memory-swappiness)";
const OOM_KILLER: &str = "linux.resources.memory.disableOOMKiller (--oom-kill-disable)";
const KERNEL: &str = "linux.resources.memory.kernel (--kernel-memory)";
const KERNEL_TCP: &str = "linux.resources.memory.kernelTCP";
const HIERARCHY: &str = "linux.resources.memory.useHierarchy";

/// What a group uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes in use, page cache included.
    pub usage: u64,
    /// The most that was in use; none where the kernel does not record it.
    pub peak: Option<u64>,
    /// The limit in bytes.
    pub limit: Option<u64>,
    /// Bytes in swap (v2), or in memory and swap together (v1).
    pub swap_usage: u64,
    /// The limit of `swap_usage`.
    pub swap_limit: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: u64,
    /// How often a process was killed for want of memory.
    pub oom_kills: u64,
    /// `memory.stat` as the kernel writes it.
    pub detail: BTreeMap<String, u64>,
}

impl MemoryStats {
    /// Page cache that could be dropped at once: what `docker stats` leaves out.
    #[must_use]
    pub fn inactive_file(&self) -> u64 {
        let find = |key| self.detail.get(key).copied();
        find("total_inactive_file")
            .or_else(|| find("inactive_file"))
            .unwrap_or(0)
    }
}

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(memory) = resources.memory() else {
        return Ok(());
    };
    if memory.use_hierarchy() == Some(true) {
        out.set("memory.use_hierarchy", 1, HIERARCHY)?;
    }
    if let Some(bytes) = memory.reservation() {
        out.set("memory.soft_limit_in_bytes", bytes, RESERVATION)?;
    }
    legacy_limit_and_swap(memory, out)?;
    if let Some(bytes) = memory.kernel() {
        out.set("memory.kmem.limit_in_bytes", bytes, KERNEL)?;
    }
    if let Some(bytes) = memory.kernel_tcp() {
        out.set("memory.kmem.tcp.limit_in_bytes", bytes, KERNEL_TCP)?;
    }
    if let Some(value) = memory.swappiness() {
        out.set("memory.swappiness", value, SWAPPINESS)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        out.set("memory.oom_control", 1, OOM_KILLER)?;
    }
    Ok(())
}

/// v1 counts memory and swap together and refuses a sum below the limit: when the limit rises above
/// the sum in force, the sum goes first.
fn legacy_limit_and_swap(memory: &LinuxMemory, out: &mut Limits<'_>) -> Result<(), PlanError> {
    const LIMIT_FILE: &str = "memory.limit_in_bytes";
    const SUM_FILE: &str = "memory.memsw.limit_in_bytes";
    // Swap accounting is a boot option; without it no swap is given that could be limited.
    let swap = memory.swap().or(swap_of_no_limit(memory));
    let swap = swap.filter(|_| out.is_known(SUM_FILE));
    let sum_in_force = out.current(SUM_FILE).and_then(|text| text.parse().ok());
    let rises = memory
        .limit()
        .zip(sum_in_force)
        .is_some_and(|(limit, sum): (i64, i64)| limit < 0 || limit > sum);
    if let Some(sum) = swap.filter(|_| rises) {
        out.set(SUM_FILE, sum, SWAP)?;
    }
    if let Some(limit) = memory.limit() {
        out.set(LIMIT_FILE, limit, LIMIT)?;
    }
    if let Some(sum) = swap.filter(|_| !rises) {
        out.set(SUM_FILE, sum, SWAP)?;
    }
    Ok(())
}

/// Memory without a limit takes the limit off the sum as well: nothing could be above it.
fn swap_of_no_limit(memory: &LinuxMemory) -> Option<i64> {
    memory.limit().filter(|limit| *limit == -1)
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(memory) = resources.memory() else {
        return Ok(());
    };
    for (asked, option) in [
        (memory.kernel().is_some(), KERNEL),
        (memory.kernel_tcp().is_some(), KERNEL_TCP),
        (memory.swappiness().is_some(), SWAPPINESS),
        (memory.disable_oom_killer() == Some(true), OOM_KILLER),
    ] {
        if asked {
            return Err(not_in("cgroup v2", option));
        }
    }
    if let Some(bytes) = memory.reservation() {
        out.set("memory.low", or_max(bytes), RESERVATION)?;
    }
    if let Some(alone) = swap_alone(memory)?
        && out.is_known("memory.swap.max")
    {
        out.set("memory.swap.max", or_max(alone), SWAP)?;
    }
    if let Some(limit) = memory.limit() {
        out.set("memory.max", or_max(limit), LIMIT)?;
    }
    Ok(())
}

/// The limit of swap. v1, and with it the specification, counts memory and swap together; v2 swap
/// alone.
pub(crate) fn swap_alone(memory: &LinuxMemory) -> Result<Option<i64>, PlanError> {
    let Some(swap) = memory.swap().or(swap_of_no_limit(memory)) else {
        return Ok(None);
    };
    match memory.limit() {
        _ if swap < 0 => Ok(Some(swap)),
        Some(limit) if limit >= 0 => Ok(Some((swap - limit).max(0))),
        Some(_) | None => Err(swap_without_limit()),
    }
}

fn swap_without_limit() -> PlanError {
    PlanError::Unavailable {
        option: SWAP.to_owned(),
        why: "it is the sum of memory and swap, and no memory limit is given".to_owned(),
    }
}

/// What the group uses; none without the controller.
pub(in crate::cgroup) fn stats(group: &Group) -> io::Result<Option<MemoryStats>> {
    match group.hierarchy() {
        Hierarchy::None => Ok(None),
        Hierarchy::Legacy { .. } => legacy_stats(group),
        Hierarchy::Unified { .. } => unified_stats(group),
    }
}

fn legacy_stats(group: &Group) -> io::Result<Option<MemoryStats>> {
    let Some(dir) = group.file("memory.stat") else {
        return Ok(None);
    };
    let file = |name: &str| dir.with_file_name(name);
    Ok(Some(MemoryStats {
        usage: read::number(&file("memory.usage_in_bytes"))?,
        peak: Some(read::number(&file("memory.max_usage_in_bytes"))?),
        limit: read::limit(&file("memory.limit_in_bytes"))?,
        swap_usage: read::number(&file("memory.memsw.usage_in_bytes"))?,
        swap_limit: read::limit(&file("memory.memsw.limit_in_bytes"))?,
        limit_hits: read::number(&file("memory.failcnt"))?,
        oom_kills: group.oom_kills(),
        detail: read::flat(&dir)?,
    }))
}

fn unified_stats(group: &Group) -> io::Result<Option<MemoryStats>> {
    let Some(dir) = group.file("memory.stat").filter(|file| file.exists()) else {
        return Ok(None);
    };
    let file = |name: &str| dir.with_file_name(name);
    Ok(Some(MemoryStats {
        usage: read::number(&file("memory.current"))?,
        // Linux 5.19.
        peak: read::limit(&file("memory.peak"))?,
        limit: read::limit(&file("memory.max"))?,
        swap_usage: read::number(&file("memory.swap.current"))?,
        swap_limit: read::limit(&file("memory.swap.max"))?,
        limit_hits: read::key(&file("memory.events"), "max"),
        oom_kills: group.oom_kills(),
        detail: read::flat(&dir)?,
    }))
}
