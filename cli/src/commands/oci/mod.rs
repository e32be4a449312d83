//! `ketch oci`: the OCI runtime command line, for Docker, podman and containerd. Also what this
//! program is when it is called `ketch-oci` or `runc`.
//!
//! Callers know runc's options, so these are runc's. Global options may stand before or after the
//! verb, and a verb's options and its container in any order.

mod args;
mod checkpoint;
mod global;
mod update;
mod verbs;
mod wasm;
mod watch;

use runtime_native::oci::{EXEC_FAILED, Log, OciError};

use global::Global;

use crate::render;

/// The names that this program answers to as an OCI runtime.
const NAMES: [&str; 2] = ["ketch-oci", "runc"];

/// Whether `program` (`argv[0]`) is a name of the OCI runtime.
pub(crate) fn is_runtime(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    NAMES.contains(&name)
}

/// Runs the verb that the arguments name, and gives the exit code.
pub(crate) fn dispatch(args: &[&str]) -> anyhow::Result<u8> {
    let (global, rest) = Global::parse(args)?;
    let log = Log::open(&global.log);
    let Some((verb, rest)) = rest.split_first() else {
        global::help()?;
        return Ok(0);
    };
    let result = verbs::run(&global, &log, verb, rest);
    let Err(error) = result else { return result };
    if error.downcast_ref::<clap::Error>().is_some() {
        return Err(error);
    }
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    log.error(&chain.join(": "));
    render::report(&error);
    let code = error.downcast_ref::<OciError>().map(OciError::exit_code);
    Ok(match (*verb, code.unwrap_or(1)) {
        ("exec", 1) => EXEC_FAILED,
        (_, code) => code,
    })
}
