//! `ketch push` and `ketch image wrap`.

use std::path::Path;

use clap::Args;
use image::Reference;

use super::Invocation;
use super::options::platform;
use super::registry_options::registry_options;
use crate::ahead::is_module;
use crate::module_file;
use crate::progress::{Display, ProgressStyle};
use crate::render;
pub(crate) use crate::settings::{source_date, source_epoch};

/// Options of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Push this platform of an index only: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Print nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown: auto, bars, plain, json or none
    #[arg(long, default_value = "auto", conflicts_with = "quiet")]
    progress: ProgressStyle,
    /// Image, by name or id, or a .wasm file
    image: String,
    /// Where to push it (default: its name)
    target: Option<String>,
}

/// Options of `image wrap`.
#[derive(Debug, Args)]
pub(crate) struct WrapArgs {
    /// Name of the image
    #[arg(short, long)]
    tag: String,
    /// WebAssembly module or component
    file: String,
}

/// Sends an image to a registry.
pub(crate) fn push(context: &Invocation, args: &PushArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let target = Reference::parse(args.target.as_deref().unwrap_or(&args.image))?;
    let is_module = args.target.is_some() && is_module(Path::new(&args.image));
    if is_module {
        module_file::wrap(engine.store(), Path::new(&args.image), &target)?;
    }
    let source = if is_module {
        target.to_string()
    } else {
        args.image.clone()
    };
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let style = if args.quiet {
        ProgressStyle::None
    } else {
        args.progress
    };
    let display = Display::new(style);
    let options = registry_options(&context.settings)?;
    let pushed = engine
        .store()
        .push(&source, &target, platform.as_ref(), &options, &display);
    display.finish();
    let pushed = pushed?;
    if args.quiet {
        render::print(&pushed.top.digest.to_string())?;
        return Ok(0);
    }
    if pushed.alone && platform.is_none() {
        render::line("note: not all platforms of the index are here; one image was pushed alone");
    }
    let tag = target.tag().unwrap_or("latest");
    render::print(&format!(
        "{tag}: digest: {} size: {}",
        pushed.top.digest, pushed.top.size
    ))?;
    Ok(0)
}

/// Makes an image of a module.
pub(crate) fn wrap(context: &Invocation, args: &WrapArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let digest = module_file::wrap(
        engine.store(),
        Path::new(&args.file),
        &Reference::parse(&args.tag)?,
    )?;
    render::print(&digest.to_string())?;
    Ok(0)
}
