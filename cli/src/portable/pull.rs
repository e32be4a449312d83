//! `ketch pull`.

use ::image::{PlatformChoice, Reference, Store};
use clap::Args;

use super::Invocation;
use super::registry_options::registry_options;
use crate::progress::{Display, ProgressStyle};
use crate::render;
use crate::settings::Settings;
use crate::values::platform;

/// Options of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Which image of an index: os/arch[/variant] (default: wasi/wasm)
    #[arg(long)]
    platform: Option<String>,
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
    let places = context.places()?;
    let reference = Reference::parse(&args.image)?;
    let style = if args.quiet {
        ProgressStyle::None
    } else {
        args.progress
    };
    let wanted = args.platform.as_deref();
    let digest = fetch(&places.store, &context.settings, &reference, wanted, style)?;
    if !args.quiet {
        render::print(&format!("Digest: {digest}"))?;
    }
    render::print(&reference.to_string())?;
    Ok(0)
}

/// Fetches and names an image; gives the digest that the name leads to.
pub(crate) fn fetch(
    store: &Store,
    settings: &Settings,
    reference: &Reference,
    wanted: Option<&str>,
    style: ProgressStyle,
) -> anyhow::Result<String> {
    let choice = match wanted {
        Some(text) => PlatformChoice::Only(platform(text)?),
        None => PlatformChoice::Default,
    };
    let display = Display::new(style);
    let options = registry_options(settings)?;
    let pulled = store.pull(reference, &choice, &options, &display);
    display.finish();
    Ok(pulled?.top.digest.to_string())
}
