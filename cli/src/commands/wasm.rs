//! `ketch wasm`: looks at modules, compiles them, makes images of them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use engine::{ContainerOptions, WasmOptions};
use image::{ImportOptions, Platform, Reference};
use runtime::detect;
use runtime_wasm::compile::MAX_MODULE_BYTES;
use runtime_wasm::engine::Profile;
use runtime_wasm::{WasmInfo, inspect};
use serde_json::json;

use super::Invocation;
use super::push::wrap_file;
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
        Action::Inspect { target } => show(context, target)?,
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

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("cannot read `{}`", path.display());
    let file = File::open(path).with_context(failed)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_MODULE_BYTES + 1).read_to_end(&mut bytes);
    read.with_context(failed)?;
    if bytes.len() as u64 > MAX_MODULE_BYTES {
        let text = format!(
            "`{}` is larger than {} MiB",
            path.display(),
            MAX_MODULE_BYTES >> 20
        );
        return Err(Usage(text).into());
    }
    Ok(bytes)
}

fn show(context: &Invocation, text: &str) -> anyhow::Result<()> {
    let target = find(context, text)?;
    let bytes = read(&target.path)?;
    let info = inspect::inspect(&bytes)?;
    let engine = runtime_wasm::engine::engine(Profile::COMMAND)
        .map_err(|error| anyhow::anyhow!("cannot make the WebAssembly engine: {error:#}"))?;
    let valid = inspect::validate(&engine, &bytes).err();
    let runs = match (&valid, info.check_entry(None)) {
        (Some(error), _) => format!("no: {:#}", anyhow::Error::msg(error.to_string())),
        (None, Err(error)) => format!("no: {error}"),
        (None, Ok(_)) => "yes".to_owned(),
    };
    let shown = json!({
        "File": target.path,
        "Bytes": bytes.len(),
        "Digest": format!("sha256:{}", runtime_wasm::cache::ModuleDigest::of(&bytes).hex()),
        "Kind": info.kind.to_string(),
        "World": info.world.to_string(),
        "Runs": runs,
        "Runtime": "wasm",
        "Reason": target.reason,
        "Proposals": inspect::proposals(&engine, &bytes),
        "Imports": info.imports,
        "Exports": info.exports,
        "Grants": grants(&info),
    });
    render::print(&serde_json::to_string_pretty(&shown)?)?;
    Ok(())
}

/// What the guest would be given of what it asks for, and by which option.
fn grants(info: &WasmInfo) -> Vec<&'static str> {
    let asks = |prefix: &str| info.imports.iter().any(|name| name.starts_with(prefix));
    let rows = [
        (
            asks("wasi:filesystem/") || asks("wasi_snapshot_preview1.path_"),
            "the container's root file system and volumes (--volume, --read-only)",
        ),
        (
            asks("wasi:sockets/"),
            "sockets in the container's network (--network)",
        ),
        (
            asks("wasi:http/outgoing-handler") || asks("wasi:http/client"),
            "outgoing HTTP requests (--network)",
        ),
        (
            asks("wasi:config/"),
            "values of wasi:config (--wasm-config)",
        ),
        (
            asks("wasi:keyvalue/"),
            "a store of wasi:keyvalue (--wasm-keyvalue)",
        ),
        (
            asks("wasi:logging/"),
            "lines of wasi:logging (--wasm-logging)",
        ),
    ];
    let asked = rows.into_iter().filter(|(asked, _)| *asked);
    asked.map(|(_, text)| text).collect()
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
        let bytes = read(file)?;
        inspect::inspect(&bytes).with_context(|| format!("cannot wrap `{}`", file.display()))?;
        let title = file.file_name().unwrap_or_default().to_string_lossy();
        let options = ImportOptions {
            name: Some(name),
            changes: vec![format!("ENTRYPOINT {}", json!([format!("/{title}")]))],
            platform: Some(Platform::new("wasi", "wasm", None)),
            ..ImportOptions::default()
        };
        let archive = archive(&title, &bytes)?;
        engine.store().import(&*archive, &options)?.to_string()
    } else {
        wrap_file(&engine, file, &name)?.to_string()
    };
    render::print(&id)?;
    Ok(())
}

/// A root file system that holds the module alone.
fn archive(title: &str, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        if let Some(field) = header.get_mut(at..at + text.len()) {
            field.copy_from_slice(text);
        }
    };
    if title.len() >= 100 {
        return Err(Usage(format!("cannot wrap `{title}`: its name is too long")).into());
    }
    // The fields of `ustar` (POSIX `pax`, "ustar Interchange Format").
    put(0, title.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", bytes.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(field) = header.get_mut(148..156) {
        field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut archive = Vec::with_capacity(bytes.len() + 4 * BLOCK);
    archive.write_all(&header)?;
    archive.write_all(bytes)?;
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    Ok(archive)
}
