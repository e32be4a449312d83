//! The record of an image in Docker's shape, and how records are shown.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use image::{Image, Reference, Store};
use runtime::detect::RuntimeKind;
use runtime_wasm::{WasmInfo, World};
use serde::Serialize as _;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};

use crate::render;
use crate::template::Template;

/// No larger module is looked into: the compiler takes none either.
const MAX_MODULE: u64 = 512 << 20;

/// Prints what is found; goes on after what is not. The exit code is 1 then.
pub(crate) fn show(
    names: &[String],
    format: Option<&str>,
    find: &dyn Fn(&str) -> anyhow::Result<Value>,
) -> anyhow::Result<u8> {
    let template = match format {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let mut found = Vec::new();
    let mut code = 0;
    for name in names {
        match find(name) {
            Ok(record) => found.push(record),
            Err(error) => {
                render::report(&error);
                code = 1;
            }
        }
    }
    match template {
        Some(template) => {
            for record in &found {
                render::print(&template.render(record)?)?;
            }
        }
        None if format.is_some() => render::print(&serde_json::to_string(&found)?)?,
        None => render::print(&pretty(&found)?)?,
    }
    Ok(code)
}

/// JSON as Docker indents it.
fn pretty(found: &[Value]) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let indent = PrettyFormatter::with_indent(b"    ");
    found.serialize(&mut Serializer::with_formatter(&mut bytes, indent))?;
    Ok(String::from_utf8(bytes)?)
}

/// Everything about an image; `runtime` says what runs it, or why nothing does.
pub(crate) fn record(store: &Store, image: &Image, runtime: &Value) -> anyhow::Result<Value> {
    let names = store.names_of(image)?;
    let digest = image.index_digest.unwrap_or(image.manifest_digest);
    let config = &image.config;
    let summary = store.list()?;
    let summary = summary.iter().find(|summary| summary.id == image.id);
    let digests: Vec<String> = names
        .iter()
        .map(|name| format!("{}@{digest}", name.familiar_name()))
        .collect();
    let last = config.history.last();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Parent": "",
        "Comment": last.and_then(|step| step.comment.clone()).unwrap_or_default(),
        "Created": config.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Config": run_config(image)?,
        "Architecture": image.platform.architecture(),
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": image.platform.os(),
        "Size": summary.map_or(0, |summary| summary.size),
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": summary.map(|summary| summary.added.clone()) },
        "Descriptor": { "digest": image.manifest_digest.to_string() },
        "Layers": layers(image),
        "History": history(store, image)?,
        "Runtime": runtime,
    }))
}

/// What its layers are as blobs, the lowest first.
fn layers(image: &Image) -> Vec<Value> {
    let layers = image.manifest.layers().iter();
    layers
        .map(|layer| {
            json!({
                "Digest": layer.digest().to_string(),
                "MediaType": layer.media_type().to_string(),
                "Size": layer.size(),
            })
        })
        .collect()
}

/// How it came to be, the newest step first.
fn history(store: &Store, image: &Image) -> anyhow::Result<Vec<Value>> {
    let steps = store.history(image)?;
    Ok(steps
        .iter()
        .map(|step| {
            json!({
                "Created": step.created,
                "CreatedBy": step.created_by,
                "Size": step.size,
                "Comment": step.comment,
            })
        })
        .collect())
}

/// Docker shows these fields also when they are empty.
fn run_config(image: &Image) -> anyhow::Result<Value> {
    let mut base = json!({
        "User": "", "Env": [], "Cmd": null, "Entrypoint": null, "WorkingDir": "",
        "Volumes": null, "Labels": null, "OnBuild": null,
    });
    let own = serde_json::to_value(&image.config.config)?;
    if let (Value::Object(base), Value::Object(own)) = (&mut base, own) {
        base.extend(own);
    }
    Ok(base)
}

/// Which runtime an image gets and why; for wasm what the module is.
pub(crate) fn runtime(kind: RuntimeKind, reason: &str, module: Option<&Path>) -> Value {
    let mut record = json!({ "Name": kind.to_string(), "Reason": reason });
    if let (Some(path), Value::Object(record)) = (module, &mut record) {
        let module = match self::module(path) {
            Ok(info) => json!({
                "Kind": info.kind.to_string(),
                "World": info.world.to_string(),
                "Wasi": wasi_level(&info),
                "Imports": info.imports,
                "Exports": info.exports,
            }),
            Err(error) => json!({ "Error": format!("{error:#}") }),
        };
        record.insert("Wasm".to_owned(), module);
    }
    record
}

fn module(path: &Path) -> anyhow::Result<WasmInfo> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_MODULE).read_to_end(&mut bytes))
        .context("cannot read the module")?;
    Ok(runtime_wasm::inspect::inspect(&bytes)?)
}

/// Which WASI the module was made for, by its world or else by what it imports.
fn wasi_level(info: &WasmInfo) -> &'static str {
    let of_version = |version: &str| {
        if version.starts_with("0.3") {
            "preview 3"
        } else {
            "preview 2"
        }
    };
    let imports = |start: &str| info.imports.iter().any(|import| import.starts_with(start));
    match &info.world {
        World::CommandP1 => "preview 1",
        World::Command(version) | World::HttpProxy(version) | World::HttpService(version) => {
            of_version(version)
        }
        _ if imports("wasi_snapshot_preview1.") => "preview 1",
        _ if imports("wasi:") => "preview 2",
        _ => "none",
    }
}
