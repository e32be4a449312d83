//! `ketch attach`, and `ketch start` in the foreground.

use clap::Args;
use engine::{Container, Engine, EngineError};

use super::Invocation;
use super::foreground::ForegroundArgs;
use super::run::exit_code;
use crate::attach::{self, Foreground, Terminal};

/// Options of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Leave the container's standard input alone
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    foreground: ForegroundArgs,
    /// Container, by name or id
    container: String,
}

/// Joins the streams of a running container until it ends; the exit code is its own.
pub(crate) fn attach(context: &Invocation, args: &AttachArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.container(&args.container)?;
    if !container.is_running() {
        return Err(EngineError::NotRunning(container.config.name).into());
    }
    let streams = engine.streams_of(&container)?;
    let keys = args.foreground.keys()?;
    let signals = attach::block_signals(args.foreground.proxy())?;
    let terminal = Terminal::given(streams.terminal);
    let wanted = terminal.wanted(streams.interactive && !args.no_stdin);
    let session = engine.connect(&container)?;
    session.watch()?;
    session.ask_streams(wanted)?;
    let foreground = Foreground {
        wanted,
        terminal,
        signals: &signals,
        keys: &keys,
        container: Some((&engine, &container.config.id)),
    };
    let end = foreground.serve(&session)?;
    Ok(exit_code(&end, &container.config.name))
}

/// Starts a container and joins its streams; the exit code is its own.
pub(crate) fn start(
    engine: &Engine,
    container: &Container,
    interactive: bool,
    foreground: &ForegroundArgs,
) -> anyhow::Result<u8> {
    let streams = engine.streams_of(container)?;
    let keys = foreground.keys()?;
    let signals = attach::block_signals(foreground.proxy())?;
    let terminal = Terminal::given(streams.terminal);
    let wanted = terminal.wanted(interactive && streams.interactive);
    let session = engine.start(container, Some(attach::console()), Some(wanted))?;
    let foreground = Foreground {
        wanted,
        terminal,
        signals: &signals,
        keys: &keys,
        container: Some((engine, &container.config.id)),
    };
    let end = foreground.serve(&session)?;
    Ok(exit_code(&end, &container.config.name))
}
