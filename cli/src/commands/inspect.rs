//! `ketch inspect`, `ketch container inspect` and `ketch image inspect`: records in Docker's shape.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use engine::{ContainerOptions, Engine, EngineError};
use image::{Image, ImageError, Reference};
use runtime_wasm::{WasmInfo, World};
use serde::Serialize as _;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};

use super::Invocation;
use super::container_record::{self, Sizes};
use super::options::platform;
use crate::render::{self, Usage};
use crate::template::Template;

/// No larger module is looked into: the compiler takes none either.
const MAX_MODULE: u64 = 512 << 20;

/// Options of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Print with a template such as {{.State.Pid}}, or json
    #[arg(short, long)]
    format: Option<String>,
    /// What is meant: container, image, network or volume (default: the first of these that is found)
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Show how much a container has written
    #[arg(short, long)]
    size: bool,
    /// Objects, by name or id
    #[arg(required = true)]
    names: Vec<String>,
}

/// Options of `container inspect`.
#[derive(Debug, Args)]
pub(crate) struct ContainerInspectArgs {
    /// Print with a template such as {{.State.Pid}}, or json
    #[arg(short, long)]
    format: Option<String>,
    /// Show how much a container has written
    #[arg(short, long)]
    size: bool,
    /// Containers, by name or id
    #[arg(required = true)]
    names: Vec<String>,
}

/// Options of `image inspect`.
#[derive(Debug, Args)]
pub(crate) struct ImageInspectArgs {
    /// Print with a template such as {{.Config.Env}}, or json
    #[arg(short, long)]
    format: Option<String>,
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Images, by name or id
    #[arg(required = true)]
    names: Vec<String>,
}

/// Finds something by name or id; `None` when there is none.
type Find<'a> = &'a dyn Fn(&str) -> anyhow::Result<Option<Value>>;

/// Shows containers, images, networks or volumes.
pub(crate) fn inspect(context: &Invocation, args: &InspectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let sizes = sizes(args.size);
    let container = |name: &str| match engine.container(name) {
        Err(EngineError::NoSuchContainer(_)) => Ok(None),
        found => Ok(Some(container_record::record(&engine, &found?, sizes)?)),
    };
    let image = |name: &str| match image_record(&engine, name, None) {
        // What can be no name of an image may be one of something else.
        Err(error) if error.is::<ImageError>() => Ok(None),
        found => found.map(Some),
    };
    let network = |name: &str| match super::network::find(&engine, name) {
        Err(network::NetworkError::NotFound(_)) => Ok(None),
        found => Ok(Some(found?)),
    };
    let volume = |name: &str| match engine.volume(name) {
        Err(EngineError::NoSuchVolume(_)) => Ok(None),
        found => Ok(Some(super::volume::record(&engine, &found?)?)),
    };
    let all: [(&str, Find<'_>); 4] = [
        ("container", &container),
        ("image", &image),
        ("network", &network),
        ("volume", &volume),
    ];
    let kind = args.kind.as_deref();
    if let Some(other) = kind.filter(|kind| all.iter().all(|(name, _)| name != kind)) {
        let text =
            format!("cannot use --type `{other}`: it is container, image, network or volume");
        return Err(Usage(text).into());
    }
    let wanted = all
        .iter()
        .filter(|(name, _)| kind.is_none_or(|kind| kind == *name));
    let wanted: Vec<_> = wanted.collect();
    let find = |name: &str| -> anyhow::Result<Value> {
        for (_, find) in &wanted {
            if let Some(found) = find(name)? {
                return Ok(found);
            }
        }
        match kind {
            Some(kind) => Err(anyhow::anyhow!("no such {kind}: {name}")),
            None => Err(anyhow::anyhow!("no such object: {name}")),
        }
    };
    show(&args.names, args.format.as_deref(), &find)
}

fn sizes(wanted: bool) -> Sizes {
    if wanted {
        Sizes::Count
    } else {
        Sizes::LeaveOut
    }
}

/// Shows containers.
pub(crate) fn container(context: &Invocation, args: &ContainerInspectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let sizes = sizes(args.size);
    let find = |name: &str| container_record::record(&engine, &engine.container(name)?, sizes);
    show(&args.names, args.format.as_deref(), &find)
}

/// Shows images, and which runtime each gets and why.
pub(crate) fn image(context: &Invocation, args: &ImageInspectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let wanted = args.platform.as_deref();
    let find = |name: &str| image_record(&engine, name, wanted);
    show(&args.names, args.format.as_deref(), &find)
}

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

fn image_record(engine: &Engine, name: &str, wanted: Option<&str>) -> anyhow::Result<Value> {
    let wanted = wanted.map(platform).transpose()?;
    let image = match engine.store().resolve(name, wanted.as_ref()) {
        Err(ImageError::NotFound(_)) if name == "hello" => {
            super::image::load_hello(engine)?;
            engine.store().resolve(name, wanted.as_ref())?
        }
        other => other?,
    };
    let names = engine.store().names_of(&image)?;
    let digest = image.index_digest.unwrap_or(image.manifest_digest);
    let config = &image.config;
    let summary = engine.store().list()?;
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
        "Config": run_config(&image)?,
        "Architecture": image.platform.architecture(),
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": image.platform.os(),
        "Size": summary.map_or(0, |summary| summary.size),
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": summary.map(|summary| summary.added.clone()) },
        "Descriptor": { "digest": image.manifest_digest.to_string() },
        "Layers": layers(&image),
        "History": history(engine, &image)?,
        "Runtime": runtime(engine, &image),
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
fn history(engine: &Engine, image: &Image) -> anyhow::Result<Vec<Value>> {
    let steps = engine.store().history(image)?;
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

/// Which runtime the image gets and why, or why it gets none; for wasm what the module is.
fn runtime(engine: &Engine, image: &Image) -> Value {
    let options = ContainerOptions {
        image: image.id.to_string(),
        ..ContainerOptions::default()
    };
    let explanation = match engine.explain(&options) {
        Ok(explanation) => explanation,
        Err(error) => return json!({ "Error": error.to_string() }),
    };
    let mut record = json!({
        "Name": explanation.runtime.to_string(),
        "Reason": explanation.reason,
    });
    if let (Some(path), Value::Object(record)) = (&explanation.module, &mut record) {
        let module = match module(path) {
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
