//! `ketch ps`.

use clap::Args;
use engine::{Container, Engine, ListOptions, status_word};
use state::{HealthStatus, Status};

use super::Invocation;
use super::image::size;
use crate::format::{Field, Format, Row};
use crate::render;
use crate::times::{age, local};

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 17] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("HealthStatus", "HEALTH STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Runtime", "RUNTIME"),
];

/// What is shown without a template.
const SHOWN: [&str; 8] = [
    "ID",
    "Image",
    "Command",
    "RunningFor",
    "Status",
    "Ports",
    "Names",
    "Size",
];

/// How long a command and a list of mounts may be.
const SHORT: usize = 20;

/// Options of `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Show only what matches: id, name, label, status, exited, ancestor, before, since, volume, network, publish, expose, health (KEY=VALUE, can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Names}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show so many, the newest, running or not
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
    /// Show the newest, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show how much each has written
    #[arg(short, long)]
    size: bool,
}

/// Lists containers.
pub(crate) fn ps(context: &Invocation, args: &PsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let options = ListOptions {
        all: args.all,
        last: if args.latest { Some(1) } else { args.last },
        ..ListOptions::default()
    };
    let options = options.filtered(&args.filter)?;
    let engine = context.engine()?;
    let containers = engine.list(&options)?;
    if args.quiet && matches!(format, Format::Columns) {
        for container in &containers {
            render::print(&id(container, args))?;
        }
        return Ok(0);
    }
    let with_size = args.size
        || args
            .format
            .as_ref()
            .is_some_and(|text| text.contains("Size"));
    let rows = containers
        .iter()
        .map(|container| row(&engine, container, args, with_size))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let shown = if args.size { &SHOWN[..] } else { &SHOWN[..7] };
    format.print(&FIELDS, shown, &rows)?;
    Ok(0)
}

fn id(container: &Container, args: &PsArgs) -> String {
    let id = &container.config.id;
    match id.get(..12).filter(|_| !args.no_trunc) {
        Some(short) => short.to_owned(),
        None => id.clone(),
    }
}

/// The beginning of a text that is too long for a column.
fn shortened(text: &str, args: &PsArgs) -> String {
    if args.no_trunc || text.chars().count() <= SHORT {
        return text.to_owned();
    }
    text.chars().take(SHORT - 1).chain(['…']).collect()
}

fn row(
    engine: &Engine,
    container: &Container,
    args: &PsArgs,
    with_size: bool,
) -> anyhow::Result<Row> {
    let config = &container.config;
    let network = engine.container_network(container).ok();
    let mounts = engine.container_mounts(&config.id).unwrap_or_default();
    let names: Vec<String> = mounts
        .iter()
        .map(|mount| match &mount.volume {
            Some(volume) => shortened(volume, args),
            None => shortened(&mount.source.to_string_lossy(), args),
        })
        .collect();
    let volumes = mounts.iter().filter(|mount| mount.volume.is_some()).count();
    let networks = network.map_or_else(Vec::new, |network| {
        let names: Vec<String> = network.endpoints.iter().map(|e| e.name.clone()).collect();
        if names.is_empty() {
            vec![network.mode_text()]
        } else {
            names
        }
    });
    let size = match with_size {
        true => {
            let bytes = engine.size(container)?;
            format!("{} (virtual {})", size(bytes.own), size(bytes.all))
        }
        false => String::new(),
    };
    let created = time::OffsetDateTime::parse(
        &config.created,
        &time::format_description::well_known::Rfc3339,
    );
    Ok(Row::new([
        ("ID", id(container, args)),
        ("Image", config.image.clone()),
        (
            "Command",
            format!(
                "\"{}\"",
                shortened(&render::clean(&config.command.join(" ")), args)
            ),
        ),
        ("CreatedAt", created.map(local).unwrap_or_default()),
        ("RunningFor", format!("{} ago", age(&config.created))),
        ("Ports", ports(engine, container)),
        ("State", status_word(container.state.status)),
        ("Status", status(engine, container)),
        ("HealthStatus", health(engine, container)),
        ("Size", size),
        ("Names", config.name.clone()),
        ("LocalVolumes", volumes.to_string()),
        ("Mounts", names.join(",")),
        ("Networks", networks.join(",")),
        ("Platform", String::new()),
        ("Runtime", config.runtime.clone()),
    ])
    .with_labels(&config.labels))
}

fn health(engine: &Engine, container: &Container) -> String {
    match engine.health_word(container) {
        "none" => String::new(),
        word => word.to_owned(),
    }
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
            health_text(engine, container)
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
fn health_text(engine: &Engine, container: &Container) -> &'static str {
    match engine.health(container).map(|health| health.status) {
        None => "",
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
    }
}
