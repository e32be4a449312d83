//! `ketch run` and `ketch create`.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::{ContainerOptions, Created, Engine, EngineError, Explanation, Network};
use image::{ImageError, PlatformChoice, Reference};

use super::Invocation;
use super::foreground::ForegroundArgs;
use super::options::{CreateArgs, Pull};
use super::pull;
use crate::attach::{self, End, Foreground, Terminal};
use crate::progress::ProgressStyle;
use crate::render::{self, Usage};

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Go on in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Print which runtime is chosen and why, and run nothing
    #[arg(long)]
    explain: bool,
    /// What stands around a wasm guest: container, or wasm-only (no namespaces, no control group)
    #[arg(long, default_value = "container", value_name = "WALLS")]
    isolation: String,
    /// Add the steps of the start to a file: side, step, microseconds since it began
    #[arg(long, value_name = "FILE")]
    trace_steps: Option<PathBuf>,
    #[command(flatten)]
    foreground: ForegroundArgs,
    #[command(flatten)]
    create: CreateArgs,
}

/// Creates and starts a container.
pub(crate) fn run(context: &Invocation, args: &RunArgs) -> anyhow::Result<u8> {
    let options = ContainerOptions {
        trace: absolute(args.trace_steps.as_deref())?,
        ..args.create.resolve(&context.settings)?
    };
    let keys = args.foreground.keys()?;
    let engine = match &options.network {
        // An ordinary user can share a network only from within the same user namespace.
        Network::Container(other) => context.engine_beside(other)?,
        _ => context.engine()?,
    };
    let with_image = || WithImage {
        context,
        engine: &engine,
        options: &options,
        quiet: args.create.quiet,
    };
    let pull = args.create.pull()?;
    if args.explain {
        let explanation = with_image().get(pull, Engine::explain)?;
        return explain(&explanation);
    }
    match args.isolation.as_str() {
        "container" => {}
        "wasm-only" if args.detach => {
            return Err(Usage("cannot use --detach with --isolation wasm-only".to_owned()).into());
        }
        "wasm-only" => {
            render::line("ketch: no container: the wasm sandbox is the only wall");
            match with_image().get(pull, Engine::run_wasm_only)? {}
        }
        other => {
            let text = format!("cannot use --isolation `{other}`: it is container or wasm-only");
            return Err(Usage(text).into());
        }
    }
    let created = args
        .create
        .in_cid_file(&engine, || with_image().get(pull, Engine::create))?;
    warn(&created);
    if args.detach {
        let session = engine.start_created(&created, options.console, None)?;
        session.wait_started()?;
        render::print(&created.config.id)?;
        return Ok(0);
    }
    let signals = attach::block_signals(args.foreground.proxy())?;
    let terminal = Terminal::given(options.console.is_some());
    let wanted = terminal.wanted(options.interactive);
    let session = engine.start_created(&created, options.console, Some(wanted))?;
    let foreground = Foreground {
        wanted,
        terminal,
        signals: &signals,
        keys: &keys,
        container: Some((&engine, &created.config.id)),
    };
    let end = foreground.serve(&session)?;
    Ok(exit_code(&end, &created.config.name))
}

fn absolute(path: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    Ok(path.map(std::path::absolute).transpose()?)
}

/// The exit code of a container in the foreground, with a word about an end that is not its own.
pub(crate) fn exit_code(end: &End, name: &str) -> u8 {
    match end {
        End::Exited(status) => {
            // A wasm guest's end is on standard error already.
            if status.oom_killed && status.error.is_none() {
                render::line(
                    "ketch: out of memory: a process of the container was killed (see --memory)",
                );
            }
            status.code
        }
        End::Detached => {
            let name = render::clean(name);
            render::line(&format!("ketch: detached; container `{name}` goes on"));
            0
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
    let engine = context.engine()?;
    let with_image = WithImage {
        context,
        engine: &engine,
        options: &options,
        quiet: args.quiet,
    };
    let pull = args.pull()?;
    let created = args.in_cid_file(&engine, || with_image.get(pull, Engine::create))?;
    warn(&created);
    render::print(&created.config.id)?;
    Ok(0)
}

/// Says what will not work as its author may think.
fn warn(created: &Created) {
    for warning in &created.warnings {
        render::line(&format!("ketch: warning: {}", render::clean(warning)));
    }
}

/// Prints what `run` would do, one fact a line.
fn explain(explanation: &Explanation) -> anyhow::Result<u8> {
    render::print(&format!("runtime: {}", explanation.runtime))?;
    render::print(&format!("because: {}", render::clean(&explanation.reason)))?;
    if let Some(kind) = explanation.kind {
        render::print(&format!("wasm: {kind}"))?;
    }
    let command = explanation.command.join(" ");
    render::print(&format!("command: {}", render::clean(&command)))?;
    Ok(0)
}

/// Whether an error says that an image is here, and not for the wanted platform.
fn is_part(error: &ImageError) -> bool {
    matches!(error, ImageError::NoPlatform { .. })
}

/// Something that needs the image of these options.
struct WithImage<'a> {
    context: &'a Invocation,
    engine: &'a Engine,
    options: &'a ContainerOptions,
    quiet: bool,
}

impl WithImage<'_> {
    /// Does it; an image that is wanted from elsewhere is fetched first, `hello` from this program
    /// itself.
    fn get<T>(
        &self,
        pull: Pull,
        operation: impl Fn(&Engine, &ContainerOptions) -> Result<T, EngineError>,
    ) -> anyhow::Result<T> {
        if pull == Pull::Always && self.options.module.is_none() {
            self.fetch()?;
        }
        match operation(self.engine, self.options) {
            Err(EngineError::Image(error)) if pull == Pull::Missing && pull::is_missing(&error) => {
                self.fetch()?;
                Ok(operation(self.engine, self.options)?)
            }
            // What is here may be a part of an index that has the wanted one, too.
            Err(EngineError::Image(error)) if pull == Pull::Missing && is_part(&error) => {
                if let Err(failure) = self.fetch() {
                    render::line(&format!("ketch: cannot get it: {failure:#}"));
                    return Err(EngineError::Image(error).into());
                }
                Ok(operation(self.engine, self.options)?)
            }
            other => Ok(other?),
        }
    }

    fn fetch(&self) -> anyhow::Result<()> {
        let image = &self.options.image;
        if image == "hello" {
            return super::image::load_hello(self.engine);
        }
        let reference = Reference::parse(image)?;
        if !self.quiet {
            render::line(&format!("ketch: pulling `{}`", reference.familiar()));
        }
        let style = if self.quiet {
            ProgressStyle::None
        } else {
            ProgressStyle::Auto
        };
        let choice = match &self.options.platform {
            Some(platform) => PlatformChoice::Only(platform.clone()),
            None => PlatformChoice::Default,
        };
        let settings = &self.context.settings;
        pull::fetch(self.engine, settings, &reference, &choice, style)?;
        Ok(())
    }
}
