//! `ketch image tags` and `ketch image referrers`: what a registry has beside an image.

use clap::Args;
use image::{Reference, referrers, tags};

use super::Invocation;
use super::image::size;
use super::registry_options::registry_options;
use crate::render::{self, Usage};

/// Arguments of `image tags`.
#[derive(Debug, Args)]
pub(crate) struct TagsArgs {
    /// Repository, in its registry
    repository: String,
}

/// Options of `image referrers`.
#[derive(Debug, Args)]
pub(crate) struct ReferrersArgs {
    /// Only those of this type
    #[arg(long)]
    artifact_type: Option<String>,
    /// How they are printed: table or json
    #[arg(long, default_value = "table")]
    format: String,
    /// Image, in its registry
    image: String,
}

/// Lists the tags of a repository, one a line.
pub(crate) fn list_tags(context: &Invocation, args: &TagsArgs) -> anyhow::Result<u8> {
    let options = registry_options(&context.settings)?;
    for tag in tags(&Reference::parse(&args.repository)?, &options)? {
        render::print(&render::clean(&tag))?;
    }
    Ok(0)
}

/// Lists what refers to an image: signatures, lists of parts, attestations.
pub(crate) fn list_referrers(context: &Invocation, args: &ReferrersArgs) -> anyhow::Result<u8> {
    let options = registry_options(&context.settings)?;
    let image = Reference::parse(&args.image)?;
    let found = referrers(&image, args.artifact_type.as_deref(), &options)?;
    match args.format.as_str() {
        "json" => render::print(&serde_json::to_string_pretty(&found)?)?,
        "table" => {
            let rows: Vec<Vec<String>> = found
                .iter()
                .map(|referrer| {
                    let kind = referrer.artifact_type.as_deref().unwrap_or("<none>");
                    vec![
                        referrer.descriptor.digest.to_string(),
                        render::clean(kind),
                        size(referrer.descriptor.size),
                    ]
                })
                .collect();
            render::table(&["DIGEST", "TYPE", "SIZE"], &rows)?;
        }
        other => {
            let text = format!("cannot use --format `{other}`: it is table or json");
            return Err(Usage(text).into());
        }
    }
    Ok(0)
}
