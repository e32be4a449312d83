//! `ketch wasm`: looks at modules, compiles them, makes images of them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use engine::{ContainerOptions, WasmOptions};
use image::Reference;
use runtime::detect;

use super::Invocation;
use crate::module_file;
use crate::render::{self, Usage};

/// Arguments of `wasm`.
#[derive(Debug, Args)]
pub(crate) struct WasmCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what a module or a wasm image is and what it needs
    Inspect {
        /// A file, or an image
        target: String,
    },
    /// Compile a module or a wasm image before its first run
    Compile {
        /// A file, or an image
        target: String,
    },
    /// Make an image of a module
    Wrap {
        /// The module or component
        file: PathBuf,
        /// The image's name
        name: String,
        /// An image with a root file system and an entrypoint, instead of a wasm artifact
        #[arg(long)]
        image: bool,
    },
}

/// Runs the action.
pub(crate) fn wasm(context: &Invocation, args: &WasmCommand) -> anyhow::Result<u8> {
    match &args.action {
        Action::Inspect { target } => {
            let target = find(context, target)?;
            module_file::show(&target.path, &target.reason)?;
        }
        Action::Compile { target } => compile(context, target)?,
        Action::Wrap { file, name, image } => wrap(context, file, name, *image)?,
    }
    Ok(0)
}

/// A module, and which runtime it gets for which reason.
struct Target {
    path: PathBuf,
    reason: String,
}

fn find(context: &Invocation, text: &str) -> anyhow::Result<Target> {
    let path = Path::new(text);
    if path.is_file() {
        let mut head = Vec::new();
        let file = File::open(path).with_context(|| format!("cannot read `{text}`"))?;
        file.take(detect::HEADER_LEN as u64)
            .read_to_end(&mut head)?;
        let choice = detect::choose_file(text, &head)?;
        return Ok(Target {
            path: path.to_path_buf(),
            reason: choice.reason.to_string(),
        });
    }
    let options = ContainerOptions {
        image: text.to_owned(),
        ..ContainerOptions::default()
    };
    let explained = context.engine()?.explain(&options)?;
    let reason = explained.reason;
    let Some(path) = explained.module else {
        return Err(Usage(format!("`{text}` is no wasm image: {reason}")).into());
    };
    Ok(Target { path, reason })
}

fn compile(context: &Invocation, text: &str) -> anyhow::Result<()> {
    let target = find(context, text)?;
    let compiled = context
        .engine()?
        .compile_module(&target.path, text, &WasmOptions::default())?;
    render::print(&compiled.path.display().to_string())?;
    Ok(())
}

fn wrap(context: &Invocation, file: &Path, name: &str, as_image: bool) -> anyhow::Result<()> {
    let name = Reference::parse(name)?;
    let engine = context.engine()?;
    let id = if as_image {
        module_file::import(engine.store(), file, name)?.to_string()
    } else {
        module_file::wrap(engine.store(), file, &name)?.to_string()
    };
    render::print(&id)?;
    Ok(())
}
