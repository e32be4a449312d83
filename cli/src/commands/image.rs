//! The commands of images: `load`, `save`, `import`, `tag`, `rmi`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use engine::{Engine, EngineError};
use image::{Force, ImportOptions, Reference, Removed, SaveOptions};

use super::Invocation;
use super::options::platform;
use crate::progress::{Display, ProgressStyle};
use crate::render;
pub(crate) use crate::values::size;

/// Options of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive or OCI layout directory (default: standard input)
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Load this platform only: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Print nothing but the names
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown: auto, bars, plain, json or none
    #[arg(long, default_value = "auto", conflicts_with = "quiet")]
    progress: ProgressStyle,
}

/// Options of `save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// File to write (default: standard output)
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Write these platforms of indexes only: os/arch[/variant] (can be repeated; default: all that
    /// are here)
    #[arg(long, value_delimiter = ',')]
    platform: Vec<String>,
    /// Images, by name or id
    #[arg(required = true)]
    images: Vec<String>,
}

/// Options of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Apply a Dockerfile instruction (can be repeated)
    #[arg(short, long)]
    change: Vec<String>,
    /// What the image is for: os/arch[/variant] (default: this machine)
    #[arg(long)]
    platform: Option<String>,
    /// Note for the history
    #[arg(short, long)]
    message: Option<String>,
    /// Archive, also compressed; - for standard input
    file: PathBuf,
    /// Name of the image
    name: Option<String>,
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
    /// Remove this platform of an index only: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Images, by name or id
    #[arg(required = true)]
    images: Vec<String>,
}

/// Loads images from an archive or a directory.
pub(crate) fn load(context: &Invocation, args: &LoadArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let style = if args.quiet {
        ProgressStyle::None
    } else {
        args.progress
    };
    let display = Display::new(style);
    let loaded = match &args.input {
        Some(path) if path.is_dir() => engine.store().load_dir(path, platform.as_ref(), &display),
        Some(path) => engine
            .store()
            .load(open(path)?, platform.as_ref(), &display),
        None => engine
            .store()
            .load(io::stdin().lock(), platform.as_ref(), &display),
    };
    display.finish();
    let loaded = loaded?;
    for image in loaded {
        for name in &image.names {
            render::print(&format!("Loaded image: {}", name.familiar()))?;
        }
        if image.names.is_empty() {
            for id in &image.ids {
                render::print(&format!("Loaded image ID: {id}"))?;
            }
        }
    }
    Ok(0)
}

/// Loads the image that travels inside `ketch`.
pub(crate) fn load_hello(engine: &Engine) -> anyhow::Result<()> {
    engine.store().load(crate::embedded::HELLO, None, &())?;
    Ok(())
}

/// Writes images to an archive.
pub(crate) fn save(context: &Invocation, args: &SaveArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let platforms = args.platform.iter().map(|text| platform(text));
    let options = SaveOptions {
        platforms: platforms.collect::<anyhow::Result<_>>()?,
        modified: super::push::source_epoch()?.unwrap_or_default(),
    };
    match &args.output {
        Some(path) => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            let mut file = sys_temp(dir.unwrap_or(Path::new(".")), path)?;
            engine.store().save(&args.images, &options, &mut file)?;
            file.persist(path)
                .with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        None => {
            let mut out = io::stdout().lock();
            engine.store().save(&args.images, &options, &mut out)?;
            out.flush()?;
        }
    }
    Ok(0)
}

fn sys_temp(dir: &Path, path: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// Makes an image from a root file system.
pub(crate) fn import(context: &Invocation, args: &ImportArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let options = ImportOptions {
        name: args.name.as_deref().map(Reference::parse).transpose()?,
        changes: args.change.clone(),
        message: args.message.clone(),
        platform: args.platform.as_deref().map(platform).transpose()?,
        created: super::push::source_date()?,
    };
    let reader: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(open(&args.file)?)
    };
    render::print(&engine.store().import(reader, &options)?.to_string())?;
    Ok(0)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// Gives an image another name.
pub(crate) fn tag(context: &Invocation, args: &TagArgs) -> anyhow::Result<u8> {
    context
        .engine()?
        .store()
        .tag(&args.source, &Reference::parse(&args.target)?)?;
    Ok(0)
}

/// Removes images that no container needs.
pub(crate) fn rmi(context: &Invocation, args: &RmiArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let force = if args.force { Force::Yes } else { Force::No };
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let mut code = 0;
    for image in &args.images {
        let removed = match &platform {
            // An identifier is of one platform.
            Some(platform) => engine
                .store()
                .resolve(image, Some(platform))
                .map_err(EngineError::from)
                .and_then(|found| engine.remove_image(&found.id.to_string(), force)),
            None => engine.remove_image(image, force),
        };
        match removed {
            Ok(removed) => {
                for one in removed {
                    render::print(&match one {
                        Removed::Untagged(name) => format!("Untagged: {}", name.familiar()),
                        Removed::Deleted(id) => format!("Deleted: {id}"),
                    })?;
                }
            }
            Err(error) => {
                render::report(&error.into());
                code = 1;
            }
        }
    }
    super::disk::empty_trash_later(context);
    Ok(code)
}
