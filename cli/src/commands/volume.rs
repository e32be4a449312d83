//! `ketch volume`.

use std::collections::BTreeMap;

use clap::Args;
use engine::{CreateVolume, Engine, EngineError, Filters, VolumeConfig};

use super::{Invocation, parse_named};
use crate::format::{Field, Format, Row};
use crate::render::{self, Usage};

const COMMANDS: [(&str, &str); 5] = [
    ("create", "Create a volume"),
    ("ls", "List volumes"),
    ("inspect", "Show everything about volumes"),
    ("rm", "Remove volumes"),
    ("prune", "Remove volumes that no container has"),
];

/// Runs the subcommand that the arguments name.
pub(crate) fn volume(context: &Invocation, args: &[&str]) -> anyhow::Result<u8> {
    let Some((command, rest)) = args.split_first() else {
        return super::group_help("volume", &COMMANDS);
    };
    let about = |name| {
        COMMANDS
            .iter()
            .find(|(own, _)| *own == name)
            .map_or("", |c| c.1)
    };
    let name = format!("volume {command}");
    match *command {
        "create" => create(context, &parse_named(&name, about("create"), rest)?),
        "ls" | "list" => ls(context, &parse_named(&name, about("ls"), rest)?),
        "inspect" => inspect(context, &parse_named(&name, about("inspect"), rest)?),
        "rm" | "remove" => rm(context, &parse_named(&name, about("rm"), rest)?),
        "prune" => prune(context, &parse_named(&name, about("prune"), rest)?),
        "--help" | "-h" | "help" => super::group_help("volume", &COMMANDS),
        other => {
            let text = format!("`volume {other}` is not a command (see `ketch volume --help`)");
            Err(Usage(text).into())
        }
    }
}

/// Options of `volume create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// Driver: local
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Label: KEY=VALUE (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Driver option: type=, device= or o= (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Name (default: made up)
    name: Option<String>,
}

/// `KEY=VALUE` texts; a key alone has an empty value.
pub(crate) fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    texts.iter().map(pair).collect()
}

/// Refuses drivers that are not there.
pub(crate) fn check_driver(driver: &str) -> anyhow::Result<()> {
    if driver == engine::LOCAL {
        return Ok(());
    }
    Err(Usage(format!(
        "cannot use the volume driver `{driver}`: only local is known"
    ))
    .into())
}

fn create(context: &Invocation, args: &CreateArgs) -> anyhow::Result<u8> {
    check_driver(&args.driver)?;
    let volume = context.engine()?.create_volume(&CreateVolume {
        name: args.name.clone(),
        labels: pairs(&args.label),
        options: pairs(&args.opt),
    })?;
    render::print(&volume.name)?;
    Ok(0)
}

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 6] = [
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Anonymous", "ANONYMOUS"),
];

/// Options of `volume ls`.
#[derive(Debug, Args)]
struct LsArgs {
    /// Show only what matches: dangling=, driver=, label=, name= (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Name}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show names only
    #[arg(short, long)]
    quiet: bool,
}

fn has_label(volume: &VolumeConfig, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => volume.labels.get(key).is_some_and(|own| own == value),
        None => volume.labels.contains_key(wanted),
    }
}

fn ls(context: &Invocation, args: &LsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let keys = ["dangling", "driver", "label", "name"];
    let filters = Filters::parse("volumes", &args.filter, &keys)?;
    let dangling = filters.flag("volumes", "dangling")?;
    let engine = context.engine()?;
    let mut rows = Vec::new();
    for volume in engine.volumes()? {
        let unused = || {
            engine
                .volume_users(&volume.name)
                .map(|users| users.is_empty())
        };
        let wanted = filters.any("driver", |driver| driver == engine::LOCAL)
            && filters.any("name", |name| volume.name.contains(name))
            && filters.labels(&volume.labels);
        if !wanted || (dangling.is_some() && dangling != Some(unused()?)) {
            continue;
        }
        if args.quiet && matches!(format, Format::Columns) {
            render::print(&volume.name)?;
            continue;
        }
        let place = engine.volume_data(&volume.name);
        let row = Row::new([
            ("Driver", engine::LOCAL.to_owned()),
            ("Name", volume.name.clone()),
            ("Scope", "local".to_owned()),
            ("Mountpoint", place.to_string_lossy().into_owned()),
            ("Anonymous", volume.anonymous.to_string()),
        ]);
        rows.push(row.with_labels(&volume.labels));
    }
    if !(args.quiet && matches!(format, Format::Columns)) {
        format.print(&FIELDS, &["Driver", "Name"], &rows)?;
    }
    Ok(0)
}

/// Volumes by name.
#[derive(Debug, Args)]
struct Names {
    /// Volumes
    #[arg(required = true)]
    volumes: Vec<String>,
}

/// Options of `volume inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// Print with a template such as {{.Mountpoint}}, or json
    #[arg(short, long)]
    format: Option<String>,
    #[command(flatten)]
    names: Names,
}

fn inspect(context: &Invocation, args: &InspectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let find = |name: &str| Ok(record(&engine, &engine.volume(name)?));
    super::inspect::show(&args.names.volumes, args.format.as_deref(), &find)
}

/// A volume as Docker shows it.
pub(crate) fn record(engine: &Engine, volume: &VolumeConfig) -> serde_json::Value {
    serde_json::json!({
        "CreatedAt": volume.created,
        "Driver": engine::LOCAL,
        "Labels": volume.labels,
        "Mountpoint": engine.volume_data(&volume.name),
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "local",
    })
}

/// Options of `volume rm`.
#[derive(Debug, Args)]
struct RmArgs {
    /// One that is absent is no error
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    names: Names,
}

fn rm(context: &Invocation, args: &RmArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut code = 0;
    for name in &args.names.volumes {
        match engine.remove_volume(name) {
            Ok(()) => render::print(name)?,
            Err(EngineError::NoSuchVolume(_)) if args.force => {}
            Err(error) => {
                render::report(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Options of `volume prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// Named volumes too
    #[arg(short, long)]
    all: bool,
    /// Ask nothing: nothing is ever asked
    #[arg(short, long)]
    force: bool,
    /// Remove only what matches: label=, label!= (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

fn prune(context: &Invocation, args: &PruneArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut removed = Vec::new();
    'volumes: for volume in engine.volumes()? {
        for filter in &args.filter {
            let wanted = match filter.split_once('=') {
                Some(("label", value)) => has_label(&volume, value),
                Some(("label!", value)) => !has_label(&volume, value),
                _ => {
                    let text = format!("cannot use --filter `{filter}`: it is label= or label!=");
                    return Err(Usage(text).into());
                }
            };
            if !wanted {
                continue 'volumes;
            }
        }
        if !(args.all || volume.anonymous) {
            continue;
        }
        match engine.remove_volume(&volume.name) {
            Ok(()) => removed.push(volume.name),
            Err(EngineError::VolumeInUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !removed.is_empty() {
        render::print(&format!("Deleted Volumes:\n{}\n", removed.join("\n")))?;
    }
    Ok(0)
}
