//! `ketch history`.

use clap::Args;

use super::Invocation;
use super::image::size;
use super::options::platform;
use crate::format::{Field, Format, Row};
use crate::render;
use crate::times::{age, local_of};

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// How long a command may be.
const SHORT: usize = 60;

/// Arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Print with a template such as {{.CreatedBy}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Print sizes and times for people: --human=false for bytes and RFC 3339
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_name = "BOOL", action = clap::ArgAction::Set)]
    human: bool,
    /// Do not shorten commands
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Image, by name or id
    image: String,
}

/// Shows how an image came to be, the newest step first.
pub(crate) fn history(context: &Invocation, args: &HistoryArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let image = engine.store().resolve(&args.image, platform.as_ref())?;
    let id = if args.no_trunc {
        image.id.to_string()
    } else {
        image.id.short()
    };
    let steps = engine.store().history(&image)?;
    if args.quiet {
        for index in 0..steps.len() {
            render::print(if index == 0 { &id } else { "<missing>" })?;
        }
        return Ok(0);
    }
    let mut rows = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let created = step.created.clone().unwrap_or_default();
        let length = if args.no_trunc { usize::MAX } else { SHORT };
        let since = match args.human {
            true if created.is_empty() => String::new(),
            true => format!("{} ago", age(&created)),
            false => created.clone(),
        };
        rows.push(Row::new([
            // Only the last step's image has an identifier.
            (
                "ID",
                if index == 0 {
                    id.clone()
                } else {
                    "<missing>".to_owned()
                },
            ),
            ("CreatedSince", since),
            (
                "CreatedAt",
                if args.human {
                    local_of(&created)
                } else {
                    created
                },
            ),
            ("CreatedBy", step.created_by.chars().take(length).collect()),
            (
                "Size",
                if args.human {
                    size(step.size)
                } else {
                    step.size.to_string()
                },
            ),
            ("Comment", step.comment.clone()),
        ]));
    }
    let shown = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"];
    format.print(&FIELDS, &shown, &rows)?;
    Ok(0)
}
