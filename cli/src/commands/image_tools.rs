//! `ketch image ls --tree`, `convert`, `diff`, `mount` and `unmount`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use image::{ChangeKind, Compression, ConvertOptions, Reference};

use super::Invocation;
use super::image::size;
use super::options::platform;
use crate::progress::{Display, ProgressStyle};
use crate::render;

/// Options of `image ls --tree`.
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// Show the platforms of each image below it
    #[arg(long)]
    tree: bool,
}

/// How layers can be compressed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Form {
    /// RFC 1952
    Gzip,
    /// RFC 8878
    Zstd,
    /// Not at all
    Uncompressed,
}

/// Options of `image convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// How the layers are compressed: gzip, zstd or uncompressed
    #[arg(long, default_value = "zstd")]
    compression: Form,
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Image, by name or id
    image: String,
    /// Name of the result
    target: String,
}

/// Options of `image diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Which images of indexes: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Image to compare with
    base: String,
    /// Image that is compared
    image: String,
}

/// Options of `image mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Image, by name or id; none lists what is mounted
    image: Option<String>,
}

/// Arguments of `image unmount`.
#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Images, by name or id
    #[arg(required = true)]
    images: Vec<String>,
}

/// Lists names with the images that each leads to.
pub(crate) fn tree(context: &Invocation, args: &TreeArgs) -> anyhow::Result<u8> {
    debug_assert!(args.tree);
    let mut rows = Vec::new();
    for (name, images) in context.engine()?.store().list_by_name()? {
        let total = images.iter().map(|image| image.size).sum();
        let title = name.map_or("<none>".to_owned(), |name| name.familiar());
        rows.push(vec![title, String::new(), size(total)]);
        for (at, image) in images.iter().enumerate() {
            let branch = if at + 1 == images.len() {
                "└─"
            } else {
                "├─"
            };
            rows.push(vec![
                format!("{branch} {}", image.platform),
                image.id.short(),
                size(image.size),
            ]);
        }
    }
    render::table(&["IMAGE", "ID", "SIZE"], &rows)?;
    Ok(0)
}

/// Makes an image with the same files and another compression.
pub(crate) fn convert(context: &Invocation, args: &ConvertArgs) -> anyhow::Result<u8> {
    let options = ConvertOptions {
        name: Reference::parse(&args.target)?,
        compression: match args.compression {
            Form::Gzip => Compression::Gzip,
            Form::Zstd => Compression::Zstd,
            Form::Uncompressed => Compression::None,
        },
        platform: args.platform.as_deref().map(platform).transpose()?,
    };
    let display = Display::new(ProgressStyle::Auto);
    let converted = context
        .engine()?
        .store()
        .convert(&args.image, &options, &display);
    display.finish();
    render::print(&converted?.manifest_digest.to_string())?;
    Ok(0)
}

/// Shows how the files of two images differ.
pub(crate) fn diff(context: &Invocation, args: &DiffArgs) -> anyhow::Result<u8> {
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let engine = context.engine()?;
    let changes = engine
        .store()
        .diff(&args.base, &args.image, platform.as_ref(), &())?;
    for change in changes {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        let path = change.path.to_string_lossy();
        render::print(&format!("{letter} {}", render::clean(&path)))?;
    }
    Ok(0)
}

/// Mounts the files of an image, read-only, and prints where.
pub(crate) fn mount(context: &Invocation, args: &MountArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let Some(name) = &args.image else {
        for (id, path) in engine.store().mounted()? {
            render::print(&format!("{} {}", id.short(), path.display()))?;
        }
        return Ok(0);
    };
    if !rustix::process::geteuid().is_root() {
        bail!(
            "images are mounted by root only: a mount of another user's namespace would end with the command"
        );
    }
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let image = engine.store().resolve(name, platform.as_ref())?;
    let path: PathBuf = engine.store().mount(&image, &())?;
    render::print(&path.display().to_string())?;
    Ok(0)
}

/// Undoes `image mount`.
pub(crate) fn unmount(context: &Invocation, args: &UnmountArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for name in &args.images {
        let known = engine.store().mounted()?;
        let image = engine.store().resolve(name, None);
        let id = match image {
            Ok(image) => Some(image.id),
            // The image may be gone, its mount not.
            Err(_) => known
                .iter()
                .map(|(id, _)| *id)
                .find(|id| id.hex().starts_with(name.as_str())),
        };
        let id = id.with_context(|| format!("image `{name}` is not mounted"))?;
        engine.store().unmount(&id)?;
        render::print(&id.to_string())?;
    }
    Ok(0)
}
