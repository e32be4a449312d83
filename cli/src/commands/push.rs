//! `ketch push` and `ketch image wrap`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use image::{Reference, WasmArtifact};
use runtime_wasm::inspect::inspect;

use super::Invocation;
use super::options::platform;
use super::registry_options::registry_options;
use crate::ahead::is_module;
use crate::progress::{Display, ProgressStyle};
use crate::render;
use crate::settings;

/// The largest module that is looked into.
const MAX_MODULE: u64 = 1 << 30;

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
        wrap_file(&engine, Path::new(&args.image), &target)?;
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
    let digest = wrap_file(
        &engine,
        Path::new(&args.file),
        &Reference::parse(&args.tag)?,
    )?;
    render::print(&digest.to_string())?;
    Ok(0)
}

/// Makes a wasm artifact of a module.
pub(crate) fn wrap_file(
    engine: &engine::Engine,
    path: &Path,
    name: &Reference,
) -> anyhow::Result<image::Digest> {
    let cannot_read = || format!("cannot read `{}`", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_MODULE).read_to_end(&mut bytes))
        .with_context(cannot_read)?;
    let info = inspect(&bytes).with_context(|| format!("cannot wrap `{}`", path.display()))?;
    // A component's outer header says so (component-model `Binary.md`, preamble).
    let is_component = bytes.get(6) == Some(&1);
    let artifact = WasmArtifact {
        component: is_component.then_some((info.imports, info.exports)),
        created: source_date()?,
    };
    Ok(engine
        .store()
        .wrap_wasm(bytes.as_slice(), name, &artifact)?)
}

/// The time of `SOURCE_DATE_EPOCH`, as configs have it.
pub(crate) fn source_date() -> anyhow::Result<Option<String>> {
    let Some(seconds) = source_epoch()? else {
        return Ok(None);
    };
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .with_context(|| format!("`SOURCE_DATE_EPOCH` is `{seconds}`, which is no time"))?;
    let form = &time::format_description::well_known::Rfc3339;
    Ok(Some(time.format(form).context("cannot write the time")?))
}

/// The seconds of `SOURCE_DATE_EPOCH`.
pub(crate) fn source_epoch() -> anyhow::Result<Option<u64>> {
    let Some(text) = settings::variable("SOURCE_DATE_EPOCH")? else {
        return Ok(None);
    };
    let seconds = text.parse().ok().with_context(|| {
        format!("`SOURCE_DATE_EPOCH` is `{text}`, which is no number of seconds")
    })?;
    Ok(Some(seconds))
}
