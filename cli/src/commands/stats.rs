//! `ketch stats`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use clap::Args;
use engine::{Container, Engine, EngineError, ListOptions, Sample};

use super::Invocation;
use super::image::size;
use crate::format::{Field, Format, Row};
use crate::render;

/// How long the processor time of one line is counted.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its beginning (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What stands for a number that nobody counts.
const UNKNOWN: &str = "--";

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 10] = [
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("WasmMemory", "WASM MEM"),
];

/// What is shown without a template; the last one where there are wasm containers.
const SHOWN: [&str; 9] = [
    "ID",
    "Name",
    "CPUPerc",
    "MemUsage",
    "MemPerc",
    "NetIO",
    "BlockIO",
    "PIDs",
    "WasmMemory",
];

/// Options of `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Print with a template such as {{.CPUPerc}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Print once and end
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Containers, by name or id (default: all that run)
    containers: Vec<String>,
}

/// Shows what containers use, once a second.
pub(crate) fn stats(context: &Invocation, args: &StatsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    let live = !args.no_stream && io::stdout().is_terminal();
    let mut before = samples(&engine, &wanted(&engine, args)?)?;
    loop {
        thread::sleep(INTERVAL);
        let containers = wanted(&engine, args)?;
        let now = samples(&engine, &containers)?;
        let rows: Vec<Row> = containers
            .iter()
            .map(|container| {
                let id = &container.config.id;
                row(container, now.get(id), before.get(id), args)
            })
            .collect();
        let is_wasm = |container: &Container| container.config.runtime == "wasm";
        let shown = match containers.iter().any(is_wasm) {
            true => &SHOWN[..],
            false => &SHOWN[..8],
        };
        let lines = format.lines(&FIELDS, shown, &rows)?;
        let clear = if live { CLEAR } else { "" };
        if !lines.is_empty() {
            render::print(&format!("{clear}{}", lines.join("\n")))?;
        }
        if args.no_stream || (containers.is_empty() && !live) {
            return Ok(0);
        }
        before = now;
    }
}

/// The containers that are meant, as they are now.
fn wanted(engine: &Engine, args: &StatsArgs) -> Result<Vec<Container>, EngineError> {
    if args.containers.is_empty() {
        return engine.list(&ListOptions {
            all: args.all,
            ..ListOptions::default()
        });
    }
    let named = args.containers.iter();
    named.map(|name| engine.container(name)).collect()
}

fn samples(
    engine: &Engine,
    containers: &[Container],
) -> Result<BTreeMap<String, Sample>, EngineError> {
    let mut samples = BTreeMap::new();
    for container in containers {
        match engine.sample(container) {
            Ok(sample) => drop(samples.insert(container.config.id.clone(), sample)),
            // Nothing is counted of what does not run.
            Err(EngineError::NotRunning(_)) => {}
            // It ends in this moment.
            Err(error) => match engine.container(&container.config.id) {
                Ok(still) if still.is_running() => return Err(error),
                _ => {}
            },
        }
    }
    Ok(samples)
}

fn row(
    container: &Container,
    now: Option<&Sample>,
    before: Option<&Sample>,
    args: &StatsArgs,
) -> Row {
    let config = &container.config;
    let id = match config.id.get(..12).filter(|_| !args.no_trunc) {
        Some(short) => short,
        None => &config.id,
    };
    let pair = |pair: Option<(u64, u64)>| match pair {
        Some((one, other)) => format!("{} / {}", size(one), size(other)),
        None => format!("{UNKNOWN} / {UNKNOWN}"),
    };
    let percent = match (now, before) {
        (Some(now), Some(before)) => format!("{:.2}%", now.cpu_percent_since(before)),
        (Some(_), None) => "0.00%".to_owned(),
        (None, _) => UNKNOWN.to_owned(),
    };
    let usage = now.map(|sample| &sample.usage);
    let unknown = || UNKNOWN.to_owned();
    Row::new([
        ("Container", id.to_owned()),
        ("ID", id.to_owned()),
        ("Name", config.name.clone()),
        ("CPUPerc", percent),
        (
            "MemUsage",
            usage.map_or_else(
                || pair(None),
                |usage| format!("{} / {}", binary(usage.memory), binary(usage.memory_limit)),
            ),
        ),
        (
            "MemPerc",
            usage.map_or_else(unknown, |usage| share(usage.memory, usage.memory_limit)),
        ),
        ("NetIO", pair(usage.and_then(|usage| usage.network))),
        ("BlockIO", pair(usage.and_then(|usage| usage.block))),
        (
            "PIDs",
            usage.map_or_else(unknown, |usage| usage.pids.to_string()),
        ),
        (
            "WasmMemory",
            usage
                .and_then(|usage| usage.linear_memory)
                .map_or_else(unknown, binary),
        ),
    ])
}

/// Hundredths of a percent, without a float.
fn share(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

/// A size in powers of 1024, with four digits as Docker shows it.
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while bytes / scale >= 1024 && unit + 1 < UNITS.len() {
        scale *= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    let thousandths = u128::from(bytes) * 1000 / u128::from(scale);
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    let text = match whole {
        0..10 => format!("{whole}.{rest:03}"),
        10..100 => format!("{whole}.{:02}", rest / 10),
        100..1000 => format!("{whole}.{}", rest / 100),
        _ => return format!("{whole}{name}"),
    };
    format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_sizes_have_four_digits() {
        let table = [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (50 << 20, "50MiB"),
            (1_288_490_188, "1.199GiB"),
            (123_456_789, "117.7MiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(binary(bytes), text);
        }
        assert_eq!(share(1, 3), "33.33%");
        assert_eq!(share(5, 0), "500.00%");
    }
}
