//! `update`: options and a resources file to one `resources` object.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use runtime_native::oci;
use serde_json::{Value, json};

use super::args::UpdateArgs;
use super::global::Global;
use crate::render::Usage;

/// No resources file is longer.
const MAX_RESOURCES: u64 = 1 << 20;

/// Changes a container's limits.
pub(super) fn update(global: &Global, args: &UpdateArgs) -> anyhow::Result<u8> {
    let container = global.root.open(&args.id)?;
    let resources = match &args.resources {
        Some(path) => read(path)?,
        None => from_options(args)?,
    };
    let resources = serde_json::from_value(resources).context("cannot use the resources")?;
    oci::update(&container, &resources)?;
    Ok(0)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    let failed = || format!("cannot read `{}`", path.display());
    if path == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin
            .take(MAX_RESOURCES)
            .read_to_string(&mut text)
            .with_context(failed)?;
    } else {
        let file = std::fs::File::open(path).with_context(failed)?;
        file.take(MAX_RESOURCES)
            .read_to_string(&mut text)
            .with_context(failed)?;
    }
    serde_json::from_str(&text).with_context(|| format!("cannot use `{}`", path.display()))
}

fn from_options(args: &UpdateArgs) -> anyhow::Result<Value> {
    let mut memory = json!({});
    for (key, value, option) in [
        ("limit", &args.memory, "--memory"),
        (
            "reservation",
            &args.memory_reservation,
            "--memory-reservation",
        ),
        ("swap", &args.memory_swap, "--memory-swap"),
    ] {
        if let Some(text) = value {
            memory[key] = json!(bytes(text, option)?);
        }
    }
    let cpu = present(json!({
        "period": args.cpu_period,
        "quota": args.cpu_quota,
        "realtimePeriod": args.cpu_rt_period,
        "realtimeRuntime": args.cpu_rt_runtime,
        "burst": args.cpu_burst,
        "shares": args.cpu_share,
        "idle": args.cpu_idle,
        "cpus": args.cpuset_cpus,
        "mems": args.cpuset_mems,
    }));
    let mut resources = json!({"memory": memory, "cpu": cpu});
    if let Some(limit) = args.pids_limit {
        resources["pids"] = json!({"limit": limit});
    }
    if let Some(weight) = args.blkio_weight {
        resources["blockIO"] = json!({"weight": weight});
    }
    Ok(resources)
}

/// The fields that were given.
fn present(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

/// `64m`, `1g`, bytes, or -1.
fn bytes(text: &str, option: &str) -> anyhow::Result<i64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match lower.char_indices().next_back() {
        Some((at, 'k')) => (&lower[..at], 1 << 10),
        Some((at, 'm')) => (&lower[..at], 1 << 20),
        Some((at, 'g')) => (&lower[..at], 1 << 30),
        Some((at, 't')) => (&lower[..at], 1_i64 << 40),
        _ => (lower, 1),
    };
    let number = digits.parse::<i64>().ok().and_then(|n| n.checked_mul(unit));
    number.ok_or_else(|| Usage(format!("`{option}` takes a size, not `{text}`")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        assert_eq!(bytes("64m", "--memory").unwrap(), 64 << 20);
        assert_eq!(bytes("1GB", "--memory").unwrap(), 1 << 30);
        assert_eq!(bytes("-1", "--memory").unwrap(), -1);
        assert!(bytes("many", "--memory").is_err());
    }
}
