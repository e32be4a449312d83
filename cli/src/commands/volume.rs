//! `ketch volume`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use engine::{CreateVolume, Engine, EngineError, Filters, ForeignVolume, VolumeConfig};

use super::{Invocation, parse_named};
use crate::format::{Field, Format, Row};
use crate::render::{self, Usage};

const COMMANDS: [(&str, &str); 7] = [
    ("create", "Create a volume"),
    ("ls", "List volumes"),
    ("inspect", "Show everything about volumes"),
    ("rm", "Remove volumes"),
    ("prune", "Remove volumes that no container has"),
    ("export", "Write a volume's files as a tar archive"),
    ("import", "Unpack an archive into a volume"),
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
        "export" => export(context, &parse_named(&name, about("export"), rest)?),
        "import" => import(context, &parse_named(&name, about("import"), rest)?),
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
    /// Driver: local, or a plugin
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Label: KEY=VALUE (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Driver option: of the local driver type=, device= or o= (can be repeated)
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

fn create(context: &Invocation, args: &CreateArgs) -> anyhow::Result<u8> {
    let volume = context.engine()?.create_volume(&CreateVolume {
        name: args.name.clone(),
        labels: pairs(&args.label),
        options: pairs(&args.opt),
        driver: Some(args.driver.clone()),
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
    let volumes = engine.volumes()?;
    let (foreign, errors) = engine.foreign_volumes(&volumes);
    let mut code = 0;
    for error in errors {
        // The other volumes are shown all the same.
        render::report(&error.into());
        code = 1;
    }
    let mut rows = Vec::new();
    for volume in volumes {
        let unused = || {
            engine
                .volume_users(&volume.name)
                .map(|users| users.is_empty())
        };
        let wanted = filters.any("driver", |driver| driver == volume.driver)
            && filters.any("name", |name| volume.name.contains(name))
            && filters.labels(&volume.labels);
        if !wanted || (dangling.is_some() && dangling != Some(unused()?)) {
            continue;
        }
        let place = engine.volume_data(&volume.name);
        let row = Row::new([
            ("Driver", volume.driver.clone()),
            ("Name", volume.name.clone()),
            ("Scope", "local".to_owned()),
            ("Mountpoint", place.to_string_lossy().into_owned()),
            ("Anonymous", volume.anonymous.to_string()),
        ]);
        rows.push((volume.name, row.with_labels(&volume.labels)));
    }
    // What only a record here can tell is not known of a driver's own volumes.
    let is_wanted = |volume: &ForeignVolume| {
        dangling.is_none()
            && filters.any("driver", |driver| driver == volume.driver)
            && filters.any("name", |name| volume.name.contains(name))
            && filters.labels(&BTreeMap::new())
    };
    for volume in foreign.into_iter().filter(is_wanted) {
        let name = render::clean(&volume.name);
        let row = Row::new([
            ("Driver", render::clean(&volume.driver)),
            ("Name", name.clone()),
            ("Scope", "local".to_owned()),
        ]);
        rows.push((name, row));
    }
    if args.quiet && matches!(format, Format::Columns) {
        for (name, _) in &rows {
            render::print(name)?;
        }
        return Ok(code);
    }
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    format.print(&FIELDS, &["Driver", "Name"], &rows)?;
    Ok(code)
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
    let find = |name: &str| Ok(record(&engine, &engine.volume(name)?)?);
    super::inspect::show(&args.names.volumes, args.format.as_deref(), &find)
}

/// A volume in Docker's shape; its driver is asked for what it alone knows.
pub(crate) fn record(
    engine: &Engine,
    volume: &VolumeConfig,
) -> Result<serde_json::Value, EngineError> {
    let mut record = serde_json::json!({
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": engine.volume_data(&volume.name),
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "local",
    });
    if volume.driver != engine::LOCAL {
        let (own, scope) = engine.driver_volume(volume)?;
        record["Mountpoint"] = own.mountpoint.into();
        record["Scope"] = scope.into();
        if let Some(status) = own.status {
            record["Status"] = status;
        }
    }
    Ok(record)
}

/// Options of `volume rm`.
#[derive(Debug, Args)]
struct RmArgs {
    /// One that is absent is no error, and one whose driver is gone is forgotten
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
            // A dead driver keeps what it has; here it is forgotten.
            Err(EngineError::Driver(_)) if args.force => {
                engine.forget_volume(name)?;
                render::print(name)?;
            }
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
    /// Remove only what matches: label=, label!=, all= (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

fn prune(context: &Invocation, args: &PruneArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut removed = Vec::new();
    let mut all = args.all;
    'volumes: for volume in engine.volumes()? {
        for filter in &args.filter {
            let wanted = match filter.split_once('=') {
                Some(("all", value)) => {
                    all |= matches!(value, "1" | "true");
                    true
                }
                Some(("label", value)) => has_label(&volume, value),
                Some(("label!", value)) => !has_label(&volume, value),
                _ => {
                    let text =
                        format!("cannot use --filter `{filter}`: it is label=, label!= or all=");
                    return Err(Usage(text).into());
                }
            };
            if !wanted {
                continue 'volumes;
            }
        }
        if !(all || volume.anonymous) {
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

/// Options of `volume export`.
#[derive(Debug, Args)]
struct ExportArgs {
    /// Write to a file (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Volume
    volume: String,
}

fn export(context: &Invocation, args: &ExportArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let Some(path) = &args.output else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            let text = "cannot write an archive to a terminal: use --output, or redirect it";
            return Err(Usage(text.to_owned()).into());
        }
        engine.export_volume(&args.volume, BufWriter::new(stdout.lock()))?;
        return Ok(0);
    };
    // Asked first, so that a wrong name leaves no empty file.
    engine.volume(&args.volume)?;
    let file = File::create(path).with_context(|| format!("cannot make `{}`", path.display()))?;
    engine.export_volume(&args.volume, BufWriter::new(file))?;
    Ok(0)
}

/// Options of `volume import`.
#[derive(Debug, Args)]
struct ImportArgs {
    /// Volume
    volume: String,
    /// Archive, plain or compressed; - is standard input
    archive: PathBuf,
}

fn import(context: &Invocation, args: &ImportArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let lost = if args.archive.as_os_str() == "-" {
        engine.import_volume(&args.volume, std::io::stdin().lock())?
    } else {
        let path = &args.archive;
        let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
        engine.import_volume(&args.volume, file)?
    };
    for what in lost {
        let what = render::clean(&what);
        render::line(&format!("ketch: warning: cannot keep {what}"));
    }
    Ok(0)
}
