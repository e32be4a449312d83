//! `ketch run` and `ketch create`.

use clap::Args;
use engine::{Created, Engine};
use image::{PlatformChoice, Reference};

use super::Invocation;
use super::options::CreateArgs;
use super::pull;
use crate::attach::{self, End, Terminal};
use crate::render;

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
    let options = args.create.resolve(&context.settings)?;
    let engine = context.engine()?;
    let created = create_container(context, &engine, &options)?;
    if args.detach {
        let session = engine.start_created(&created, options.console, None)?;
        session.wait_started()?;
        render::print(&created.config.id)?;
        return Ok(0);
    }
    let signals = attach::block_signals()?;
    let terminal = Terminal::given(options.console.is_some());
    let wanted = terminal.wanted(options.interactive);
    let session = engine.start_created(&created, options.console, Some(wanted))?;
    let end = attach::foreground(&session, wanted, terminal, &signals)?;
    Ok(exit_code(&end, &created.config.name))
}

/// The exit code of a container in the foreground, with a word about an end that is not its own.
pub(crate) fn exit_code(end: &End, name: &str) -> u8 {
    match end {
        End::Exited(status) => {
            if status.oom_killed {
                render::line(
                    "ketch: the container was killed: it was out of memory (see --memory)",
                );
            }
            status.code
        }
        End::OutputClosed => {
            let name = render::clean(name);
            render::line(&format!(
                "ketch: standard output is closed; container `{name}` goes on without it"
            ));
            attach::OUTPUT_CLOSED
        }
    }
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
    match engine.create(options) {
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
            Ok(engine.create(options)?)
        }
        other => Ok(other?),
    }
}
