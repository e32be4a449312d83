//! `ketch inspect`, `ketch container inspect` and `ketch image inspect`: records in Docker's shape.

use clap::Args;
use engine::{ContainerOptions, Engine, EngineError};
use image::{Image, ImageError};
use serde_json::{Value, json};

use super::Invocation;
use super::container_record::{self, Sizes};
use super::options::platform;
use crate::image_record;
pub(crate) use crate::image_record::show;
use crate::render::Usage;

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

fn image_record(engine: &Engine, name: &str, wanted: Option<&str>) -> anyhow::Result<Value> {
    let wanted = wanted.map(platform).transpose()?;
    let image = match engine.store().resolve(name, wanted.as_ref()) {
        Err(ImageError::NotFound(_)) if name == "hello" => {
            super::image::load_hello(engine)?;
            engine.store().resolve(name, wanted.as_ref())?
        }
        other => other?,
    };
    image_record::record(engine.store(), &image, &runtime(engine, &image))
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
    image_record::runtime(
        explanation.runtime,
        &explanation.reason,
        explanation.module.as_deref(),
    )
}
