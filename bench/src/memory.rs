//! Memory of processes, by proportional set size: pages that several share count in parts, so that sums are true.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::call::Interrupted;
use crate::watch::Waiting;

/// Between two looks at a process that may still be starting.
const PAUSE: Duration = Duration::from_millis(20);
/// After so many looks it is taken as it is.
const LOOKS: u32 = 100;
/// Memory that has changed by less than one part of so many does no longer grow.
const PARTS: u64 = 500;

/// The memory of processes in bytes, when it no longer grows.
pub(crate) fn settled_pss(pids: &[u32], until: Waiting) -> anyhow::Result<u64> {
    let mut last = 0;
    for _ in 0..LOOKS {
        let now = pss(pids)?;
        if now.abs_diff(last) <= last / PARTS {
            return Ok(now);
        }
        if until.is_over() {
            return Err(Interrupted.into());
        }
        last = now;
        std::thread::sleep(PAUSE);
    }
    Ok(last)
}

/// The memory of processes in bytes, as it is now.
pub(crate) fn pss(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter().map(|pid| pss_of(*pid)).sum()
}

/// The line `Pss:` of `smaps_rollup` (proc(5)).
fn pss_of(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
    let bytes = field(&text, "Pss:");
    bytes.with_context(|| format!("`{path}` has no `Pss:`"))
}

/// What the machine has for further programs without swapping, and all that it has, in bytes (`/proc/meminfo` of proc(5)).
pub(crate) fn of_machine() -> anyhow::Result<[u64; 2]> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
    let [available, total] = ["MemAvailable:", "MemTotal:"]
        .map(|name| field(&text, name).with_context(|| format!("`{path}` has no `{name}`")));
    Ok([available?, total?])
}

/// A line in KiB, as bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> anyhow::Result<u32> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
    let parent = text.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.and_then(|text| text.trim().parse().ok());
    parent.with_context(|| format!("`{path}` has no `PPid:`"))
}
