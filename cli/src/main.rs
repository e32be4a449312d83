//! `ketch`: the command line. It reads the environment, prints and exits; everything else is the
//! engine's.
#![forbid(unsafe_code)]

mod activation;
mod ahead;
mod attach;
mod commands;
mod embedded;
mod format;
mod progress;
mod relay;
mod remote;
mod render;
mod service_log;
mod settings;
mod template;
mod times;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match commands::dispatch(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => render::failure(&error, commands::failure_code(&args)),
    }
}
