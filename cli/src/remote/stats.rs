//! `stats` at a daemon.

use clap::Args;
use serde_json::Value;

use super::client::{Ask, Client, encoded, with_query};
use super::lists::short;
use crate::commands::size;
use crate::format::{Field, Format, Row};
use crate::render::Usage;

/// Options of `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Print with a template such as {{.CPUPerc}}, or json
    #[arg(long)]
    format: Option<String>,
    /// Show one sample, which is all that is shown of a daemon's containers
    #[arg(long)]
    no_stream: bool,
    /// Containers, by name or id (default: all that run)
    containers: Vec<String>,
}

const STATS: [Field; 8] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// `stats`.
pub(crate) async fn stats(client: &Client, args: &StatsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    if !args.no_stream {
        return Err(
            Usage("`stats` of a daemon shows one sample: add --no-stream".to_owned()).into(),
        );
    }
    let mut names = args.containers.clone();
    if names.is_empty() {
        let list = client.value(Ask::get("/containers/json")).await?;
        let list = list.as_array().into_iter().flatten();
        names.extend(list.filter_map(|value| Some(value["Id"].as_str()?.to_owned())));
    }
    let mut rows = Vec::new();
    for name in &names {
        let path = with_query(
            &format!("/containers/{}/stats", encoded(name)),
            &[("stream", "0")],
        );
        rows.push(sample(&client.value(Ask::get(path)).await?));
    }
    let shown: Vec<&str> = STATS.iter().map(|(field, _)| *field).collect();
    format.print(&STATS, &shown, &rows)?;
    Ok(0)
}

/// Hundredths of a per cent as a text.
fn percent(part: u128, whole: u128) -> String {
    let hundredths = (part * 10_000).checked_div(whole).unwrap_or(0);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

fn sample(value: &Value) -> Row {
    let number = |path: &str| value.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let between = |path: &str| {
        let before = number(&format!("/precpu_stats{path}"));
        u128::from(number(&format!("/cpu_stats{path}")).saturating_sub(before))
    };
    let own =
        between("/cpu_usage/total_usage") * u128::from(number("/cpu_stats/online_cpus").max(1));
    let cpu = percent(own, between("/system_cpu_usage"));
    let cache = number("/memory_stats/stats/inactive_file")
        .max(number("/memory_stats/stats/total_inactive_file"));
    let memory = number("/memory_stats/usage").saturating_sub(cache);
    let limit = number("/memory_stats/limit");
    let links = value["networks"].as_object();
    let links: Vec<&Value> = links.into_iter().flat_map(|all| all.values()).collect();
    let total = |key: &str| size(links.iter().filter_map(|link| link[key].as_u64()).sum());
    let blocks = value.pointer("/blkio_stats/io_service_bytes_recursive");
    let blocks: Vec<&Value> = blocks
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let moved = |operation: &str| {
        let own = blocks.iter().filter(|entry| {
            entry["op"]
                .as_str()
                .is_some_and(|own| own.eq_ignore_ascii_case(operation))
        });
        size(own.filter_map(|entry| entry["value"].as_u64()).sum())
    };
    Row::new([
        ("ID", short(value["id"].as_str().unwrap_or_default(), false)),
        (
            "Name",
            value["name"]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches('/')
                .to_owned(),
        ),
        ("CPUPerc", cpu),
        ("MemUsage", format!("{} / {}", size(memory), size(limit))),
        ("MemPerc", percent(memory.into(), limit.into())),
        (
            "NetIO",
            format!("{} / {}", total("rx_bytes"), total("tx_bytes")),
        ),
        ("BlockIO", format!("{} / {}", moved("read"), moved("write"))),
        ("PIDs", number("/pids_stats/current").to_string()),
    ])
}
