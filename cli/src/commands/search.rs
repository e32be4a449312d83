//! `ketch search`.

use clap::Args;
use image::{Reference, search as search_registry, tags};

use super::Invocation;
use super::registry_options::registry_options;
use crate::render;

/// How wide a description may be.
const WIDTH: usize = 60;

/// Options of `search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// How many results at most
    #[arg(long, default_value_t = 25)]
    limit: usize,
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
    let options = registry_options(&context.settings)?;
    if args.list_tags {
        let reference = Reference::parse(&args.term)?;
        let rows: Vec<Vec<String>> = tags(&reference, &options)?
            .into_iter()
            .take(args.limit)
            .map(|tag| vec![reference.familiar_name(), render::clean(&tag)])
            .collect();
        render::table(&["NAME", "TAG"], &rows)?;
        return Ok(0);
    }
    let (registry, term) = match args.term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", args.term.as_str()),
    };
    let mut rows = Vec::new();
    for found in search_registry(registry, term, args.limit, &options)? {
        let mut description = render::clean(&found.description);
        if !args.no_trunc && description.chars().count() > WIDTH {
            description = description.chars().take(WIDTH - 1).collect::<String>() + "…";
        }
        let official = if found.official { "[OK]" } else { "" };
        rows.push(vec![
            render::clean(&found.name),
            description,
            found.stars.to_string(),
            official.to_owned(),
        ]);
    }
    render::table(&["NAME", "DESCRIPTION", "STARS", "OFFICIAL"], &rows)?;
    Ok(0)
}
