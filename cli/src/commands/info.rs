//! `ketch info` and `ketch version`.

use std::fs;

use clap::Args;
use runtime_native::plan::{Hierarchy, detect};
use serde_json::{Map, Value, json};
use state::Status;

use super::Invocation;
use crate::render;
use crate::template::Template;

/// Options of `info` and `version`.
#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// Print with a template, or json
    #[arg(short, long)]
    format: Option<String>,
}

/// Shows every effective setting with its source, and what this host can do.
pub(crate) fn info(context: &Invocation, args: &FormatArgs) -> anyhow::Result<u8> {
    if let Some(format) = &args.format {
        return formatted(format, || record(context));
    }
    render::print("Settings:")?;
    for (key, value) in context.settings.all() {
        let text = if value.text.is_empty() {
            "-"
        } else {
            &value.text
        };
        render::print(&format!("  {key:<22}{text:<28}({})", value.place))?;
    }
    let groups = match detect() {
        Hierarchy::None => "none that this user may use".to_owned(),
        Hierarchy::Unified { .. } => "v2".to_owned(),
        Hierarchy::Legacy {
            controllers,
            unified,
        } => {
            let kind = if unified { "v1, hybrid" } else { "v1" };
            format!("{kind} ({})", controllers.join(" "))
        }
    };
    render::print(&format!("Control groups: {groups}"))?;
    render::print(&format!("Networks: {}", networks()))?;
    if rustix::process::geteuid().is_root() {
        let (layout, _) = context.places()?;
        render::print(&format!("Layers: {}", context.layer_form(&layout)?))?;
    }
    let system = rustix::system::uname();
    render::print(&format!("Kernel: {}", system.release().to_string_lossy()))?;
    render::print(&format!(
        "Architecture: {}",
        system.machine().to_string_lossy()
    ))?;
    Ok(0)
}

/// Which networks this user's containers can have, the default one first.
fn networks() -> String {
    if !rustix::process::geteuid().is_root() {
        return match network::Helper::choose() {
            Ok(helper) => format!(
                "{} (chosen of pasta, slirp4netns), none, host",
                helper.name()
            ),
            Err(why) => format!("none, host (no other: {why}; the default is none)"),
        };
    }
    match network::bridge_obstacle() {
        None => "bridge, none, host".to_owned(),
        Some(why) => format!("none, host (no bridge networks: {why}; the default is none)"),
    }
}

/// Prints a record as JSON or with a template. A template that is wrong is refused before the record
/// is made.
pub(crate) fn formatted(
    format: &str,
    record: impl FnOnce() -> anyhow::Result<Value>,
) -> anyhow::Result<u8> {
    if format.trim() == "json" {
        render::print(&record()?.to_string())?;
        return Ok(0);
    }
    let template = Template::parse(format)?;
    render::print(&template.render(&record()?)?)?;
    Ok(0)
}

/// What Docker's clients read of `info`, as far as there is something to say.
fn record(context: &Invocation) -> anyhow::Result<Value> {
    let engine = context.engine()?;
    let containers = engine.containers()?;
    let count = |status: &str| {
        let one = containers.iter();
        let one = one.filter(|c| engine::status_word(c.state.status) == status);
        one.count()
    };
    let stopped = containers
        .iter()
        .filter(|c| matches!(c.state.status, Status::Created | Status::Exited))
        .count();
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let (version, warnings) = match detect() {
        Hierarchy::None => (
            "",
            vec!["no control groups: no limits and no statistics of them"],
        ),
        Hierarchy::Unified { .. } => ("2", Vec::new()),
        Hierarchy::Legacy { .. } => ("1", Vec::new()),
    };
    let mut security = vec!["name=seccomp,profile=builtin"];
    if !rustix::process::geteuid().is_root() {
        security.push("name=rootless");
    }
    let settings: Map<String, Value> = context
        .settings
        .all()
        .map(|(key, value)| {
            let record = json!({ "Value": value.text, "Source": value.place });
            (key.to_owned(), record)
        })
        .collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(json!({
        "Name": text(system.nodename()),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Containers": containers.len(),
        "ContainersRunning": count("running"),
        "ContainersPaused": count("paused"),
        "ContainersStopped": stopped,
        "Images": engine.store().list()?.len(),
        "Driver": "overlay",
        "DockerRootDir": engine.layout().root(),
        "CgroupDriver": if version.is_empty() { "none" } else { "cgroupfs" },
        "CgroupVersion": version,
        "KernelVersion": text(system.release()),
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": text(system.machine()),
        "NCPU": processors,
        "MemTotal": memory_total(),
        "Runtimes": { "native": {}, "wasm": {} },
        "DefaultRuntime": "native",
        "SecurityOptions": security,
        "Settings": settings,
        "Warnings": warnings,
    }))
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Shows the version.
pub(crate) fn version(args: &FormatArgs) -> anyhow::Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    if let Some(format) = &args.format {
        let system = rustix::system::uname();
        let side = json!({
            "Version": version,
            "Os": "linux",
            "Arch": image::Platform::host().architecture(),
            "KernelVersion": system.release().to_string_lossy(),
        });
        // Both sides are this program.
        return formatted(format, || Ok(json!({ "Client": side, "Server": side })));
    }
    render::print(&format!("ketch {version}"))?;
    Ok(0)
}
