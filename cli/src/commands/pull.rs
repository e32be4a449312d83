//! `ketch pull`.

use clap::Args;
use engine::Engine;
use image::{AuthConfig, ImageError, PlatformChoice, Reference, RegistryOptions};

use super::Invocation;
use super::options::platform;
use crate::render;
use crate::settings::{self, Settings};

/// Who asks, in every request.
const USER_AGENT: &str = concat!("ketch/", env!("CARGO_PKG_VERSION"));

/// Options of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// Image
    image: String,
}

/// Gets an image from its registry.
pub(crate) fn pull(context: &Invocation, args: &PullArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let choice = match &args.platform {
        Some(text) => PlatformChoice::Only(platform(text)?),
        None => PlatformChoice::Default,
    };
    let reference = Reference::parse(&args.image)?;
    let digest = fetch(&engine, &context.settings, &reference, &choice)?;
    if !args.quiet {
        render::print(&format!("Digest: {digest}"))?;
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
) -> anyhow::Result<String> {
    let docker = match settings::variable("DOCKER_CONFIG")? {
        Some(dir) => Some(std::path::PathBuf::from(dir).join("config.json")),
        None => settings::variable("HOME")?
            .map(|home| std::path::PathBuf::from(home).join(".docker/config.json")),
    };
    let inline = settings::variable("DOCKER_AUTH_CONFIG")?;
    let insecure = settings.get(&settings::INSECURE).split(',').map(str::trim);
    let options = RegistryOptions {
        insecure: insecure
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect(),
        auth: AuthConfig::load(docker.as_deref(), inline.as_deref())?,
        user_agent: USER_AGENT,
        ..RegistryOptions::default()
    };
    let pulled = engine.store().pull(reference, choice, &options, &())?;
    Ok(pulled.top.digest.to_string())
}

/// Whether an error says that an image is not in the store.
pub(crate) fn is_missing(error: &ImageError) -> bool {
    matches!(error, ImageError::NotFound { .. })
}
