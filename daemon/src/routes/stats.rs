//! `GET /containers/{id}/stats`: one object a second.

use std::io::Write;
use std::time::Duration;

use engine::{Container, Engine, Sample};
use serde_json::{Value, json};
use state::clock;

use crate::body::{self, BodyWriter};
use crate::call::{Call, Reply, streamed};
use crate::wire::times::NEVER;

/// From one sample to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// The stream, or one sample.
pub(crate) async fn stats(call: Call, id: &str) -> Reply {
    let name = id.to_owned();
    let (stream, one_shot) = (
        call.query.is_set_or_absent("stream"),
        call.query.is_set("one-shot"),
    );
    let found = call.daemon.run(move |engine| Ok(engine.container(&name)?));
    let container = found.await?;
    let (sender, reply) = body::channel();
    call.daemon.follow(move |engine| {
        let mut writer = BodyWriter::new(sender);
        let written = match stream {
            true => write_all(engine, &container, &mut writer),
            false => write_one(engine, &container, one_shot, &mut writer),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "statistics have ended");
        }
    })?;
    streamed("application/json", reply)
}

/// A sample and when it was taken.
struct Taken {
    at: String,
    sample: Option<Sample>,
    system: u64,
}

impl Taken {
    /// What a container uses now; one that does not run uses nothing.
    fn now(engine: &Engine, container: &Container) -> Self {
        let sample = engine.container(&container.config.id);
        Self {
            at: clock::now(),
            sample: sample.and_then(|container| engine.sample(&container)).ok(),
            system: system_ns(),
        }
    }
}

fn write_one(
    engine: &Engine,
    container: &Container,
    one_shot: bool,
    to: &mut BodyWriter,
) -> std::io::Result<()> {
    let mut before = None;
    if !one_shot {
        before = Some(Taken::now(engine, container));
        std::thread::sleep(INTERVAL);
    }
    let now = Taken::now(engine, container);
    writeln!(to, "{}", record(container, before.as_ref(), &now))?;
    to.flush()
}

fn write_all(engine: &Engine, container: &Container, to: &mut BodyWriter) -> std::io::Result<()> {
    let mut before: Option<Taken> = None;
    // A container that is gone ends it.
    while engine.container(&container.config.id).is_ok() && !to.is_closed() {
        let now = Taken::now(engine, container);
        writeln!(to, "{}", record(container, before.as_ref(), &now))?;
        to.flush()?;
        before = Some(now);
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Nanoseconds that all processors together have had (proc(5), `/proc/stat`).
fn system_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: u64 = line
        .split_whitespace()
        .skip(1)
        // Time of guests is counted in that of users already.
        .take(8)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(tick_ns)
}

fn cpu(taken: Option<&Taken>) -> Value {
    let none = json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    });
    let Some((taken, sample)) = taken.and_then(|t| Some((t, t.sample.as_ref()?))) else {
        return none;
    };
    let mut value = none;
    value["cpu_usage"]["total_usage"] = json!(sample.usage.cpu_ns);
    value["cpu_usage"]["usage_in_usermode"] = json!(sample.usage.cpu_ns);
    value["system_cpu_usage"] = json!(taken.system);
    value["online_cpus"] = json!(std::thread::available_parallelism().map_or(1, usize::from));
    value
}

fn record(container: &Container, before: Option<&Taken>, now: &Taken) -> Value {
    let mut value = json!({
        "id": container.config.id,
        "name": format!("/{}", container.config.name),
        "read": now.at,
        "preread": before.map_or(NEVER, |before| before.at.as_str()),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "memory_stats": {},
        "blkio_stats": {
            "io_service_bytes_recursive": null, "io_serviced_recursive": null,
            "io_queue_recursive": null, "io_service_time_recursive": null,
            "io_wait_time_recursive": null, "io_merged_recursive": null,
            "io_time_recursive": null, "sectors_recursive": null,
        },
        "cpu_stats": cpu(Some(now)),
        "precpu_stats": cpu(before),
    });
    let Some(sample) = &now.sample else {
        return value;
    };
    let usage = &sample.usage;
    value["pids_stats"] = json!({ "current": usage.pids });
    value["memory_stats"] = json!({
        "usage": usage.memory, "limit": usage.memory_limit, "stats": {},
    });
    if let Some((received, sent)) = usage.network {
        value["networks"] = json!({ "eth0": {
            "rx_bytes": received, "rx_packets": 0, "rx_errors": 0, "rx_dropped": 0,
            "tx_bytes": sent, "tx_packets": 0, "tx_errors": 0, "tx_dropped": 0,
        } });
    }
    if let Some((read, written)) = usage.block {
        value["blkio_stats"]["io_service_bytes_recursive"] = json!([
            { "major": 0, "minor": 0, "op": "read", "value": read },
            { "major": 0, "minor": 0, "op": "write", "value": written },
        ]);
    }
    value
}
