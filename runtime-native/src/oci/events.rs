//! `events`: what a container uses, in the words of runc's command line, which callers parse.

use serde_json::{Value, json};

use super::{Container, OciError, Status};
use crate::cgroup::Stats;

/// What a container uses now.
///
/// # Errors
/// [`OciError::NotRunning`] for a stopped one; when a counter cannot be read.
pub fn stats(container: &Container) -> Result<String, OciError> {
    if container.status() == Status::Stopped {
        return Err(OciError::NotRunning(container.id().to_owned()));
    }
    let stats = container.group(&container.spec()?)?.stats()?;
    Ok(event("stats", container.id(), &data(&stats)))
}

/// How often the kernel has killed a process for want of memory.
///
/// # Errors
/// As [`stats`].
pub fn oom_kills(container: &Container) -> Result<u64, OciError> {
    Ok(container.group(&container.spec()?)?.oom_kills())
}

/// One event as a line of JSON. Callers compare its beginning, so the order of the fields is fixed;
/// an id needs no escaping.
fn event(kind: &str, id: &str, data: &Value) -> String {
    format!(r#"{{"type":"{kind}","id":"{id}","data":{data}}}"#)
}

/// That the kernel has killed a process for want of memory, as a line of JSON.
#[must_use]
pub fn oom_event(container: &Container) -> String {
    format!(r#"{{"type":"oom","id":"{}"}}"#, container.id())
}

/// What runc shows for "no limit".
fn limit(limit: Option<u64>) -> u64 {
    limit.unwrap_or(u64::MAX)
}

fn data(stats: &Stats) -> Value {
    let mut data = json!({"cpu": {}, "memory": {}, "pids": {}, "blkio": {}, "hugetlb": {}});
    if let Some(cpu) = &stats.cpu {
        data["cpu"] = json!({
            "usage": {
                "total": cpu.usage_ns, "percpu": cpu.per_cpu_ns, "kernel": cpu.system_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods, "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        });
    }
    if let Some(memory) = &stats.memory {
        data["memory"] = json!({
            "usage": {
                "limit": limit(memory.limit), "usage": memory.usage, "max": memory.peak,
                "failcnt": memory.limit_hits,
            },
            "swap": {"limit": limit(memory.swap_limit), "usage": memory.swap_usage},
            "cache": memory.detail.get("cache").or(memory.detail.get("file")),
            "raw": memory.detail,
        });
    }
    if let Some(pids) = &stats.pids {
        data["pids"] = json!({"current": pids.current, "limit": pids.limit.unwrap_or(0)});
    }
    if let Some(io) = &stats.io {
        let entries = |op: &str, value: fn(&crate::cgroup::IoDeviceStats) -> u64| -> Vec<Value> {
            let one = |device| {
                let device: &crate::cgroup::IoDeviceStats = device;
                json!({"major": device.major, "minor": device.minor, "op": op,
                    "value": value(device)})
            };
            io.devices.iter().map(one).collect()
        };
        let mut bytes = entries("Read", |device| device.read_bytes);
        bytes.extend(entries("Write", |device| device.write_bytes));
        let mut operations = entries("Read", |device| device.reads);
        operations.extend(entries("Write", |device| device.writes));
        data["blkio"] = json!({
            "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations,
        });
    }
    for (size, huge) in &stats.hugetlb {
        data["hugetlb"][size] =
            json!({"usage": huge.usage, "failcnt": huge.limit_hits, "max": huge.limit});
    }
    data
}
