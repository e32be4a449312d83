//! `ps` and `events`: what a container does.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use runtime_native::oci::{self, Container, OciError};

use super::args::{EventsArgs, PsArgs};
use super::global::Global;
use crate::render::{self, Usage};

/// How often the kernel's count of kills is looked at between two reports.
const LOOK: Duration = Duration::from_millis(100);

/// Lists the processes of a container.
pub(super) fn ps(global: &Global, args: &PsArgs) -> anyhow::Result<u8> {
    let container = global.root.open(&args.id)?;
    let pids = oci::processes(&container)?;
    match args.format.as_str() {
        "json" => render::print(&serde_json::to_string(&pids)?)?,
        "table" => table(&pids, &args.args)?,
        other => return Err(Usage(format!("invalid format option: `{other}`")).into()),
    }
    Ok(0)
}

/// The lines of ps(1) about these processes.
fn table(pids: &[i32], args: &[String]) -> anyhow::Result<()> {
    let default = ["-ef".to_owned()];
    let args = if args.is_empty() { &default[..] } else { args };
    let output = Command::new("ps")
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run `ps`")?;
    if !output.status.success() {
        anyhow::bail!("cannot list processes: `ps` ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.context("cannot find the column `PID` in the output of `ps`")?;
    render::print(header)?;
    for line in lines {
        let field = line.split_whitespace().nth(column);
        let pid = field.and_then(|field| field.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            render::print(line)?;
        }
    }
    Ok(())
}

/// Reports what a container uses, at once or until it ends.
pub(super) fn events(global: &Global, args: &EventsArgs) -> anyhow::Result<u8> {
    let container = global.root.open(&args.id)?;
    if args.stats {
        render::print(&oci::stats(&container)?)?;
        return Ok(0);
    }
    let interval = duration(&args.interval)?;
    let mut kills = oci::oom_kills(&container)?;
    let mut next = Instant::now() + interval;
    while container.pid().is_some() {
        kills = report_kills(&container, kills)?;
        if Instant::now() >= next {
            match oci::stats(&container) {
                Ok(stats) => render::print(&stats)?,
                Err(OciError::NotRunning(_)) => break,
                Err(error) => return Err(error.into()),
            }
            next = Instant::now() + interval;
        }
        std::thread::sleep(LOOK.min(interval));
    }
    Ok(0)
}

fn report_kills(container: &Container, before: u64) -> anyhow::Result<u64> {
    let now = oci::oom_kills(container)?;
    if now > before {
        render::print(&oci::oom_event(container))?;
    }
    Ok(now.max(before))
}

/// `500ms`, `5s`, `1m`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let parsed = [("ms", 1), ("s", 1000), ("m", 60_000)]
        .iter()
        .find_map(|(unit, factor)| {
            let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
            number.checked_mul(*factor).map(Duration::from_millis)
        });
    let positive = parsed.filter(|duration| !duration.is_zero());
    positive.ok_or_else(|| Usage(format!("`{text}` is not a duration greater than zero")).into())
}
