//! `start`, `stop`, `kill`, `wait` and `rm`: one operation on each container named.

use clap::Args;
use engine::{Container, Engine, EngineError, Force};
use runtime::Request;
use runtime_native::real_signal;

use super::Invocation;
use super::foreground::ForegroundArgs;
use crate::render::{self, Usage};

/// Containers by name or id.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Containers, by name or id
    #[arg(required = true)]
    pub(super) containers: Vec<String>,
}

/// Options of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Join standard output and error, and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Join standard input as well
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    foreground: ForegroundArgs,
    #[command(flatten)]
    names: Names,
}

/// Options of `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds before the container is killed (default 10)
    #[arg(short, long, alias = "timeout")]
    time: Option<u64>,
    /// Signal that asks it to stop (default: the image's, or TERM)
    #[arg(short, long)]
    signal: Option<String>,
    #[command(flatten)]
    names: Names,
}

/// Options of `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    #[command(flatten)]
    names: Names,
}

/// Options of `rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill running containers
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    #[command(flatten)]
    names: Names,
}

/// Does `operation` on each; goes on after a failure and prints it. The exit code is 1 then.
pub(super) fn each(
    context: &Invocation,
    names: &Names,
    mut operation: impl FnMut(&Engine, &Container) -> Result<(), EngineError>,
) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut code = 0;
    for name in &names.containers {
        let result = engine
            .container(name)
            .and_then(|found| operation(&engine, &found));
        match result {
            Ok(()) => render::print(name)?,
            Err(error) => {
                render::report(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Starts containers; one that runs already is left alone.
pub(crate) fn start(context: &Invocation, args: &StartArgs) -> anyhow::Result<u8> {
    if args.attach || args.interactive {
        let [name] = args.names.containers.as_slice() else {
            return Err(Usage("only one container can be attached to".to_owned()).into());
        };
        let engine = context.engine()?;
        let container = engine.container(name)?;
        if container.is_running() {
            return Err(EngineError::Running {
                what: "start",
                name: container.config.name,
            }
            .into());
        }
        return super::attach::start(&engine, &container, args.interactive, &args.foreground);
    }
    each(context, &args.names, |engine, container| {
        if container.is_running() {
            return Ok(());
        }
        engine
            .start(container, None, None)?
            .wait_started()
            .map(drop)
    })
}

/// Stops containers; one that has ended is left alone.
pub(crate) fn stop(context: &Invocation, args: &StopArgs) -> anyhow::Result<u8> {
    let signal = args.signal.as_deref().map(signal).transpose()?;
    let timeout_ms = args.time.map(|seconds| seconds.saturating_mul(1000));
    each(context, &args.names, |engine, container| {
        if !container.is_running() {
            return Ok(());
        }
        match engine.ask(container, &Request::Stop { signal, timeout_ms }) {
            // It has ended in this moment.
            Err(EngineError::NotRunning(_)) => Ok(()),
            other => other,
        }
    })
}

/// Sends a signal.
pub(crate) fn kill(context: &Invocation, args: &KillArgs) -> anyhow::Result<u8> {
    let signal = signal(&args.signal)?;
    each(context, &args.names, |engine, container| {
        engine.ask(container, &Request::Signal(signal))
    })
}

/// Waits for the end and prints the exit codes.
pub(crate) fn wait(context: &Invocation, args: &Names) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for name in &args.containers {
        let code = match engine.container(name) {
            Ok(container) => engine.wait(&container)?,
            // It may have been removed when it ended.
            Err(EngineError::NoSuchContainer(_)) => engine.removed_exit_code(name)?,
            Err(error) => return Err(error.into()),
        };
        render::print(&code.to_string())?;
    }
    Ok(0)
}

/// Removes containers.
pub(crate) fn rm(context: &Invocation, args: &RmArgs) -> anyhow::Result<u8> {
    let force = if args.force { Force::Yes } else { Force::No };
    each(context, &args.names, |engine, container| {
        let volumes = if args.volumes {
            engine.own_volumes(&container.config.id)
        } else {
            Vec::new()
        };
        engine.remove(container, force)?;
        engine.remove_own_volumes(&volumes)
    })
}

pub(super) fn signal(text: &str) -> anyhow::Result<i32> {
    real_signal(text).ok_or_else(|| Usage(format!("`{text}` is not a signal")).into())
}
