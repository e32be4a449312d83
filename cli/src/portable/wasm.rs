//! `ketch wasm`: looks at modules, compiles them, makes images of them.

use std::path::{Path, PathBuf};

use ::image::Reference;
use clap::{Args, Subcommand};
use runtime_wasm::Metering;

use super::subject::{Subject, Wanted};
use super::{Invocation, Places, run};
use crate::{module_file, render};

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
    let places = context.places()?;
    match &args.action {
        Action::Inspect { target } => {
            let subject = find(&places, target)?;
            module_file::show(&subject.module, &subject.reason)?;
        }
        Action::Compile { target } => {
            let subject = find(&places, target)?;
            let export = subject.export.as_deref();
            let compiled = run::compile(&places, &subject.module, export, Metering::default())?;
            render::print(&compiled.path.display().to_string())?;
        }
        Action::Wrap { file, name, image } => {
            let name = Reference::parse(name)?;
            let id = if *image {
                module_file::import(&places.store, file, name)?
            } else {
                module_file::wrap(&places.store, file, &name)?
            };
            render::print(&id.to_string())?;
        }
    }
    Ok(0)
}

fn find(places: &Places, text: &str) -> anyhow::Result<Subject> {
    let path = Path::new(text);
    if path.is_file() {
        return Subject::of_file(places, text, path, &[]);
    }
    let wanted = Wanted {
        name: text,
        ..Wanted::default()
    };
    Subject::of_image(places, &wanted)
}
