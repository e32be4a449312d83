//! `ketch images`, `inspect`, `tag` and `rmi`.

use ::image::{Force, ImageError, Reference, Removed};
use clap::Args;
use serde_json::json;

use super::subject::{Subject, Wanted};
use super::{Invocation, Places};
use crate::format::{Field, Format, Row};
use crate::image_record::{self, show};
use crate::render;
use crate::times::age;
use crate::values::platform;

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 6] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("Platform", "PLATFORM"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
];

/// Options of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print with a template such as {{.Repository}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Print with a template such as {{.Config.Env}}, or json
    #[arg(short, long)]
    format: Option<String>,
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Images, by name or id
    #[arg(required = true)]
    names: Vec<String>,
}

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Image, by name or id
    source: String,
    /// New name
    target: String,
}

/// Options of `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove also what several names lead to
    #[arg(short, long)]
    force: bool,
    /// Images, by name or id
    #[arg(required = true)]
    images: Vec<String>,
}

/// Lists images.
pub(crate) fn images(context: &Invocation, args: &ImagesArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let mut rows = Vec::new();
    for (name, images) in context.places()?.store.list_by_name()? {
        for image in images {
            if args.quiet {
                render::print(&image.id.short())?;
                continue;
            }
            let none = || "<none>".to_owned();
            let name = name.as_ref();
            let tag = name.and_then(Reference::tag);
            let created = image.created.as_deref();
            rows.push(Row::new([
                (
                    "Repository",
                    name.map_or_else(none, Reference::familiar_name),
                ),
                ("Tag", tag.map_or_else(none, str::to_owned)),
                ("ID", image.id.short()),
                ("Platform", image.platform.to_string()),
                (
                    "CreatedSince",
                    created.map_or_else(String::new, |at| format!("{} ago", age(at))),
                ),
                ("Size", crate::values::size(image.size)),
            ]));
        }
    }
    if !args.quiet {
        let shown = FIELDS.map(|(field, _)| field);
        format.print(&FIELDS, &shown, &rows)?;
    }
    Ok(0)
}

/// Shows images, and whether and why each can be run.
pub(crate) fn inspect(context: &Invocation, args: &InspectArgs) -> anyhow::Result<u8> {
    let places = context.places()?;
    let wanted = args.platform.as_deref().map(platform).transpose()?;
    let find = |name: &str| {
        let image = places.store.resolve(name, wanted.as_ref())?;
        let runtime = runtime(&places, name);
        image_record::record(&places.store, &image, &runtime)
    };
    show(&args.names, args.format.as_deref(), &find)
}

fn runtime(places: &Places, name: &str) -> serde_json::Value {
    let wanted = Wanted {
        name,
        ..Wanted::default()
    };
    match Subject::of_image(places, &wanted) {
        Ok(subject) => image_record::runtime(
            runtime::detect::RuntimeKind::Wasm,
            &subject.reason,
            Some(&subject.module),
        ),
        Err(error) => json!({ "Error": format!("{error:#}") }),
    }
}

/// Gives an image another name.
pub(crate) fn tag(context: &Invocation, args: &TagArgs) -> anyhow::Result<u8> {
    let name = Reference::parse(&args.target)?;
    context.places()?.store.tag(&args.source, &name)?;
    Ok(0)
}

/// Removes images.
pub(crate) fn rmi(context: &Invocation, args: &RmiArgs) -> anyhow::Result<u8> {
    let places = context.places()?;
    let force = if args.force { Force::Yes } else { Force::No };
    let mut code = 0;
    for image in &args.images {
        // No container uses any.
        match places.store.remove(image, force, &|_| None) {
            Ok(removed) => {
                for one in removed {
                    render::print(&match one {
                        Removed::Untagged(name) => format!("Untagged: {}", name.familiar()),
                        Removed::Deleted(id) => format!("Deleted: {id}"),
                    })?;
                }
            }
            Err(ImageError::NotFound(_)) if args.force => {}
            Err(error) => {
                render::report(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}
