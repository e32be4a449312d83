//! A module or component in a file: what it is, and images that are made of it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context as _;
use image::{Digest, ImportOptions, Platform, Reference, Store, WasmArtifact};
use runtime_wasm::compile::MAX_MODULE_BYTES;
use runtime_wasm::engine::Profile;
use runtime_wasm::{WasmInfo, inspect};
use serde_json::json;

use crate::render::{self, Usage};
use crate::settings;

/// Its bytes, if it is not too large to be compiled.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
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

/// Prints what it is, what it needs, and for which reason it is run as it is.
pub(crate) fn show(path: &Path, reason: &str) -> anyhow::Result<()> {
    let bytes = read(path)?;
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
        "File": path,
        "Bytes": bytes.len(),
        "Digest": format!("sha256:{}", runtime_wasm::cache::ModuleDigest::of(&bytes).hex()),
        "Kind": info.kind.to_string(),
        "World": info.world.to_string(),
        "Runs": runs,
        "Runtime": "wasm",
        "Reason": reason,
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

/// Makes a wasm artifact of it. Gives the digest of its manifest.
pub(crate) fn wrap(store: &Store, path: &Path, name: &Reference) -> anyhow::Result<Digest> {
    let bytes = read(path)?;
    let info =
        inspect::inspect(&bytes).with_context(|| format!("cannot wrap `{}`", path.display()))?;
    // A component's outer header says so (component-model `Binary.md`, preamble).
    let is_component = bytes.get(6) == Some(&1);
    let artifact = WasmArtifact {
        component: is_component.then_some((info.imports, info.exports)),
        created: settings::source_date()?,
    };
    Ok(store.wrap_wasm(bytes.as_slice(), name, &artifact)?)
}

/// Makes an image of it with a root file system and an entrypoint. Gives the image's id.
pub(crate) fn import(store: &Store, path: &Path, name: Reference) -> anyhow::Result<Digest> {
    let bytes = read(path)?;
    inspect::inspect(&bytes).with_context(|| format!("cannot wrap `{}`", path.display()))?;
    let title = path.file_name().unwrap_or_default().to_string_lossy();
    let options = ImportOptions {
        name: Some(name),
        changes: vec![format!("ENTRYPOINT {}", json!([format!("/{title}")]))],
        platform: Some(Platform::wasi()),
        ..ImportOptions::default()
    };
    let archive = archive(&title, &bytes)?;
    Ok(store.import(&*archive, &options)?)
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
