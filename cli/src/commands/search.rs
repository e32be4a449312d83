//! `ketch search`.

use clap::Args;
use engine::Filters;
use image::{Reference, search as search_registry, tags};

use super::Invocation;
use super::registry_options::registry_options;
use crate::format::{Field, Format, Row};
use crate::render::{self, Usage};

/// How wide a description may be.
const WIDTH: usize = 60;

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 4] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
];

/// Options of `search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// How many results at most
    #[arg(long, default_value_t = 25)]
    limit: usize,
    /// Print with a template such as {{.Name}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show only what matches: stars=COUNT, is-official=BOOL (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    /// List the tags of this repository instead
    #[arg(long)]
    list_tags: bool,
    /// What to look for: [registry/]word
    term: String,
}

/// Looks for images in a registry.
pub(crate) fn search(context: &Invocation, args: &SearchArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let filters = Filters::parse("images", &args.filter, &["stars", "is-official"])?;
    let official = filters.flag("images", "is-official")?;
    let stars = least_stars(&filters)?;
    let options = registry_options(&context.settings)?;
    if args.list_tags {
        let reference = Reference::parse(&args.term)?;
        let row = |tag: String| Row::new([("Name", reference.familiar_name()), ("Tag", tag)]);
        let rows: Vec<Row> = tags(&reference, &options)?
            .into_iter()
            .take(args.limit)
            .map(row)
            .collect();
        format.print(&[("Name", "NAME"), ("Tag", "TAG")], &["Name", "Tag"], &rows)?;
        return Ok(0);
    }
    let (registry, term) = match args.term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", args.term.as_str()),
    };
    let mut rows = Vec::new();
    for found in search_registry(registry, term, args.limit, &options)? {
        let matches = found.stars >= stars && official.is_none_or(|only| only == found.official);
        if !matches {
            continue;
        }
        let mut description = render::clean(&found.description);
        if !args.no_trunc && description.chars().count() > WIDTH {
            description = description.chars().take(WIDTH - 1).collect::<String>() + "…";
        }
        let official = if found.official { "[OK]" } else { "" };
        rows.push(Row::new([
            ("Name", found.name),
            ("Description", description),
            ("StarCount", found.stars.to_string()),
            ("IsOfficial", official.to_owned()),
        ]));
    }
    format.print(
        &FIELDS,
        &["Name", "Description", "StarCount", "IsOfficial"],
        &rows,
    )?;
    Ok(0)
}

fn least_stars(filters: &Filters) -> anyhow::Result<u64> {
    let Some(text) = filters.values("stars").last() else {
        return Ok(0);
    };
    text.parse().map_err(|_| {
        Usage(format!(
            "cannot filter images by `stars={text}`: it is a number"
        ))
        .into()
    })
}
