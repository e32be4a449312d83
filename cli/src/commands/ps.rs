//! `ketch ps`.

use clap::Args;
use engine::{Container, ContainerNetwork, Engine, ListOptions, status_word};
use state::{HealthStatus, Status};

use super::Invocation;
use super::image::size;
use crate::format::{Field, Format, Row};
use crate::render;
use crate::times::{age, local_of};

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
        let ids: Vec<String> = containers.iter().map(|one| id(one, args)).collect();
        render::print_lines(&ids)?;
        return Ok(0);
    }
    let with_size = args.size
        || args
            .format
            .as_ref()
            .is_some_and(|text| text.contains("Size"));
    let shown = if args.size { &SHOWN[..] } else { &SHOWN[..7] };
    let lines = Lines {
        engine: &engine,
        args,
        with_size,
        shows: &|field| format.shows(shown, field),
    };
    let rows = containers.iter().map(|container| lines.row(container));
    let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
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

/// What is shown of containers.
struct Lines<'a> {
    engine: &'a Engine,
    args: &'a PsArgs,
    with_size: bool,
    shows: &'a dyn Fn(&str) -> bool,
}

impl Lines<'_> {
    /// The fields of one container. Each record is read at most once, and only when something of it
    /// is shown.
    fn row(&self, container: &Container) -> anyhow::Result<Row> {
        let Self {
            engine,
            args,
            with_size,
            shows,
        } = *self;
        let config = &container.config;
        let network = (container.is_running() || shows("Networks"))
            .then(|| engine.container_network(container).ok())
            .flatten();
        let health = (container.is_running() || shows("HealthStatus"))
            .then(|| engine.health(container))
            .flatten()
            .map(|health| health.status);
        let mounts = match shows("Mounts") || shows("LocalVolumes") {
            true => engine.container_mounts(&config.id).unwrap_or_default(),
            false => Vec::new(),
        };
        let names: Vec<String> = mounts
            .iter()
            .map(|mount| match &mount.volume {
                Some(volume) => shortened(volume, args),
                None => shortened(&mount.source.to_string_lossy(), args),
            })
            .collect();
        let volumes = mounts.iter().filter(|mount| mount.volume.is_some()).count();
        let ports = ports(engine, container, network.as_ref());
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
        let created = match shows("CreatedAt") {
            true => local_of(&config.created),
            false => String::new(),
        };
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
            ("CreatedAt", created),
            ("RunningFor", format!("{} ago", age(&config.created))),
            ("Ports", ports),
            ("State", status_word(container.state.status)),
            ("Status", status(container, health)),
            (
                "HealthStatus",
                health.map_or("", HealthStatus::name).to_owned(),
            ),
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
}

/// Published ports, and exposed ones while the container runs.
fn ports(engine: &Engine, container: &Container, network: Option<&ContainerNetwork>) -> String {
    if !container.is_running() {
        return String::new();
    }
    let exposed = network.map_or(&[][..], |network| &network.exposed);
    super::port::column(&engine.network_state(container), exposed)
}

/// Docker's words for where a container is.
fn status(container: &Container, health: Option<HealthStatus>) -> String {
    let state = &container.state;
    let since = |at: &Option<String>| at.as_deref().map(age).unwrap_or_default();
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}{}", since(&state.started_at), health_text(health)),
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
fn health_text(health: Option<HealthStatus>) -> &'static str {
    match health {
        None => "",
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
    }
}
