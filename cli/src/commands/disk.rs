//! `ketch image prune`, and the emptying of the trash.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use clap::Args;
use engine::Engine;
use image::{PruneOptions, Removed};

use super::Invocation;
use super::image::size;
use crate::render::{self, Usage};
use crate::settings;
use crate::times::point;

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

/// Removes images that nobody needs.
pub(crate) fn prune(context: &Invocation, args: &PruneArgs) -> anyhow::Result<u8> {
    let options = prune_options(args)?;
    let engine = context.engine()?;
    let what = if args.all {
        "all images without a container"
    } else {
        "all images without a name"
    };
    let warning = format!("This will remove {what} and what they alone need.");
    if !args.force && !confirmed(&warning)? {
        return Ok(1);
    }
    let freed = remove_images(&engine, &options)?;
    render::print(&format!("Total reclaimed space: {}", size(freed)))?;
    empty_trash_later(context);
    Ok(0)
}

/// Removes images, names them, and gives the bytes that they had.
pub(crate) fn remove_images(engine: &Engine, options: &PruneOptions) -> anyhow::Result<u64> {
    let pruned = engine.prune_images(options)?;
    if !pruned.removed.is_empty() {
        render::print("Deleted Images:")?;
    }
    for one in &pruned.removed {
        render::print(&match one {
            Removed::Untagged(name) => format!("untagged: {}", name.familiar()),
            Removed::Deleted(id) => format!("deleted: {id}"),
        })?;
    }
    Ok(pruned.freed)
}

/// Asks on the terminal whether to go on.
pub(crate) fn confirmed(warning: &str) -> anyhow::Result<bool> {
    render::line(warning);
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
            options.until = Some(point(value)?);
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
