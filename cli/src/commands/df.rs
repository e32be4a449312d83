//! `ketch system df`.

use std::collections::BTreeSet;

use clap::Args;
use engine::{Container, Engine};
use serde_json::json;

use super::Invocation;
use super::image::size;
use crate::format::{Field, Format, Row};
use crate::render::{self, Usage};
use crate::times::age;

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// Options of `system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Print with a template such as {{.Type}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show every image, container and volume
    #[arg(short, long)]
    verbose: bool,
}

/// Shows how much disk everything takes.
pub(crate) fn df(context: &Invocation, args: &DfArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    if args.verbose {
        return match args.format.as_deref() {
            None => verbose(&engine),
            Some("json") => verbose_json(&engine),
            Some(_) => Err(Usage("--verbose is shown as columns or as json".to_owned()).into()),
        };
    }
    let usage = engine.store().usage()?;
    let rows = [
        images(&engine, &usage)?,
        containers(&engine)?,
        volumes(&engine)?,
        row("Unfinished", 0, 0, usage.unfinished, usage.unfinished),
    ];
    let shown = FIELDS.map(|(field, _)| field);
    format.print(&FIELDS, &shown, &rows)?;
    Ok(0)
}

/// How many there are, how many are in use, their bytes, and those that can be given free.
fn row(kind: &str, total: usize, active: usize, bytes: u64, free: u64) -> Row {
    let percent = if bytes == 0 {
        0
    } else {
        u128::from(free) * 100 / u128::from(bytes)
    };
    Row::new([
        ("Type", kind.to_owned()),
        ("TotalCount", total.to_string()),
        ("Active", active.to_string()),
        ("Size", size(bytes)),
        ("Reclaimable", format!("{} ({percent}%)", size(free))),
    ])
}

fn images(engine: &Engine, usage: &image::Usage) -> anyhow::Result<Row> {
    let users = engine.image_users()?;
    let (active, unused): (Vec<_>, Vec<_>) = usage
        .images
        .iter()
        .partition(|image| users(&image.id).is_some());
    let free = unused.iter().map(|image| image.unique()).sum::<u64>() + usage.unreferenced;
    Ok(row(
        "Images",
        usage.images.len(),
        active.len(),
        usage.total,
        free,
    ))
}

fn containers(engine: &Engine) -> anyhow::Result<Row> {
    let containers = engine.containers()?;
    let (mut active, mut bytes, mut free) = (0, 0, 0);
    for container in &containers {
        let own = engine.size(container)?.own;
        bytes += own;
        if container.is_running() {
            active += 1;
        } else {
            free += own;
        }
    }
    Ok(row("Containers", containers.len(), active, bytes, free))
}

/// The volumes that any container has, running or not.
fn used_volumes(engine: &Engine, containers: &[Container]) -> BTreeSet<String> {
    let mounts = containers
        .iter()
        .filter_map(|container| engine.container_mounts(&container.config.id).ok());
    mounts.flatten().filter_map(|mount| mount.volume).collect()
}

fn volumes(engine: &Engine) -> anyhow::Result<Row> {
    let used = used_volumes(engine, &engine.containers()?);
    let volumes = engine.volumes()?;
    let (mut active, mut bytes, mut free) = (0, 0, 0);
    for volume in &volumes {
        let own = engine.volume_size(&volume.name)?;
        bytes += own;
        if used.contains(&volume.name) {
            active += 1;
        } else {
            free += own;
        }
    }
    Ok(row("Local Volumes", volumes.len(), active, bytes, free))
}

/// The images in bytes: what their files really take.
fn verbose_json(engine: &Engine) -> anyhow::Result<u8> {
    let usage = engine.store().usage()?;
    let users = engine.image_users()?;
    let record = |image: &image::ImageUsage| {
        let names = image.names.iter().map(image::Reference::familiar);
        json!({
            "ID": image.id.to_string(),
            "Names": names.collect::<Vec<_>>(),
            "CreatedAt": image.created,
            "Size": image.size,
            "SharedSize": image.shared,
            "UniqueSize": image.unique(),
            "Container": users(&image.id),
        })
    };
    let shown = json!({
        "Images": usage.images.iter().map(record).collect::<Vec<_>>(),
        "Total": usage.total,
        "Unreferenced": usage.unreferenced,
        "Unfinished": usage.unfinished,
    });
    render::print(&shown.to_string())?;
    Ok(0)
}

fn verbose(engine: &Engine) -> anyhow::Result<u8> {
    let usage = engine.store().usage()?;
    let users = engine.image_users()?;
    let mut rows = Vec::new();
    for image in &usage.images {
        let name = image.names.first();
        rows.push(vec![
            name.map_or("<none>".to_owned(), image::Reference::familiar_name),
            name.and_then(|name| name.tag())
                .unwrap_or("<none>")
                .to_owned(),
            image.id.short(),
            image.created.as_deref().map(age).unwrap_or_default(),
            size(image.size),
            size(image.shared),
            size(image.unique()),
            users(&image.id).unwrap_or_default(),
        ]);
    }
    render::print("Images space usage:\n")?;
    render::table(
        &[
            "REPOSITORY",
            "TAG",
            "IMAGE ID",
            "CREATED",
            "SIZE",
            "SHARED SIZE",
            "UNIQUE SIZE",
            "CONTAINER",
        ],
        &rows,
    )?;
    let containers = engine.containers()?;
    let mut rows = Vec::new();
    for container in &containers {
        let config = &container.config;
        rows.push(vec![
            config.id.get(..12).unwrap_or(&config.id).to_owned(),
            render::clean(&config.image),
            size(engine.size(container)?.own),
            engine::status_word(container.state.status),
            config.name.clone(),
        ]);
    }
    render::print("\nContainers space usage:\n")?;
    render::table(&["CONTAINER ID", "IMAGE", "SIZE", "STATE", "NAMES"], &rows)?;
    let used = used_volumes(engine, &containers);
    let mut rows = Vec::new();
    for volume in engine.volumes()? {
        let bytes = engine.volume_size(&volume.name)?;
        let in_use = if used.contains(&volume.name) {
            "yes"
        } else {
            "no"
        };
        rows.push(vec![volume.name, in_use.to_owned(), size(bytes)]);
    }
    render::print("\nLocal Volumes space usage:\n")?;
    render::table(&["VOLUME NAME", "IN USE", "SIZE"], &rows)?;
    Ok(0)
}
