//! `ketch restart` and `ketch rename`.

use clap::Args;
use engine::EngineError;
use runtime::Request;

use super::Invocation;
use super::lifecycle::{Names, each, signal};

/// Options of `restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Signal that asks it to stop (default: the container's)
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds before the container is killed (default: the container's)
    #[arg(short, long, alias = "timeout")]
    time: Option<u64>,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Container, by name or id
    container: String,
    /// New name
    name: String,
}

/// Stops containers and starts them again; one that does not run is started.
pub(crate) fn restart(context: &Invocation, args: &RestartArgs) -> anyhow::Result<u8> {
    let signal = args.signal.as_deref().map(signal).transpose()?;
    let timeout_ms = args.time.map(|seconds| seconds.saturating_mul(1000));
    each(context, &args.names, |engine, container| {
        if container.is_running() {
            let stop = Request::StopToRestart { signal, timeout_ms };
            match engine.ask(container, &stop) {
                // It has ended in this moment.
                Ok(()) | Err(EngineError::NotRunning(_)) => {}
                Err(error) => return Err(error),
            }
        }
        engine.start(container, None, None)?.wait_started()?;
        engine.record_container_event(&container.config, "restart", &[]);
        Ok(())
    })
}

/// Gives a container another name.
pub(crate) fn rename(context: &Invocation, args: &RenameArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    engine.rename(&engine.container(&args.container)?, &args.name)?;
    Ok(0)
}
