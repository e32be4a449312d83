//! `ketch run` and `ketch create`.

use clap::Args;
use engine::{Created, Engine, Wanted};
use image::{PlatformChoice, Reference};

use super::Invocation;
use super::options::CreateArgs;
use super::pull;
use crate::{attach, render};

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Go on in the background and print the id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    create: CreateArgs,
}

/// Creates and starts a container.
pub(crate) fn run(context: &Invocation, args: &RunArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let options = args.create.resolve(&context.settings)?;
    let created = create_container(context, &engine, &options)?;
    if args.detach {
        let session = engine.start_created(&created, options.console, None)?;
        session.wait_started()?;
        render::print(&created.config.id)?;
        return Ok(0);
    }
    let signals = attach::block_signals()?;
    let terminal = options.console.is_some();
    let wanted = Wanted {
        stdin: options.interactive,
        stdout: true,
        stderr: !terminal,
    };
    let session = engine.start_created(&created, options.console, Some(wanted))?;
    session.wait_started()?;
    let streams = session.attached(wanted)?;
    let raw = match terminal && options.interactive {
        true => attach::RawTerminal::enter().ok(),
        false => None,
    };
    let status = attach::serve(&session, streams, &signals)?;
    drop(raw);
    if status.oom_killed {
        render::line("ketch: the container was killed: it was out of memory (see --memory)");
    }
    Ok(status.code)
}

/// Creates a container and prints its id.
pub(crate) fn create(context: &Invocation, args: &CreateArgs) -> anyhow::Result<u8> {
    let options = args.resolve(&context.settings)?;
    let created = create_container(context, &context.engine()?, &options)?;
    render::print(&created.config.id)?;
    Ok(0)
}

/// Creates a container; an image that is not in the store is fetched first, `hello` from this
/// program itself.
fn create_container(
    context: &Invocation,
    engine: &Engine,
    options: &engine::ContainerOptions,
) -> anyhow::Result<Created> {
    let created = match engine.create(options) {
        Err(engine::EngineError::Image(error)) if pull::is_missing(&error) => {
            if options.image == "hello" {
                super::image::load_hello(engine)?;
            } else {
                render::line(&format!(
                    "ketch: `{}` is not here yet, pulling it",
                    options.image
                ));
                let choice = match &options.platform {
                    Some(platform) => PlatformChoice::Only(platform.clone()),
                    None => PlatformChoice::Default,
                };
                let reference = Reference::parse(&options.image)?;
                pull::fetch(engine, &context.settings, &reference, &choice)?;
            }
            engine.create(options)?
        }
        other => other?,
    };
    for warning in &created.warnings {
        render::line(&format!("ketch: warning: {warning}"));
    }
    Ok(created)
}
