//! `ketch pull`.

use clap::Args;
use engine::Engine;
use image::{ImageError, PlatformChoice, Reference};

use super::Invocation;
use super::options::platform;
use super::registry_options::registry_options;
use crate::ahead;
use crate::progress::{Display, ProgressStyle};
use crate::render;
use crate::settings::Settings;

/// Options of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Which image of an index: os/arch[/variant], or all
    #[arg(long)]
    platform: Option<String>,
    /// Get the images of all platforms
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown: auto, bars, plain, json or none
    #[arg(long, default_value = "auto", conflicts_with = "quiet")]
    progress: ProgressStyle,
    /// Image
    image: String,
}

/// Gets an image from its registry.
pub(crate) fn pull(context: &Invocation, args: &PullArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let choice = match args.platform.as_deref() {
        _ if args.all_platforms => PlatformChoice::All,
        Some("all") => PlatformChoice::All,
        Some(text) => PlatformChoice::Only(platform(text)?),
        None => PlatformChoice::Default,
    };
    let reference = Reference::parse(&args.image)?;
    let style = if args.quiet {
        ProgressStyle::None
    } else {
        args.progress
    };
    let display = Display::new(style);
    let options = registry_options(&context.settings)?;
    let pulled = ahead::compiling(&engine, &display, |progress| {
        engine.store().pull(&reference, &choice, &options, progress)
    });
    display.finish();
    let pulled = pulled?;
    let platform = match &choice {
        PlatformChoice::Only(platform) => Some(platform),
        _ => None,
    };
    ahead::compile_program(&engine, &reference, platform);
    if !args.quiet {
        render::print(&format!("Digest: {}", pulled.top.digest))?;
    }
    render::print(&reference.to_string())?;
    Ok(0)
}

/// Fetches and names an image; gives the digest that the name leads to.
pub(crate) fn fetch(
    engine: &Engine,
    settings: &Settings,
    reference: &Reference,
    choice: &PlatformChoice,
    style: ProgressStyle,
) -> anyhow::Result<String> {
    let options = registry_options(settings)?;
    let display = Display::new(style);
    let pulled = ahead::compiling(engine, &display, |progress| {
        engine.store().pull(reference, choice, &options, progress)
    });
    display.finish();
    Ok(pulled?.top.digest.to_string())
}

/// Whether an error says that an image is not in the store.
pub(crate) fn is_missing(error: &ImageError) -> bool {
    matches!(error, ImageError::NotFound { .. })
}
