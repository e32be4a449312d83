//! `ketch ps`.

use clap::Args;
use engine::{Container, Engine};
use state::{HealthStatus, Status};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Invocation;
use crate::render;

/// Options of `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
}

/// Lists containers.
pub(crate) fn ps(context: &Invocation, args: &PsArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let containers = engine.containers()?;
    let shown = containers
        .iter()
        .filter(|container| args.all || container.is_running());
    let short = |text: &str, length: usize| -> String {
        if args.no_trunc || text.chars().count() <= length {
            return text.to_owned();
        }
        text.chars().take(length - 1).chain(['…']).collect()
    };
    let id = |container: &Container| {
        let id = &container.config.id;
        if args.no_trunc {
            id.clone()
        } else {
            id.get(..12).unwrap_or(id).to_owned()
        }
    };
    if args.quiet {
        for container in shown {
            render::print(&id(container))?;
        }
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = shown
        .map(|container| {
            let config = &container.config;
            vec![
                id(container),
                render::clean(&config.image),
                format!(
                    "\"{}\"",
                    short(&render::clean(&config.command.join(" ")), 20)
                ),
                format!("{} ago", age(&config.created)),
                status(&engine, container),
                ports(&engine, container),
                config.name.clone(),
            ]
        })
        .collect();
    let header = [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ];
    render::table(&header, &rows)?;
    Ok(0)
}

/// Published ports, and exposed ones while the container runs.
fn ports(engine: &Engine, container: &Container) -> String {
    if !container.is_running() {
        return String::new();
    }
    let exposed = engine
        .container_network(container)
        .map(|network| network.exposed);
    super::port::column(
        &engine.network_state(container),
        &exposed.unwrap_or_default(),
    )
}

/// Docker's words for where a container is.
fn status(engine: &Engine, container: &Container) -> String {
    let state = &container.state;
    let since = |at: &Option<String>| at.as_deref().map(age).unwrap_or_default();
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!(
            "Up {}{}",
            since(&state.started_at),
            health(engine, container)
        ),
        Status::Paused => format!("Up {} (Paused)", since(&state.started_at)),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code.unwrap_or(0),
            since(&state.finished_at)
        ),
        Status::Exited => {
            format!(
                "Exited ({}) {} ago",
                state.exit_code.unwrap_or(0),
                since(&state.finished_at)
            )
        }
    }
}

/// What the probes say, in Docker's words.
fn health(engine: &Engine, container: &Container) -> &'static str {
    match engine.health(container).map(|health| health.status) {
        None => "",
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
    }
}

/// How long ago, in one unit, as Docker words it.
pub(crate) fn age(rfc3339: &str) -> String {
    let Ok(at) = OffsetDateTime::parse(rfc3339, &Rfc3339) else {
        return "?".to_owned();
    };
    let seconds = (OffsetDateTime::now_utc() - at).whole_seconds().max(0);
    let (count, unit) = match seconds {
        0 => return "Less than a second".to_owned(),
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        86_400..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    if count == 1 {
        format!("1 {unit}")
    } else {
        format!("{count} {unit}s")
    }
}
