//! `ketch manifest`: indexes made by hand.

use clap::Args;
use image::{EntryChange, Force, PlatformChoice, Reference};

use super::Invocation;
use super::registry_options::registry_options;
use crate::progress::{Display, ProgressStyle};
use crate::render;

/// Options of `manifest create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Replace an index that is there
    #[arg(short, long)]
    amend: bool,
    /// Name of the index
    index: String,
    /// Images, by name or id; those that are not here are pulled
    #[arg(required = true)]
    images: Vec<String>,
}

/// Options of `manifest annotate`.
#[derive(Debug, Args)]
pub(crate) struct AnnotateArgs {
    /// Operating system
    #[arg(long)]
    os: Option<String>,
    /// Architecture
    #[arg(long)]
    arch: Option<String>,
    /// Variant of the architecture
    #[arg(long)]
    variant: Option<String>,
    /// Name of the index
    index: String,
    /// Which entry: the image, or the digest of its manifest
    image: String,
}

/// Arguments of `manifest inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Image or index, here or in its registry
    image: String,
}

/// Options of `manifest push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Remove the index here afterwards
    #[arg(short, long)]
    purge: bool,
    /// Name of the index
    index: String,
    /// Where to push it (default: its name)
    target: Option<String>,
}

/// Arguments of `manifest rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names of indexes
    #[arg(required = true)]
    indexes: Vec<String>,
}

/// Makes an index of images.
pub(crate) fn create(context: &Invocation, args: &CreateArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let store = engine.store();
    let name = Reference::parse(&args.index)?;
    for image in &args.images {
        match store.resolve(image, None) {
            // Of another platform is as good as any.
            Ok(_) | Err(image::ImageError::NoPlatform { .. }) => {}
            Err(error) if super::pull::is_missing(&error) => {
                let reference = Reference::parse(image)?;
                let options = registry_options(&context.settings)?;
                let display = Display::new(ProgressStyle::Auto);
                let pulled = store.pull(&reference, &PlatformChoice::All, &options, &display);
                display.finish();
                pulled?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let replace = args.amend;
    let digest = store.create_index(&name, &args.images, replace)?;
    render::print(&digest.to_string())?;
    Ok(0)
}

/// Changes what an index says about one of its images.
pub(crate) fn annotate(context: &Invocation, args: &AnnotateArgs) -> anyhow::Result<u8> {
    let change = EntryChange {
        os: args.os.clone(),
        architecture: args.arch.clone(),
        variant: args.variant.clone(),
    };
    let name = Reference::parse(&args.index)?;
    let digest = context
        .engine()?
        .store()
        .annotate_index(&name, &args.image, &change)?;
    render::print(&digest.to_string())?;
    Ok(0)
}

/// Prints a manifest or an index as it is.
pub(crate) fn inspect(context: &Invocation, args: &InspectArgs) -> anyhow::Result<u8> {
    let name = Reference::parse(&args.image)?;
    let bytes = match context.engine()?.store().raw_manifest(&name) {
        Err(error) if super::pull::is_missing(&error) => {
            image::fetch_manifest(&name, &registry_options(&context.settings)?)?
        }
        other => other?,
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes)?;
    render::print(&serde_json::to_string_pretty(&value)?)?;
    Ok(0)
}

/// Sends an index with all its images to a registry.
pub(crate) fn push(context: &Invocation, args: &PushArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let name = Reference::parse(&args.index)?;
    // That it is an index is what was promised.
    engine.store().index_entries(&name)?;
    let target = match &args.target {
        Some(target) => Reference::parse(target)?,
        None => name.clone(),
    };
    let options = registry_options(&context.settings)?;
    let display = Display::new(ProgressStyle::Auto);
    let pushed = engine
        .store()
        .push(&args.index, &target, None, &options, &display);
    display.finish();
    render::print(&pushed?.top.digest.to_string())?;
    if args.purge {
        engine.store().remove(&args.index, Force::Yes, &|_| None)?;
    }
    Ok(0)
}

/// Removes indexes; what only they have goes with them.
pub(crate) fn rm(context: &Invocation, args: &RmArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for index in &args.indexes {
        let name = Reference::parse(index)?;
        engine.store().index_entries(&name)?;
        engine.store().remove(index, Force::No, &|_| None)?;
        render::print(index)?;
    }
    Ok(0)
}
