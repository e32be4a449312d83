//! `ketch builder`: what builds keep from one to the next.

use std::time::{Duration, SystemTime};

use ::builder::{PruneCache, cache_entries, cache_mount_entries, prune_cache};
use clap::Args;

use super::image::size;
use super::{Invocation, group_help, parse_named};
use crate::render::{self, Usage};

const COMMANDS: [(&str, &str); 3] = [
    ("prune", "Remove what builds keep"),
    ("du", "List what builds keep"),
    ("inspect", "Show what can be built here"),
];

/// Options of `builder prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// Also what is known of contexts
    #[arg(short, long)]
    all: bool,
    /// Do not ask (nothing is asked)
    #[arg(short, long)]
    force: bool,
    /// Only what was not of use for a time: until=24h (can be repeated)
    #[arg(long)]
    filter: Vec<String>,
    /// Until so much is left: a number with k, m or g
    #[arg(long, alias = "max-used-space", value_name = "BYTES")]
    keep_storage: Option<String>,
}

/// Options of `builder du`.
#[derive(Debug, Args)]
struct DuArgs {
    /// Show everything of each
    #[arg(long)]
    verbose: bool,
    /// One JSON object a line: json
    #[arg(long)]
    format: Option<String>,
}

/// Options of `builder inspect`.
#[derive(Debug, Args)]
struct InspectArgs {}

/// Runs the command that the words name.
pub(crate) fn builder(context: &Invocation, rest: &[&str]) -> anyhow::Result<u8> {
    let Some((verb, rest)) = rest.split_first() else {
        return group_help("builder", &COMMANDS);
    };
    let about = COMMANDS
        .iter()
        .find(|(name, _)| name == verb)
        .map(|(_, about)| *about);
    let Some(about) = about else {
        if matches!(*verb, "--help" | "-h" | "help") {
            return group_help("builder", &COMMANDS);
        }
        return Err(Usage(format!(
            "`builder {verb}` is not a command (see `ketch builder --help`)"
        ))
        .into());
    };
    let name = format!("builder {verb}");
    match *verb {
        "prune" => prune(context, &parse_named(&name, about, rest)?),
        "du" => du(context, &parse_named(&name, about, rest)?),
        _ => {
            let _none: InspectArgs = parse_named(&name, about, rest)?;
            inspect(context)
        }
    }
}

fn prune(context: &Invocation, args: &PruneArgs) -> anyhow::Result<u8> {
    let mut options = PruneCache {
        all: args.all,
        ..PruneCache::default()
    };
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("until" | "unused-for", text)) => {
                let wrong = || {
                    Usage(format!(
                        "cannot use --filter `{filter}`: it is until=DURATION, such as 24h"
                    ))
                };
                options.unused_for = Some(duration(text).ok_or_else(wrong)?);
            }
            _ => {
                return Err(Usage(format!(
                    "cannot use --filter `{filter}`: there is until=DURATION"
                ))
                .into());
            }
        }
    }
    if let Some(text) = &args.keep_storage {
        let bytes = super::build::memory(Some(text))?;
        options.keep_bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    }
    let engine = context.engine()?;
    let pruned = prune_cache(&engine, &options)?;
    for entry in &pruned.records {
        render::print(&format!(
            "{}  {}",
            entry.key.short(),
            render::clean(&entry.record.description)
        ))?;
    }
    for mount in &pruned.mounts {
        render::print(&format!("mount  {}", render::clean(&mount.id)))?;
    }
    render::print(&format!("Total reclaimed space: {}", size(pruned.freed)))?;
    Ok(0)
}

fn du(context: &Invocation, args: &DuArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let entries = cache_entries(&engine)?;
    let mounts = cache_mount_entries(&engine)?;
    match args.format.as_deref() {
        None => {}
        Some("json") => {
            for entry in &entries {
                render::print(
                    &serde_json::json!({
                        "id": entry.key.to_string(), "type": "regular", "layer": entry.record.layer.to_string(),
                        "kind": entry.record.kind, "description": entry.record.description, "size": entry.disk_bytes,
                        "tookMilliseconds": entry.record.took_ms,
                    })
                    .to_string(),
                )?;
            }
            for mount in &mounts {
                render::print(&serde_json::json!({ "id": mount.id, "type": "exec.cachemount", "size": mount.disk_bytes }).to_string())?;
            }
            return Ok(0);
        }
        Some(other) => {
            return Err(Usage(format!("cannot use --format `{other}`: there is json")).into());
        }
    }
    let now = SystemTime::now();
    let age = |used: SystemTime| now.duration_since(used).map_or(0, |age| age.as_secs());
    let mut rows = Vec::new();
    for entry in &entries {
        let description = match args.verbose {
            true => entry.record.description.clone(),
            false => entry.record.description.chars().take(50).collect(),
        };
        rows.push(vec![
            entry.key.short(),
            entry.record.kind.clone(),
            size(entry.disk_bytes),
            format!("{}s", age(entry.used)),
            render::clean(&description),
        ]);
    }
    for mount in &mounts {
        let used = format!("{}s", age(mount.used));
        rows.push(vec![
            "-".to_owned(),
            "mount".to_owned(),
            size(mount.disk_bytes),
            used,
            render::clean(&mount.id),
        ]);
    }
    render::table(&["ID", "TYPE", "SIZE", "LAST USED", "DESCRIPTION"], &rows)?;
    // Several records can name one layer.
    let layers: std::collections::BTreeMap<_, _> = entries
        .iter()
        .map(|entry| (entry.record.layer, entry.disk_bytes))
        .collect();
    let total =
        layers.values().sum::<u64>() + mounts.iter().map(|mount| mount.disk_bytes).sum::<u64>();
    render::print(&format!("Total: {}", size(total)))?;
    Ok(0)
}

fn inspect(context: &Invocation) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    render::print("Name: ketch (built in)")?;
    render::print("Frontend: docker/dockerfile:1")?;
    let host = image::Platform::host();
    let mut platforms = vec![host.to_string(), "wasi/wasm".to_owned()];
    for (name, platform) in [
        ("aarch64", "linux/arm64"),
        ("arm", "linux/arm"),
        ("riscv64", "linux/riscv64"),
        ("x86_64", "linux/amd64"),
        ("ppc64le", "linux/ppc64le"),
        ("s390x", "linux/s390x"),
    ] {
        let file = format!("/proc/sys/fs/binfmt_misc/qemu-{name}");
        if std::path::Path::new(&file).exists() && platform != host.to_string() {
            platforms.push(platform.to_owned());
        }
    }
    render::print(&format!("Platforms: {}", platforms.join(", ")))?;
    render::print(&format!("Cache: {}", engine.layout().build().display()))?;
    render::print(&format!("Records: {}", cache_entries(&engine)?.len()))?;
    Ok(0)
}

/// `90s`, `15m`, `24h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(
        number.parse::<u64>().ok()?.checked_mul(factor)?,
    ))
}
