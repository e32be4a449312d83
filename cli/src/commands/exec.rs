//! `ketch exec`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use engine::{DEFAULT_DETACH_KEYS, EngineError, ExecOptions, Privilege};

use super::Invocation;
use super::foreground::detach_keys;
use super::options::environment;
use crate::attach::{self, End, Foreground, SignalProxy, Terminal};
use crate::render::Usage;

/// Options of `exec`, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Go on in the background
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, or take it over from this environment (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User, by name or number (default: the container's)
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory (default: the container's)
    #[arg(short, long)]
    workdir: Option<String>,
    /// Give the program every capability
    #[arg(long)]
    privileged: bool,
    /// Keys that leave the terminal, such as ctrl-p,ctrl-q
    #[arg(long, default_value = DEFAULT_DETACH_KEYS, value_name = "KEYS")]
    detach_keys: String,
    /// Container, by name or id, then the command and its arguments
    #[arg(
        value_names = ["CONTAINER", "COMMAND"],
        num_args = 2..,
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    container_and_command: Vec<String>,
}

/// A container's name, and the words after it.
pub(crate) fn split_name(words: &[String]) -> anyhow::Result<(&str, &[String])> {
    let (name, rest) = words.split_first().context("no container was given")?;
    if name.starts_with('-') {
        return Err(Usage(format!("unknown flag `{name}` (see --help)")).into());
    }
    Ok((name, rest))
}

/// Runs a further program in a running container; the exit code is its own.
pub(crate) fn exec(context: &Invocation, args: &ExecArgs) -> anyhow::Result<u8> {
    let (name, command) = split_name(&args.container_and_command)?;
    if args
        .workdir
        .as_deref()
        .is_some_and(|dir| !dir.starts_with('/'))
    {
        let dir = args.workdir.as_deref().unwrap_or_default();
        return Err(Usage(format!("cannot use --workdir `{dir}`: it must be absolute")).into());
    }
    let terminal = Terminal::given(args.tty);
    let keys = detach_keys(&args.detach_keys)?;
    let options = ExecOptions {
        command: command.to_vec(),
        env: environment(&args.env_file, &args.env)?,
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        console: args.tty.then(attach::console),
        privilege: if args.privileged {
            Privilege::All
        } else {
            Privilege::AsContainer
        },
    };
    let engine = context.engine_of(name)?;
    let container = engine.container(name)?;
    if args.detach {
        let session = engine.exec(&container, &options, None)?;
        session.wait_started()?;
        if let Err(error) = engine.leave_exec(&container, &session) {
            // The container may have ended with it.
            tracing::debug!(%error, "nobody hears of the program's end");
        }
        return Ok(0);
    }
    let signals = attach::block_signals(SignalProxy::On).map_err(|source| EngineError::Io {
        what: "take signals",
        source,
    })?;
    let wanted = terminal.wanted(args.interactive);
    let session = engine.exec(&container, &options, Some(wanted))?;
    let foreground = Foreground {
        wanted,
        terminal,
        signals: &signals,
        keys: &keys,
        container: None,
    };
    match foreground.serve(&session)? {
        End::Exited(status) => {
            engine.record_exec_end(&container, status.code);
            Ok(status.code)
        }
        End::OutputClosed => Ok(attach::OUTPUT_CLOSED),
        End::Detached => Ok(0),
    }
}
