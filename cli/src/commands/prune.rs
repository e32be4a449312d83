//! `ketch container prune` and `ketch system prune`.

use clap::Args;
use engine::{Engine, EngineError, Filters, Force};
use image::PruneOptions;
use state::Status;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Invocation;
use super::disk::{confirmed, empty_trash_later, remove_images};
use super::image::size;
use crate::render;
use crate::times::point;

/// What can be pruned by.
const KEYS: [&str; 3] = ["until", "label", "label!"];

/// Options of `container prune`.
#[derive(Debug, Args)]
pub(crate) struct ContainerPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what fits: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE] (can be repeated)
    #[arg(long)]
    filter: Vec<String>,
}

/// Options of `system prune`.
#[derive(Debug, Args)]
pub(crate) struct SystemPruneArgs {
    /// Remove all images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove volumes that nobody named and no container has, too
    #[arg(long)]
    volumes: bool,
    /// Only what fits: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE] (can be repeated)
    #[arg(long)]
    filter: Vec<String>,
}

/// What fits the filters.
struct Wanted {
    filters: Filters,
    until: Option<OffsetDateTime>,
}

impl Wanted {
    fn parse(texts: &[String]) -> anyhow::Result<Self> {
        let filters = Filters::parse("what is pruned", texts, &KEYS)?;
        let last = filters.values("until").last();
        Ok(Self {
            until: last.map(|text| point(text)).transpose()?,
            filters,
        })
    }

    fn is_old(&self, created: &str) -> bool {
        self.until.is_none_or(|until| {
            OffsetDateTime::parse(created, &Rfc3339).is_ok_and(|created| created < until)
        })
    }

    fn images(&self, all: bool) -> PruneOptions {
        let pairs = |key: &str| {
            let pair = |text: &String| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text.clone(), None),
            };
            self.filters.values(key).iter().map(pair).collect()
        };
        PruneOptions {
            all,
            until: self.until,
            labels: pairs("label"),
            not_labels: pairs("label!"),
        }
    }
}

/// Removes containers that do not run.
pub(crate) fn container(context: &Invocation, args: &ContainerPruneArgs) -> anyhow::Result<u8> {
    let wanted = Wanted::parse(&args.filter)?;
    let warning = "This will remove all containers that do not run.";
    if !args.force && !confirmed(warning)? {
        return Ok(1);
    }
    let freed = remove_containers(&context.engine()?, &wanted)?;
    render::print(&format!("Total reclaimed space: {}", size(freed)))?;
    Ok(0)
}

/// Removes containers, names them, and gives the bytes that they had.
fn remove_containers(engine: &Engine, wanted: &Wanted) -> anyhow::Result<u64> {
    let mut freed = 0;
    let mut removed = Vec::new();
    for container in engine.containers()? {
        let config = &container.config;
        let stopped = matches!(container.state.status, Status::Created | Status::Exited);
        if !stopped || !wanted.is_old(&config.created) || !wanted.filters.labels(&config.labels) {
            continue;
        }
        let own = engine.size(&container)?.own;
        match engine.remove(&container, Force::No) {
            Ok(()) => {
                freed += own;
                removed.push(config.id.clone());
            }
            // It was started, or somebody else was faster.
            Err(EngineError::Running { .. } | EngineError::NoSuchContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !removed.is_empty() {
        render::print(&format!("Deleted Containers:\n{}\n", removed.join("\n")))?;
    }
    Ok(freed)
}

/// Removes networks that no container is on.
fn remove_networks(engine: &Engine, wanted: &Wanted) -> anyhow::Result<()> {
    let used = engine.networks_in_use()?;
    let mut removed = Vec::new();
    for config in engine.networks().list()? {
        let fits = wanted.is_old(&config.created) && wanted.filters.labels(&config.labels);
        if super::network::is_built_in(&config) || used.contains(&config.id) || !fits {
            continue;
        }
        engine.networks().remove(&config)?;
        removed.push(config.name);
    }
    if !removed.is_empty() {
        render::print(&format!("Deleted Networks:\n{}\n", removed.join("\n")))?;
    }
    Ok(())
}

/// Removes volumes that nobody named and no container has.
fn remove_volumes(engine: &Engine, wanted: &Wanted) -> anyhow::Result<u64> {
    let mut freed = 0;
    let mut removed = Vec::new();
    for volume in engine.volumes()? {
        let fits = wanted.is_old(&volume.created) && wanted.filters.labels(&volume.labels);
        if !volume.anonymous || !fits {
            continue;
        }
        let own = engine.volume_size(&volume.name)?;
        match engine.remove_volume(&volume.name) {
            Ok(()) => {
                freed += own;
                removed.push(volume.name);
            }
            Err(EngineError::VolumeInUse { .. } | EngineError::NoSuchVolume(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !removed.is_empty() {
        render::print(&format!("Deleted Volumes:\n{}\n", removed.join("\n")))?;
    }
    Ok(freed)
}

/// Removes everything that nothing uses.
pub(crate) fn system(context: &Invocation, args: &SystemPruneArgs) -> anyhow::Result<u8> {
    let wanted = Wanted::parse(&args.filter)?;
    if args.volumes && wanted.until.is_some() {
        let text = "cannot use --volumes with --filter until=: volumes have no such filter";
        return Err(render::Usage(text.to_owned()).into());
    }
    let images = if args.all {
        "all images without a container"
    } else {
        "all images without a name"
    };
    let volumes = if args.volumes {
        ", all volumes without a name and a container"
    } else {
        ""
    };
    let warning = format!(
        "This will remove all containers that do not run, all networks without a container{volumes} and {images}."
    );
    if !args.force && !confirmed(&warning)? {
        return Ok(1);
    }
    let engine = context.engine()?;
    let mut freed = remove_containers(&engine, &wanted)?;
    remove_networks(&engine, &wanted)?;
    if args.volumes {
        freed += remove_volumes(&engine, &wanted)?;
    }
    freed += remove_images(&engine, &wanted.images(args.all))?;
    render::print(&format!("Total reclaimed space: {}", size(freed)))?;
    empty_trash_later(context);
    Ok(0)
}
