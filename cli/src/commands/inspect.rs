//! `ketch inspect`, `ketch container inspect` and `ketch image inspect`: records in Docker's shape.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use engine::{Container, ContainerOptions, Engine, EngineError};
use image::{Image, ImageError, Reference};
use runtime_wasm::{WasmInfo, World};
use serde_json::{Value, json};
use state::Status;

use super::Invocation;
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
    /// What is meant: container or image (default: a container, else an image)
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Containers or images, by name or id
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

/// Shows containers or images.
pub(crate) fn inspect(context: &Invocation, args: &InspectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = |name: &str| Ok(container_record(&engine, &engine.container(name)?));
    let image = |name: &str| image_record(&engine, name, None);
    let find: &dyn Fn(&str) -> anyhow::Result<Value> = match args.kind.as_deref() {
        Some("container") => &container,
        Some("image") => &image,
        None => &|name| match engine.container(name) {
            Ok(found) => Ok(container_record(&engine, &found)),
            // The container is what an unknown name is reported as.
            Err(missing @ EngineError::NoSuchContainer(_)) => {
                image(name).map_err(|_| missing.into())
            }
            Err(error) => Err(error.into()),
        },
        Some(other) => {
            let text = format!("cannot use --type `{other}`: it is container or image");
            return Err(Usage(text).into());
        }
    };
    show(&args.names, args.format.as_deref(), find)
}

/// Shows images, and which runtime each gets and why.
pub(crate) fn image(context: &Invocation, args: &ImageInspectArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let wanted = args.platform.as_deref();
    let find = |name: &str| image_record(&engine, name, wanted);
    show(&args.names, args.format.as_deref(), &find)
}

/// Prints what is found; goes on after what is not. The exit code is 1 then.
fn show(
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
        None => render::print(&serde_json::to_string_pretty(&found)?)?,
    }
    Ok(code)
}

fn container_record(engine: &Engine, container: &Container) -> Value {
    let (config, state) = (&container.config, &container.state);
    json!({
        "Id": config.id,
        "Name": format!("/{}", config.name),
        "Created": config.created,
        "Image": config.image_id,
        "Path": config.command.first(),
        "Args": config.command.get(1..),
        "Runtime": config.runtime,
        "RestartCount": state.restart_count,
        "LogPath": log_path(engine, container),
        "State": {
            "Status": state.status,
            "Running": container.is_running(),
            "Paused": state.status == Status::Paused,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Pid": state.pid.unwrap_or(0),
            "ExitCode": state.exit_code.unwrap_or(0),
            "Error": state.error.clone().unwrap_or_default(),
            "StartedAt": state.started_at,
            "FinishedAt": state.finished_at,
            "Health": health(engine, container),
        },
        "Config": {
            "Image": config.image,
            "Cmd": config.command,
            "Healthcheck": healthcheck(engine, container),
        },
        "HostConfig": {
            "AutoRemove": config.auto_remove,
            "LogConfig": log_config(engine, container),
            "RestartPolicy": restart_policy(engine, container),
            "NetworkMode": super::network_settings::mode(engine, container),
        },
        "Mounts": super::mount_records::json(engine, container),
        "NetworkSettings": super::network_settings::json(engine, container),
    })
}

/// Where the log is; empty when it is in no file.
fn log_path(engine: &Engine, container: &Container) -> String {
    let path = engine.log_path(container).ok().flatten();
    path.map(|path| path.display().to_string())
        .unwrap_or_default()
}

fn log_config(engine: &Engine, container: &Container) -> Value {
    let options = engine.log_options(container).unwrap_or_default();
    json!({ "Type": options.driver, "Config": options.options })
}

/// What the probes have said, in Docker's shape; null without a health check.
fn health(engine: &Engine, container: &Container) -> Value {
    let Some(health) = engine.health(container) else {
        return Value::Null;
    };
    json!({
        "Status": health.status.name(),
        "FailingStreak": health.failing_streak,
        "Log": health.log,
    })
}

fn healthcheck(engine: &Engine, container: &Container) -> Value {
    let Ok(Some(check)) = engine.health_check(container) else {
        return Value::Null;
    };
    let nanoseconds = |time: std::time::Duration| time.as_nanos();
    json!({
        "Test": check.test,
        "Interval": nanoseconds(check.interval),
        "Timeout": nanoseconds(check.timeout),
        "StartPeriod": nanoseconds(check.start_period),
        "StartInterval": nanoseconds(check.start_interval),
        "Retries": check.retries,
    })
}

fn restart_policy(engine: &Engine, container: &Container) -> Value {
    let policy = engine.restart_policy(container).unwrap_or_default();
    json!({ "Name": policy.name(), "MaximumRetryCount": policy.max_retries() })
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
