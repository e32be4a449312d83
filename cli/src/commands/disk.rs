//! `ketch image prune`, `ketch system df`, and the emptying of the trash.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use clap::Args;
use image::{Digest, PruneOptions, Removed};
use serde_json::{Value, json};

use super::Invocation;
use super::image::size;
use super::ps::age;
use super::times;
use crate::render::{self, Usage};
use crate::settings;

/// What this program calls itself by to delete what removals left.
pub(crate) const EMPTY_TRASH: &str = "internal-empty-trash";

/// Options of `image prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what fits: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE] (can be repeated)
    #[arg(long)]
    filter: Vec<String>,
}

/// Options of `system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Show every image
    #[arg(short, long)]
    verbose: bool,
    /// How it is printed: table or json
    #[arg(long, default_value = "table")]
    format: DfFormat,
}

/// How disk usage is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DfFormat {
    /// Columns
    Table,
    /// Objects, with sizes in bytes
    Json,
}

/// Removes images that nobody needs.
pub(crate) fn prune(context: &Invocation, args: &PruneArgs) -> anyhow::Result<u8> {
    let options = prune_options(args)?;
    let engine = context.engine()?;
    if !args.force && !confirmed(args.all)? {
        return Ok(1);
    }
    let pruned = engine.prune_images(&options)?;
    if !pruned.removed.is_empty() {
        render::print("Deleted Images:")?;
    }
    for one in &pruned.removed {
        render::print(&match one {
            Removed::Untagged(name) => format!("untagged: {}", name.familiar()),
            Removed::Deleted(id) => format!("deleted: {id}"),
        })?;
    }
    render::print(&format!("Total reclaimed space: {}", size(pruned.freed)))?;
    empty_trash_later(context);
    Ok(0)
}

fn confirmed(all: bool) -> anyhow::Result<bool> {
    let what = if all {
        "all images without a container"
    } else {
        "all images without a name"
    };
    render::line(&format!(
        "This will remove {what} and what they alone need."
    ));
    if !io::stdin().is_terminal() {
        return Err(Usage("there is no terminal to ask on: add --force".to_owned()).into());
    }
    let mut stderr = io::stderr();
    write!(stderr, "Are you sure? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn prune_options(args: &PruneArgs) -> anyhow::Result<PruneOptions> {
    let mut options = PruneOptions {
        all: args.all,
        ..PruneOptions::default()
    };
    let label = |text: &str| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    };
    for filter in &args.filter {
        if let Some(value) = filter.strip_prefix("until=") {
            options.until = Some(times::point(value)?);
        } else if let Some(value) = filter.strip_prefix("label!=") {
            options.not_labels.push(label(value));
        } else if let Some(value) = filter.strip_prefix("label=") {
            options.labels.push(label(value));
        } else if let Some(value) = filter.strip_prefix("dangling=") {
            options.all |= matches!(value, "false" | "0");
        } else {
            return Err(Usage(format!("`{filter}` is not a filter of images")).into());
        }
    }
    Ok(options)
}

/// Shows how much disk images take.
pub(crate) fn df(context: &Invocation, args: &DfArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let usage = engine.store().usage()?;
    let users = engine.image_users()?;
    let active = usage
        .images
        .iter()
        .filter(|image| users(&image.id).is_some());
    let active_ids: Vec<_> = active.map(|image| image.id).collect();
    if args.format == DfFormat::Json && args.verbose {
        let images: Vec<_> = usage
            .images
            .iter()
            .map(|image| df_json(image, &users))
            .collect();
        let shown = json!({
            "Images": images,
            "Total": usage.total,
            "Unreferenced": usage.unreferenced,
            "Unfinished": usage.unfinished,
        });
        render::print(&shown.to_string())?;
        return Ok(0);
    }
    if args.verbose {
        return df_verbose(&usage, &users);
    }
    let unused = usage
        .images
        .iter()
        .filter(|image| !active_ids.contains(&image.id));
    let reclaimable: u64 = unused.map(image::ImageUsage::unique).sum::<u64>() + usage.unreferenced;
    if args.format == DfFormat::Json {
        let count = usage.images.len();
        let line = |kind: &str, total: usize, active: usize, size: u64, reclaimable: u64| {
            let line = json!({
                "Type": kind, "TotalCount": total, "Active": active,
                "Size": size, "Reclaimable": reclaimable,
            });
            render::print(&line.to_string())
        };
        line("Images", count, active_ids.len(), usage.total, reclaimable)?;
        line("Unfinished", 0, 0, usage.unfinished, usage.unfinished)?;
        return Ok(0);
    }
    render::table(
        &["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"],
        &[
            vec![
                "Images".to_owned(),
                usage.images.len().to_string(),
                active_ids.len().to_string(),
                size(usage.total),
                size(reclaimable),
            ],
            vec![
                "Unfinished".to_owned(),
                String::new(),
                String::new(),
                size(usage.unfinished),
                size(usage.unfinished),
            ],
        ],
    )?;
    Ok(0)
}

fn df_json(image: &image::ImageUsage, users: &dyn Fn(&Digest) -> Option<String>) -> Value {
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
}

fn df_verbose(
    usage: &image::Usage,
    users: &dyn Fn(&Digest) -> Option<String>,
) -> anyhow::Result<u8> {
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
    Ok(0)
}

/// Deletes what removals left, in a process that nobody waits for: thousands of files take longer
/// than a removal.
pub(crate) fn empty_trash_later(context: &Invocation) {
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut command = Command::new(program);
    let settings = &context.settings;
    command
        .args(["--root", settings.get(&settings::ROOT)])
        .args(["--run", settings.get(&settings::RUN)])
        .arg(EMPTY_TRASH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal for the caller's terminal is none for it.
        .process_group(0);
    // When it cannot start, the next one deletes that as well.
    drop(command.spawn());
}

/// What [`empty_trash_later`] starts.
pub(crate) fn empty_trash(context: &Invocation) -> anyhow::Result<u8> {
    context.engine()?.store().empty_trash()?;
    Ok(0)
}
